"""What a caller may give as a plan or as a request in words, and what of it goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import NotFound, PlanError, RequestError
from orchestrator.models.plan import Plan

PlanSource = Mapping[str, Any] | Plan | Path | str


def is_sentence(text: str) -> bool:
    """Whether a text asks for something in words: it has blanks, and is not the name of a file that is there.

    One word is the name of a plan, or its file.
    """
    return len(text.split()) > 1 and not _is_file(text)


def asked(plan: PlanSource | None, request: str | None) -> dict[str, Any]:
    """The plan, or the request, of a body.

    Raises:
        RequestError: there is neither, or both.
        NotFound: the file of the plan is not there.
        PlanError: it holds no JSON object.
    """
    if (plan is None) == (request is None):
        raise RequestError(
            "give either a plan or a request", path="plan", next='Such as `submit("receipts")`, or `submit("add these up")`.'
        )
    if request is None and isinstance(plan, str) and is_sentence(plan):
        request = plan
    if request is not None:
        return {"request": request}
    assert plan is not None, "one of the two was given"
    return {"plan": plan_body(plan)}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def plan_body(source: PlanSource) -> dict[str, Any] | str:
    """A plan as the API takes it: the object, or the name of a bundled one.

    A string is a file when it ends in `.json` or holds a `/`, else a name.

    Raises:
        NotFound: the file is not there.
        PlanError: the file holds no JSON object.
    """
    if isinstance(source, Plan):
        return source.model_dump(mode="json", exclude_none=True, exclude_unset=True, exclude={"warnings"})
    if isinstance(source, Path) or (isinstance(source, str) and _is_path(source)):
        return _read_file(Path(source))
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping):
        return dict(source)
    raise RequestError(
        f"a plan cannot be a {type(source).__name__}", next="Give a dict, a Plan, a file, or the name of a bundled plan."
    )


def _is_path(text: str) -> bool:
    return text.endswith(".json") or "/" in text or "\\" in text


def _read_file(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"the plan file `{path}` cannot be read: {error.strerror}", next="Check the path.") from None
    except ValueError as error:
        raise PlanError(f"`{path}` is no JSON file", problems=[_no_json(error)]) from None
    if not isinstance(plan, dict):
        raise PlanError(
            f"`{path}` holds no plan", problems=[{"path": "$", "code": "not_an_object", "message": "A plan is a JSON object."}]
        )
    return plan


def _no_json(error: ValueError) -> dict[str, Any]:
    message = f"line {error.lineno}, column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
    return {"path": "$", "code": "bad_json", "message": message, "next": "Mend the JSON at this place."}
