"""How well receipts are read: fields right, wrong and confident, text that held the truth, and milliseconds, by engine and class.

    python bench/receipts.py --set bundled
    python bench/receipts.py --set rendered --seed 3 --count 208 --jobs 2 --misses
    python bench/receipts.py --set FOLDER --engines rapidocr,tesseract
    python bench/receipts.py --set FOLDER --text boxes            # the parser alone, on the set's own text

FOLDER has the layout of the public sets of scanned receipts: images in `img/`, boxes in `box/`, key fields in `key/`; or
it is one that `tests.receipts.render` wrote.
What counts as right: date, currency, total and tax are equal (a field that the paper does not print has to be
null); a merchant is at least 0.8 similar, without regard to case and signs; an item has the same amount and a description
that is at least 0.8 similar. Wrong and confident: a value is given, wrong, and not in `uncertain`. The text of an engine is
kept on disk by picture and by the source of `workers/ocr`; milliseconds are told for what was not (`--no-cache`: all).
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from receipt_sets import KINDS, BadSet, Item, Sample, Truth, bundled, drawn, folder, written

from orchestrator.errors import ToolError
from tests.receipts.fonts import NoFonts
from workers import ocr
from workers.ocr.engines import read_image
from workers.receipt import OcrResult, ParsedReceipt
from workers.small_model.receipt_rules import parse_receipt

FIELDS = ("merchant", "date", "currency", "total", "tax")
ALIKE = 0.8
GOALS = {"total": 0.95, "date": 0.95, "item F1": 0.9}
SURE = 0.05  # the most that may be wrong and confident
CACHE = Path(tempfile.gettempdir()) / "toolweaver-bench-receipts"
PATIENCE_S = 300.0  # a picture may take; the figure is how long it takes


def ocr_text(image: Image.Image, engine: str, language: str) -> OcrResult:
    """The text of a picture by that engine alone; the only place that knows how the product is called."""
    return read_image(image, engines=(engine,), language=language, deadline_s=PATIENCE_S)


# -- scores


@dataclass
class Miss:
    """A value that is not the true one."""

    name: str
    field: str
    true: str
    got: str
    confidence: str
    line: str


@dataclass
class Score:
    """One picture: for each field that is known whether it is right, confidently wrong, and held by the text."""

    name: str
    kind: str
    receipt_right: bool
    right: dict[str, bool] = field(default_factory=dict)
    sure: dict[str, bool] = field(default_factory=dict)
    held: dict[str, bool] = field(default_factory=dict)
    items: tuple[int, int, int] | None = None  # true, found, matched
    items_held: int = 0
    ocr_ms: float | None = None
    parse_ms: float = 0.0
    misses: list[Miss] = field(default_factory=list)
    error: str = ""


def bare(text: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(c for c in text.casefold() if c.isalnum())


def alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, bare(one), bare(other), autojunk=False).ratio()


def holds(text: str, printed: str) -> bool:
    """Whether the text has that string: an amount as a number of its own, other strings without regard to spaces and signs."""
    if re.search(r"[^\W\d_]", printed) or not re.search(r"[.,]\d", printed):
        return bare(printed) in bare(text)
    digits = [re.escape(c) for c in printed.strip() if not c.isspace()]
    return re.search(r"(?<!\d)(?<!\d[.,])" + r"\s?".join(digits) + r"(?!\d)", text) is not None


def right(name: str, truth: Truth, value: Any) -> bool:
    true = truth.values[name]
    if name == "merchant" and value is not None and true is not None:
        return max(alike(value, t) for t in (true, *truth.also)) >= ALIKE
    return bool(true == value)


def score(sample: Sample, truth: Truth, text: OcrResult, parsed: ParsedReceipt) -> Score:
    """The parsed receipt against the truth."""
    out = Score(sample.name, sample.kind, parsed.is_receipt == truth.is_receipt)
    for name in (n for n in FIELDS if n in truth.values):
        value = getattr(parsed, name)
        out.right[name] = right(name, truth, value)
        out.sure[name] = not out.right[name] and value is not None and name not in parsed.uncertain
        if truth.values[name] is not None:
            out.held |= _held(text.text, name, truth)
        if not out.right[name]:
            out.misses.append(_miss(sample.name, name, truth, parsed))
    if truth.is_receipt and truth.items is not None:
        _score_items(out, truth.items, text, parsed)
    return out


def _held(text: str, name: str, truth: Truth) -> dict[str, bool]:
    """Whether the text has the value; nothing where it is not known how it is printed."""
    if name in truth.printed:
        return {name: all(holds(text, p) for p in truth.printed[name])}
    if isinstance(truth.values[name], Decimal):
        return {name: any(holds(text, p) for p in written(truth.values[name]))}
    return {}


def _miss(sample: str, name: str, truth: Truth, parsed: ParsedReceipt) -> Miss:
    evidence = parsed.evidence.get(name)
    sureness = f"{evidence.confidence:.2f}" if evidence else "-"
    marked = " uncertain" if name in parsed.uncertain else ""
    return Miss(
        sample, name, str(truth.values[name]), str(getattr(parsed, name)), sureness + marked, evidence.text if evidence else ""
    )


def _score_items(out: Score, truth: Sequence[Item], text: OcrResult, parsed: ParsedReceipt) -> None:
    """Goods alone: what is deducted may stand among the items or beside them."""
    true = [i for i in truth if i.amount >= 0]
    found = [i for i in parsed.items if i.amount is None or i.amount >= 0]
    left = list(found)
    for item in true:
        best = max((f for f in left if f.amount == item.amount), key=lambda f: alike(f.description, item.description), default=None)
        if best is not None and alike(best.description, item.description) >= ALIKE:
            left.remove(best)
        else:
            out.misses.append(Miss(out.name, "item", f"{item.description} {item.amount}", "-", "-", ""))
    out.items = (len(true), len(found), len(found) - len(left))
    out.misses += [
        Miss(out.name, "no item", "-", f"{f.description} {f.amount}", str(f.confidence), _line(text, f.line)) for f in left
    ]
    out.items_held = sum(any(holds(text.text, p) for p in i.printed) and _words_held(text.text, i.description) for i in true)


def _words_held(text: str, description: str) -> bool:
    whole = bare(text)
    return all(bare(word) in whole for word in description.split())


def _line(text: OcrResult, at: int | None) -> str:
    return text.lines[at].text if at is not None and at < len(text.lines) else ""


# -- reading, with what was read before


@lru_cache(maxsize=1)
def source() -> str:
    """A hash of the engines' own source and of the versions of what they stand on."""
    digest = hashlib.sha256()
    for path in sorted(Path(ocr.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for package in ("rapidocr", "onnxruntime", "pytesseract", "numpy", "pillow"):
        digest.update(f"{package}{_version(package)}".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def read(image: Image.Image, engine: str, language: str, cache: Path | None) -> tuple[OcrResult, float | None]:
    """The text, and the milliseconds it took; None where it was read before."""
    key = hashlib.sha256(f"{image.size}{engine}{language}{source()}".encode() + image.tobytes()).hexdigest()
    known = cache / f"{key}.json" if cache else None
    if known and known.is_file():
        return OcrResult.model_validate_json(known.read_text(encoding="utf-8")), None
    began = time.perf_counter()
    text = ocr_text(image, engine, language)
    took = (time.perf_counter() - began) * 1000
    if known:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(text.model_dump_json(), encoding="utf-8")
    return text, took


def measure(sample: Sample, *, engine: str, language: str = "en", cache: Path | None = None, boxes: bool = False) -> Score:
    """One picture read, parsed and scored; an engine that fails is a score without a value."""
    truth = sample.known()
    try:
        text, took = (sample.box_text(), None) if boxes else read(sample.image(), engine, language, cache)
    except (ToolError, OSError) as error:
        return _failed(sample, truth, f"{error}")
    began = time.perf_counter()
    parsed = parse_receipt(text)
    out = score(sample, truth, text, parsed)
    out.ocr_ms, out.parse_ms = took, 0.0
    out.parse_ms = _timed(lambda: parse_receipt(text), time.perf_counter() - began)
    return out


def _timed(work: Callable[[], object], first: float) -> float:
    """Milliseconds of work that is done again, now that all it needs is loaded; the first time where that took seconds."""
    if first > 2:
        return first * 1000
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _failed(sample: Sample, truth: Truth, error: str) -> Score:
    nothing = ParsedReceipt(is_receipt=False, problems=(error,))
    out = score(sample, truth, OcrResult(text=""), nothing)
    out.error = error
    return out


def measured(samples: Sequence[Sample], jobs: int, **how: Any) -> list[Score]:
    """The scores of all, in order; in processes of their own where there are several jobs."""
    one = partial(measure, **how)
    if jobs == 1:
        return [_told(score, at, len(samples)) for at, score in enumerate(map(one, samples), 1)]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [_told(score, at, len(samples)) for at, score in enumerate(pool.map(one, samples, chunksize=2), 1)]


def _told(score: Score, at: int, of: int) -> Score:
    if sys.stderr.isatty() or at % 25 == 0:
        print(f"\r{at}/{of} {score.name:<40}", end="" if sys.stderr.isatty() and at < of else "\n", file=sys.stderr, flush=True)
    return score


# -- the report


def share(flags: Iterable[bool]) -> float | None:
    """How many are true, of all; None of none."""
    known = list(flags)
    return sum(known) / len(known) if known else None


@dataclass
class Summary:
    """The scores of one class, or of all."""

    kind: str
    scores: list[Score]

    def fields(self, of: str) -> dict[str, float | None]:
        return {name: share(getattr(s, of)[name] for s in self.scores if name in getattr(s, of)) for name in FIELDS}

    def items(self) -> tuple[float | None, float | None, float | None]:
        """Recall, precision and their harmonic mean, over all items of the class; None where none are known."""
        known = [s.items for s in self.scores if s.items is not None]
        true, found, matched = (sum(column) for column in zip(*known, strict=True)) if known else (0, 0, 0)
        if not true:
            return None, None, None
        return matched / true, matched / found if found else 0.0, 2 * matched / (true + found)

    def items_held(self) -> float | None:
        true = sum(s.items[0] for s in self.scores if s.items)
        return sum(s.items_held for s in self.scores) / true if true else None

    def ms(self) -> tuple[float | None, float]:
        read = [s.ocr_ms for s in self.scores if s.ocr_ms is not None]
        return (statistics.median(read) if read else None), statistics.median(s.parse_ms for s in self.scores)

    def as_dict(self) -> dict[str, Any]:
        ocr_ms, parse_ms = self.ms()
        return {
            "class": self.kind,
            "pictures": len(self.scores),
            "is_receipt": share(s.receipt_right for s in self.scores),
            **{of: self.fields(of) for of in ("right", "sure", "held")},
            "items": dict(zip(("recall", "precision", "f1"), self.items(), strict=True)),
            "items_held": self.items_held(),
            "ocr_ms": ocr_ms,
            "parse_ms": parse_ms,
        }


def summaries(scores: Sequence[Score]) -> list[Summary]:
    """By class, then all but the blurred, then all."""
    kinds = [k for k in KINDS if any(s.kind == k for s in scores)]
    sharp = [s for s in scores if s.kind != "blurred"]
    return [
        *(Summary(k, [s for s in scores if s.kind == k]) for k in kinds),
        Summary("all but blurred", sharp),
        Summary("all", list(scores)),
    ]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f}"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [title, f"  {'class':<16}{'n':>4} " + "".join(f"{h:>10}" for h in heads)]
    return "\n".join([*lines, *(f"  {row[0]:<16}{row[1]:>4} " + "".join(f"{v:>10}" for v in row[2:]) for row in rows)])


def report(engine: str, scores: Sequence[Score]) -> str:
    """The three tables of an engine, its milliseconds and whether it meets the goals."""
    parts = summaries(scores)
    names = [n for n in FIELDS if any(n in s.right for s in scores)]
    right_rows, sure_rows, held_rows = [], [], []
    for part in parts:
        head = [part.kind, str(len(part.scores))]
        told = {of: [percent(part.fields(of)[n]) for n in names] for of in ("right", "sure", "held")}
        ocr_ms, parse_ms = part.ms() if part.scores else (None, 0.0)
        items, ms = [percent(v) for v in part.items()], ["-" if ocr_ms is None else f"{ocr_ms:.0f}", f"{parse_ms:.1f}"]
        right_rows.append([*head, *told["right"], *items, percent(share(s.receipt_right for s in part.scores)), *ms])
        sure_rows.append([*head, *told["sure"]])
        held_rows.append([*head, *told["held"], percent(part.items_held())])
    heads = [*names, "item rec.", "item prec.", "item F1", "receipt?", "OCR ms", "parser ms"]
    return "\n".join(
        [
            table(
                f"{engine}: right, in percent (ms: median an image; OCR only where it was not known from before)", heads, right_rows
            ),
            table(f"{engine}: wrong and confident, in percent", names, sure_rows),
            table(f"{engine}: the text held the true value as printed, in percent", [*names, "items"], held_rows),
            verdict(engine, parts[-2]),
        ]
    )


def verdict(engine: str, sharp: Summary) -> str:
    """Whether the goals are met over all but the blurred class."""
    got = sharp.fields("right")
    figures = {"total": got["total"], "date": got["date"], "item F1": sharp.items()[2]}
    told = [
        _goal(name, value, f">= {GOALS[name]:.0%}", value >= GOALS[name]) for name, value in figures.items() if value is not None
    ]
    sure = sharp.fields("sure")
    risky = [(name, sure[name]) for name in ("total", "date")]
    told += [_goal(f"{name} wrong and confident", v, f"<= {SURE:.0%}", v <= SURE) for name, v in risky if v is not None]
    return f"{engine}, all but blurred, {len(sharp.scores)} pictures: " + "; ".join(told)


def _goal(name: str, value: float, goal: str, met: bool) -> str:
    return f"{name} {percent(value)} {'met' if met else 'MISSED'} ({goal})"


def misses(scores: Sequence[Score]) -> str:
    rows = [m for s in scores for m in s.misses]
    failed = [f"{s.name}: not read: {s.error}" for s in scores if s.error]
    wrong = [f"{s.name}: is_receipt is wrong" for s in scores if not s.receipt_right]
    return "\n".join(
        [*failed, *wrong, *(f"{m.name}  {m.field}: true {m.true!r}, got {m.got!r} ({m.confidence}) in {m.line!r}" for m in rows)]
    )


# -- the command


def available(engine: str, language: str) -> str:
    """Empty where the engine can read here, else why it cannot."""
    try:
        ocr_text(Image.new("RGB", (320, 120), "white"), engine, language)
    except ToolError as error:
        return str(error)
    return ""


def chosen(options: argparse.Namespace) -> list[Sample]:
    match options.set:
        case "bundled":
            samples = bundled()
        case "rendered":
            samples = drawn(options.seed, options.count)
        case path:
            samples = folder(Path(path), month_first=options.month_first)
    return samples[: options.first] if options.first else samples


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="bundled", help="bundled, rendered, or a folder")
    parser.add_argument("--engines", default="rapidocr", help="rapidocr,tesseract,azure; several with commas")
    parser.add_argument("--text", choices=("ocr", "boxes"), default="ocr", help="boxes: the folder's own text, no engine")
    parser.add_argument("--language", default="en", help="told to the engine (ISO 639-1)")
    parser.add_argument("--seed", type=int, default=1, help="of the set `rendered`")
    parser.add_argument("--count", type=int, default=208, help="pictures of the set `rendered`; the classes in turn")
    parser.add_argument("--first", type=int, help="only so many of the set")
    parser.add_argument(
        "--month-first", action="store_true", help="ambiguous dates of a folder's truth are month first, not day first"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the text of pictures is kept")
    parser.add_argument("--no-cache", action="store_true", help="read every picture anew, to time it")
    parser.add_argument("--misses", action="store_true", help="each value that is not the true one")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, list[Score]]:
    """The scores by engine; an engine that cannot read here is named on stderr and left out."""
    samples = chosen(options)
    if options.text == "boxes":
        return {"boxes": measured(samples, options.jobs, engine="", boxes=True)}
    scores: dict[str, list[Score]] = {}
    for engine in options.engines.split(","):
        if why := available(engine, options.language):
            print(f"{engine}: not available here: {why}", file=sys.stderr)
            continue
        cache = None if options.no_cache else options.cache
        scores[engine] = measured(samples, options.jobs, engine=engine, language=options.language, cache=cache)
    return scores


def as_json(scores: dict[str, list[Score]]) -> str:
    told = {
        engine: {"summaries": [p.as_dict() for p in summaries(found) if p.scores], "scores": [asdict(s) for s in found]}
        for engine, found in scores.items()
    }
    return json.dumps(told, indent=1, ensure_ascii=False, default=lambda v: float(v) if isinstance(v, Decimal) else str(v))


def main() -> None:
    options = arguments()
    try:
        scores = run(options)
    except (BadSet, NoFonts, FileNotFoundError) as error:
        sys.exit(f"bench/receipts.py: {error}")
    if not scores:
        sys.exit("bench/receipts.py: no engine could read; name another with --engines")
    if options.json:
        print(as_json(scores))
        return
    for engine, found in scores.items():
        if options.misses:
            print(misses(found))
        print(report(engine, found), flush=True)


if __name__ == "__main__":
    main()
