"""Plan templates: plans for requests that are foreseen, made without a model and only where the request certainly fits.

A template fits when the request is one of its sentences, every input that is given has its place in it, and its tools are those
that it was made with. Whatever is left over in any of the three, and it does not: nothing is guessed.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.models.file import UNTYPED, FileRef
from orchestrator.models.plan import MAX_PLAN_BYTES
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.asked import PlanRequest
from orchestrator.planner.problems import listed
from orchestrator.planner.sentences import BadSentence, Sentence, read_sentence

log = logging.getLogger(__name__)

_FOLDER = files("orchestrator") / "plans" / "templates"
_PARAM = "param:"


class _Body(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class NeededInput(_Body):
    """An input of the plan that the request must bring: files of some media types, one or many."""

    media_types: tuple[str, ...] = Field(min_length=1, description="patterns such as `image/*`")
    many: bool = True


class Template(_Body):
    """A plan with the sentences that ask for it. In `plan`, `param:<name>` stands for a parameter, as a whole string."""

    name: str = Field(pattern=r"^[A-Za-z][\w-]*$", max_length=64)
    description: str = ""
    examples: tuple[str, ...] = Field(default=(), description="requests as people would write them; each must fit")
    sentences: tuple[str, ...] = Field(min_length=1, description="what is asked, in the notation of `planner.sentences`")
    phrases: dict[str, str] = Field(default_factory=dict, description="what `<name>` stands for in sentences")
    parameters: dict[str, dict[str, tuple[str, ...]]] = Field(
        default_factory=dict, description="values by parameter, each with further wordings of it"
    )
    inputs: dict[str, NeededInput] = Field(default_factory=dict)
    tools: dict[str, str] = Field(default_factory=dict, description="the content hash of each tool that the plan was made with")
    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """A template, ready to be compared; `own` says that a user wrote it."""

    template: Template
    sentences: tuple[Sentence, ...]
    own: bool = False

    def values(self, text: str) -> dict[str, str] | None:
        """The parameters where the request is one of the sentences; None: it is none, or several that mean different things."""
        found = [values for s in self.sentences if (values := s.fit(text)) is not None]
        return found[0] if found and all(v == found[0] for v in found) else None


@dataclass(frozen=True, slots=True)
class Match:
    """The plan of the template that fits; without a plan, `near` says which came nearest and what it lacks."""

    plan: dict[str, Any] | None = None
    name: str = ""
    near: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shelf:
    """The templates that there are, a user's own first, and the files that cannot be read with the reason."""

    templates: tuple[Read, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)


class _DoesNotFit(Exception):
    """Why a template whose sentence fits is not used."""


def match_templates(request: PlanRequest, tools: ToolCatalog, *, home: Path | None = None) -> Match:
    """The plan for a request that certainly fits a template, with what it may use; it is still to be checked.

    A user's own templates go before the bundled ones. Of two that fit, neither is used.
    """
    if request.former is not None:
        return Match(near="")
    shelf = all_templates(home)
    fitting = [(read, values) for read in shelf.templates if (values := read.values(request.text)) is not None]
    own = [pair for pair in fitting if pair[0].own]
    fitting = own or fitting
    if len(fitting) > 1:
        return Match(near=f"templates {listed(r.template.name for r, _ in fitting)} fit alike, so neither is used")
    return _made(*fitting[0], request, tools) if fitting else Match()


def all_templates(home: Path | None = None) -> Shelf:
    """The bundled templates and those in the folder `templates` of the home folder."""
    own: list[Read] = []
    unreadable: dict[str, str] = {}
    folder = home.expanduser() / "templates" if home is not None else None
    for path in sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else ():
        try:
            found = path.stat()
            own.append(_own(path, found.st_mtime_ns, found.st_size))
        except (OSError, ValueError) as error:
            unreadable[path.name] = _why(error)
            log.warning("template %s: %s", path.name, unreadable[path.name], extra={"action": "template_unreadable"})
    return Shelf((*own, *bundled_templates()), unreadable)


