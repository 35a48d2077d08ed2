"""One function reads a picture, whichever engine does it: the engines in their order, the next when one cannot."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from orchestrator.errors import ToolError
from orchestrator.settings import Settings, load_settings
from workers.ocr import layout
from workers.ocr.clean import cleaned
from workers.ocr.papers import papers
from workers.ocr.pieces import Deadline, Engine, Orientation, Picture, Reading, TooLate, Unable
from workers.ocr.second import POOR, better
from workers.receipt import OcrLine, OcrResult

SHARE = 2 / 3  # of the time that is left, for an engine that another one could take over from
_EXTRAS = {"rapidocr": "ocr", "tesseract": "ocr", "azure": "azure"}


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the engines for every page."""

    settings: Settings
    engines: tuple[str, ...]
    language: str
    orientation: Orientation
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class PageText:
    """A page that was read."""

    lines: tuple[OcrLine, ...]
    width: int
    height: int
    turned: int = 0
    skew: float = 0.0
    engine: str = ""
    notes: tuple[str, ...] = ()


def read_image(
    image: Image.Image,
    *,
    settings: Settings | None = None,
    language: str = "en",
    orientation: Orientation = "auto",
    engines: Sequence[str] | None = None,
    deadline_s: float | None = None,
    source: str = "",
) -> OcrResult:
    """The text of a picture, in this process.

    Args:
        settings: Default: those of the environment.
        language: ISO 639-1.
        orientation: Degrees clockwise by which to turn the picture; `auto` finds out.
        engines: Names in order of preference; default: the setting `ocr_engines`.
        deadline_s: Seconds that the picture may take; default: the setting `ocr_deadline_s`.

    Raises:
        ToolError: `ocr_failed`: no engine could read it; `too_slow`: none was done in time.
    """
    settings = settings or load_settings()
    deadline = Deadline(deadline_s or settings.ocr_deadline_s)
    ask = Ask(settings, tuple(engines or settings.ocr_engines), language, orientation, deadline)
    return read_pages([image], ask, source=source)


def read_pages(pages: Iterable[Image.Image], ask: Ask, *, source: str, notes: Iterable[str] = ()) -> OcrResult:
    """The text of a document's pages; those that were read before the deadline are kept, and a note says so.

    Raises:
        ToolError: the first page could not be read.
    """
    told: list[PageText] = []
    late: tuple[str, ...] = ()
    try:
        for image in pages:
            ask.deadline.check()
            told.append(_page(image, ask, number=len(told) + 1))
    except (TooLate, ToolError) as error:
        if not told:
            raise _too_slow(source, ask) if isinstance(error, TooLate) else error from None
        late = (_cut_short(error, len(told), ask),)
    return _result(told, ask, source=source, notes=(*notes, *late))


def _cut_short(error: Exception, read: int, ask: Ask) -> str:
    why = f"{ask.deadline.seconds:g} s were over" if isinstance(error, TooLate) else str(error)
    return f"only the first {read} page{'s were' if read > 1 else ' was'} read: {why}"


def _too_slow(source: str, ask: Ask) -> ToolError:
    return ToolError(
        f"the text of `{source or 'the picture'}` was not read within {ask.deadline.seconds:g} s",
        code="too_slow",
        path="image_uri",
        next="Send it at a lower resolution or with less on it, or raise TOOLWEAVER_OCR_DEADLINE_S, to 115 at most.",
    )


def _result(told: Sequence[PageText], ask: Ask, *, source: str, notes: Iterable[str]) -> OcrResult:
    lines = tuple(line for page in told for line in page.lines)
    characters = sum(len(line.text) for line in lines)
    first = told[0] if told else PageText((), 0, 0)
    return OcrResult(
        text="\n".join(line.text for line in lines),
        lines=lines,
        confidence=round(sum(line.confidence * len(line.text) for line in lines) / characters, 4) if characters else 0.0,
        width=first.width,
        height=first.height,
        pages=len(told),
        orientation=first.turned,
        skew=round(first.skew, 2),
        engine=", ".join(dict.fromkeys(p.engine for p in told if p.engine)),
        language=ask.language,
        notes=tuple(dict.fromkeys([*notes, *(note for page in told for note in page.notes)])),
        source=source,
    )