@lru_cache(maxsize=1)
def bundled_templates() -> tuple[Read, ...]:
    """The templates that come with ToolWeaver, by name."""
    if not _FOLDER.is_dir():
        return ()
    found = sorted((f for f in _FOLDER.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    return tuple(read_template(f.read_text(encoding="utf-8")) for f in found)


def examples(*, home: Path | None = None, most: int = 4) -> list[str]:
    """Requests that can be planned without a model: one of each template, while there are few."""
    return [read.template.examples[0] for read in all_templates(home).templates if read.template.examples][:most]


def read_template(text: str, *, own: bool = False) -> Read:
    """A template from its JSON.

    Raises:
        ValueError: it is none; the message says what is wrong.
    """
    template = Template.model_validate_json(text)
    sentences = tuple(read_sentence(s, phrases=template.phrases, values=template.parameters) for s in template.sentences)
    read = Read(template, sentences, own)
    if strange := next((e for e in template.examples if read.values(e) is None), None):
        raise BadSentence(f'the example "{strange}" fits none of the sentences')
    return read


def bound(template: Template, tools: ToolCatalog) -> dict[str, str]:
    """The content hashes of the tools that a template's plan names, for its field `tools`."""
    named = sorted({str(s.get("tool")) for s in template.plan.get("steps", ()) if isinstance(s, Mapping)})
    return {name: tool.content_hash for name in named if (tool := tools.get_tool(name)) is not None}


@lru_cache(maxsize=64)
def _own(path: Path, changed: int, size: int) -> Read:  # noqa: ARG001 - a file that changed is read again
    if size > MAX_PLAN_BYTES:
        raise ValueError(f"it has more than {MAX_PLAN_BYTES} bytes")
    return read_template(path.read_text(encoding="utf-8"), own=True)


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _made(read: Read, values: Mapping[str, str], request: PlanRequest, tools: ToolCatalog) -> Match:
    template = read.template
    try:
        _check_tools(template, tools)
        places, defaults = _placed(template, request)
    except _DoesNotFit as error:
        return Match(name=template.name, near=f"template {template.name}: {error}")
    plan = _filled(template.plan, values, places)
    plan["inputs"] = {**{k: v for k, v in plan.get("inputs", {}).items() if k not in template.inputs}, **defaults}
    said = [f"{name} = {value}" for name, value in sorted(values.items())]
    said += [f"{name} = {place.removeprefix('input:')}" for name, place in sorted(places.items())]
    if not plan["inputs"]:
        del plan["inputs"]
    notes = (f"every word of the request is foreseen by the template {template.name} ({', '.join(said) or 'no values'})",)
    return Match(plan, template.name, notes=notes)


def _check_tools(template: Template, tools: ToolCatalog) -> None:
    for name, wanted in template.tools.items():
        tool = tools.get_tool(name)
        if tool is None:
            raise _DoesNotFit(f"its tool {name} is not there, or may not be used")
        if tool.content_hash != wanted:
            raise _DoesNotFit(f"its tool {name} is another one than it was made with")


def _placed(template: Template, request: PlanRequest) -> tuple[dict[str, str], dict[str, Any]]:
    """Where the plan finds its inputs among those of the request, and defaults that gather several into one list."""
    left = dict(request.inputs)
    places: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    for name, needed in template.inputs.items():
        alone = len(template.inputs) == 1
        taken = list(left) if alone else [n for n in left if n == name]
        if not taken:
            raise _DoesNotFit(
                f"it needs {'files' if needed.many else 'a file'} of the type {listed(needed.media_types, last='or')}"
            )
        for one in taken:
            _check_types(one, left[one], needed, request.files)
        places[name] = _place(name, {one: left.pop(one) for one in taken}, needed, defaults)
    if left:
        raise _DoesNotFit(f"it has no place for the input{'s' if len(left) > 1 else ''} {listed(left)}")
    return places, defaults


def _place(name: str, given: Mapping[str, Any], needed: NeededInput, defaults: dict[str, Any]) -> str:
    """The reference that stands for a needed input. Single files become a list, which the plan brings as a default."""
    values = [v for value in given.values() for v in (value if isinstance(value, list | tuple) else [value])]
    first = next(iter(given))
    listed_alone = len(given) == 1 and isinstance(given[first], list | tuple)
    if not needed.many:
        if len(values) != 1:
            raise _DoesNotFit(f"it takes one file, {len(values)} are given")
        return f"input:{first}[0]" if listed_alone else f"input:{first}"
    if listed_alone:
        return f"input:{first}"
    free = name
    while free in given:
        free += "_list"
    defaults[free] = values
    return f"input:{free}"


def _check_types(name: str, value: Any, needed: NeededInput, known: Mapping[str, FileRef]) -> None:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise _DoesNotFit(f"the input {name} is empty")
    for one in values:
        found = media_type(one, known)
        if found is None:
            raise _DoesNotFit(f"what kind of file the input {name} holds is not known")
        if not any(fnmatchcase(found, pattern) for pattern in needed.media_types):
            raise _DoesNotFit(f"the input {name} holds {found}, it takes {listed(needed.media_types, last='or')}")


def media_type(value: Any, known: Mapping[str, FileRef]) -> str | None:
    """The media type of what an input names, as far as it is told or its name shows; nothing is opened."""
    if not isinstance(value, str):
        return None
    file = known.get(value)
    if file is not None:
        return file.media_type if file.media_type != UNTYPED else mimetypes.guess_type(file.name)[0]
    if value.startswith("bundled:"):
        return "image/png"
    if found := re.match(r"data:([\w.+-]+/[\w.+-]+)[;,]", value):
        return found[1].lower()
    if re.match(r"(https?|file):", value) or re.fullmatch(r"[^\s:]+", value):
        return mimetypes.guess_type(value.partition("?")[0].partition("#")[0])[0]
    return None


def _filled(value: Any, values: Mapping[str, str], places: Mapping[str, str]) -> Any:
    """The plan with its parameters put in and its inputs renamed."""
    if isinstance(value, Mapping):
        return {k: _filled(v, values, places) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(v, values, places) for v in value]
    if not isinstance(value, str):
        return value
    if value.startswith(_PARAM):
        return values.get(value.removeprefix(_PARAM))
    found = re.match(r"input:([A-Za-z][\w-]*)(?=$|[.\[])", value)
    return places[found[1]] + value[found.end() :] if found and found[1] in places else value


def _rebound(folder: Path, tools: ToolCatalog) -> Iterator[Path]:
    """Writes the hashes of the tools into the templates of a folder."""
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        hashes = bound(Template.model_validate(data), tools)
        if data.get("tools") != hashes:
            plan = data.pop("plan")
            path.write_text(json.dumps({**data, "tools": hashes, "plan": plan}, indent=1, ensure_ascii=False) + "\n", "utf-8")
            yield path


def rebind(tools: ToolCatalog, folders: Sequence[Path] = ()) -> list[Path]:
    """Binds templates to the tools as they are now, the bundled ones unless folders are named; gives the files that changed."""
    return [path for folder in folders or [Path(str(_FOLDER))] for path in _rebound(folder, tools)]


if __name__ == "__main__":  # after a change of a bundled tool, as `python -m workers.manifest`
    rebind(bundled_catalog())