def _page(image: Image.Image, ask: Ask, *, number: int) -> PageText:
    """One page: the papers on it one after the other, each read on its own."""
    found, notes = papers(np.asarray(image.convert("RGB")))
    parts = [_paper(picture, ask, number) for picture in found]
    placed, left = [], 0
    for part in parts:
        placed += [_moved(line, left) for line in part.lines]
        left += part.width
    height = max(p.height for p in parts)
    return replace(parts[0], lines=tuple(placed), width=left, height=height, notes=(*notes, *(n for p in parts for n in p.notes)))


def _moved(line: OcrLine, right: int) -> OcrLine:
    if not right:
        return line
    cells = tuple(c.model_copy(update={"box": _shifted(c.box, right)}) for c in line.cells)
    return line.model_copy(update={"box": _shifted(line.box, right), "cells": cells})


def _shifted(box: tuple[int, int, int, int], right: int) -> tuple[int, int, int, int]:
    return (box[0] + right, box[1], box[2] + right, box[3])


def _paper(picture: Picture, ask: Ask, number: int) -> PageText:
    reading, engine, notes = _read(picture, ask)
    height, width = reading.picture.shape[:2]
    page = layout.page(reading.pieces, middle=(width / 2, height / 2), number=number)
    return PageText(page.lines, width, height, reading.turned, page.skew, engine, notes)


def _read(picture: Picture, ask: Ask) -> tuple[Reading, str, tuple[str, ...]]:
    """The reading of the first engine that can, its name, and what became of those before it.

    Raises:
        ToolError: none can.
    """
    failed: list[tuple[str, Unable]] = []
    for at, name in enumerate(ask.engines):
        rest = ask.deadline.left * (SHARE if at + 1 < len(ask.engines) else 1.0)
        part = Deadline(rest, ask.deadline.cancelled)
        try:
            engine = load(name, ask.settings)
            reading = engine.read(picture, language=ask.language, orientation=ask.orientation, deadline=part)
        except Unable as unable:
            failed.append((name, unable))
        except TooLate:
            failed.append((name, Unable(f"was not done within {rest:.3g} s")))
            if ask.deadline.left <= 0:
                break
        else:
            reading, more = _second(engine, reading, ask, part)
            notes = tuple(f"{n} could not read it ({u.reason}); {name} took over" for n, u in failed)
            return reading, name, (*notes, *more)
    raise _none_works(failed, ask)


def load(name: str, settings: Settings) -> Engine:
    """The engine of that name.

    Raises:
        Unable: what it needs is not installed.
    """
    modules = {"rapidocr": "rapid", "tesseract": "tesseract", "azure": "azure"}
    if name not in modules:
        raise Unable("is no engine", next=f"Name one of {', '.join(modules)}.")
    try:
        module = importlib.import_module(f"workers.ocr.{modules[name]}")
    except ModuleNotFoundError as error:
        raise Unable(f"the package `{error.name}` is not installed", next=f"pip install 'toolweaver[{_EXTRAS[name]}]'.") from None
    engine: Engine = module.engine_for(settings)
    return engine


def _second(engine: Engine, reading: Reading, ask: Ask, deadline: Deadline) -> tuple[Reading, tuple[str, ...]]:
    """The better of a poor reading and a second one of the cleaned picture; a good one stays."""
    if not engine.local or reading.confidence >= POOR:
        return reading, ()
    try:
        again = engine.read(cleaned(reading.picture), language=ask.language, orientation="0", deadline=deadline)
    except (TooLate, Unable):
        return reading, ()
    return better(reading, again)


def _none_works(failed: Sequence[tuple[str, Unable]], ask: Ask) -> ToolError:
    if all(u.reason.startswith("was not done") for _, u in failed):
        return _too_slow("", ask)
    reasons = "; ".join(f"{name}: {u.reason}" for name, u in failed)
    moves = " ".join(dict.fromkeys(f"{name}: {u.next}" for name, u in failed if u.next))
    return ToolError(
        f"no engine could read the picture: {reasons}",
        code="ocr_failed",
        retryable=any(u.retryable for _, u in failed),
        next=moves or "See the reasons, or name other engines in TOOLWEAVER_OCR_ENGINES.",
    )
