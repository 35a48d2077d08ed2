"""How well items are put into categories: `python -m bench.categories [FILE]`, by rules, by examples, and by a model.

    python -m bench.categories                                       # rules and examples on the evaluation set
    python -m bench.categories --model-url http://127.0.0.1:8080/v1 --model-name smollm2
    (python -m tests.llama_server prints the address of a real, weak one, and serves it until its input ends)
    python -m bench.categories --fit                                 # fits the confidence on the development set

Right counts the category that is given, whatever its confidence. Wrong and confident: wrong, and not named as uncertain.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from bench.common import Report
from orchestrator.settings import Settings, load_settings
from workers.receipt import Categorized, Item
from workers.small_model import nearest as near
from workers.small_model.categories import categorise, hint_of
from workers.small_model.prototypes import bundled
from workers.small_model.wording import words_of

ROOT = Path(__file__).parent.parent
EVALUATION, DEVELOPMENT = ROOT / "tests/receipts/categories.json", ROOT / "tests/receipts/categories_dev.json"
CALIBRATION = Path(near.__file__).with_name("calibration.json")
BATCH = 20  # items of one receipt


@dataclass(frozen=True)
class Case:
    """An item, and what it was bought for."""

    item: Item
    category: str


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", nargs="?", type=Path, default=EVALUATION, help="JSON list of items with `description` and `category`"
    )
    parser.add_argument("--model-url", help="also ask a model at this OpenAI-compatible address")
    parser.add_argument("--model-name", default="phi3")
    parser.add_argument("--model-key", help="the model's key")
    parser.add_argument("--model-timeout", type=float, default=120.0, help="seconds for one request")
    parser.add_argument("--sample", type=int, help="only so many items, evenly spread over the file: a model takes its time")
    parser.add_argument("--misses", action="store_true", help="print every item that is wrong; never look while you develop")
    parser.add_argument("--fit", action="store_true", help="fit the confidence on the development set, and write it")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    options = parser.parse_args()
    if options.fit:
        CALIBRATION.write_text(json.dumps(fit(read(DEVELOPMENT)), indent=1) + "\n", encoding="utf-8")
        return
    cases = read(options.file)
    if options.sample and options.sample < len(cases):
        cases = [cases[at * len(cases) // options.sample] for at in range(options.sample)]
    for name, settings in _ways(options).items():
        _run(name, cases, settings, options)


def read(path: Path) -> list[Case]:
    """The cases of a file."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(rows, dict):
        rows = rows["items"]
    return [Case(Item(description=row["description"], amount=row.get("amount")), row["category"]) for row in rows]


def run(cases: Sequence[Case], settings: Settings) -> tuple[Categorized, float]:
    """What the categoriser makes of them, a receipt of some items at a time, and the seconds that it took."""
    categorise([c.item for c in cases[:1]], settings=settings.model_copy(update={"use_small_model": False}))  # warm
    started = time.perf_counter()
    parts = [categorise([c.item for c in cases[at : at + BATCH]], settings=settings) for at in range(0, len(cases), BATCH)]
    seconds = time.perf_counter() - started
    return Categorized(
        items=tuple(i for p in parts for i in p.items),
        totals=(),
        uncertain=tuple(at * BATCH + u for at, p in enumerate(parts) for u in p.uncertain),
        notes=tuple(n for p in parts for n in p.notes),
    ), seconds


def shares(cases: Sequence[Case], made: Categorized) -> tuple[float, float, float]:
    """The shares right, wrong and confident, uncertain."""
    right = [item.category == case.category for item, case in zip(made.items, cases, strict=True)]
    unsure = set(made.uncertain)
    confident = sum(not ok and at not in unsure for at, ok in enumerate(right))
    return sum(right) / len(right), confident / len(right), len(unsure) / len(right)


def fit(cases: Sequence[Case]) -> dict[str, float]:
    """Weights of a logistic regression, by Newton's method.

    Each item is asked twice: of all examples, and of those that share no word with it, as an item of a word that nobody
    thought of is. So the confidence knows what far neighbours are worth.
    """
    index, prototypes = near.nearest(bundled()), bundled()
    rows, right = [], []
    for case in cases:
        text = words_of(case.item.description, prototypes.known)
        if not text:
            continue
        for like in (index.likenesses([text], [hint_of(text, prototypes)])[0], index.without_words_of(text)):
            rows.append([1.0, like.share, like.near, float(like.word)])
            right.append(like.category == case.category)
    x, y = np.array(rows), np.array(right, float)
    weights = [*_newton(x, y), *_newton(x[:, [0, 2]], y)]
    names = ("bias", "share", "near", "word", "alone_bias", "alone_near")
    return dict(zip(names, (round(float(w), 3) for w in weights), strict=True))


def _newton(x: NDArray[np.float64], y: NDArray[np.float64], *, ridge: float = 0.1) -> NDArray[np.float64]:
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        w = w + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w)), x.T @ (y - p) - ridge * w)
    return w


def _ways(options: argparse.Namespace) -> dict[str, Settings]:
    ways = {m: load_settings(_env_file=None, categorizer=m) for m in ("rules", "prototypes")}
    if options.model_url:
        ways["model"] = load_settings(
            _env_file=None,
            categorizer="model",
            small_model_url=options.model_url,
            worker_model=options.model_name,
            small_model_key=SecretStr(options.model_key) if options.model_key else None,
            small_model_timeout_s=options.model_timeout,
        )
    return ways


def _run(name: str, cases: Sequence[Case], settings: Settings, options: argparse.Namespace) -> None:
    made, seconds = run(cases, settings)
    right, confident, unsure = shares(cases, made)
    report = Report(name)
    report.add("items", len(cases), "")
    report.add("not right", 100 * (1 - right), "%", 25.0)
    report.add("wrong and confident", 100 * confident, "%", 10.0)
    report.add("uncertain", 100 * unsure, "%")
    report.add("time an item", 1000 * seconds / len(cases), "ms")
    report.print(options.json)
    if options.json:
        return
    for note, count in Counter(made.notes).items():
        print(f"{name:<10} {count} x {note}")
    print(Counter(i.category_source for i in made.items))
    _table(cases, made)
    if options.misses:
        _misses(cases, made)


def _table(cases: Sequence[Case], made: Categorized) -> None:
    names = bundled().names
    counts = Counter((case.category, item.category) for case, item in zip(cases, made.items, strict=True))
    print(f"{'true / given':<14}" + "".join(f"{n[:5]:>6}" for n in names))
    for true in names:
        print(f"{true:<14}" + "".join(f"{counts[true, given] or '.':>6}" for given in names))
    print()


def _misses(cases: Sequence[Case], made: Categorized) -> None:
    for case, item in zip(cases, made.items, strict=True):
        if item.category != case.category:
            print(
                f"  {item.description!r}: {case.category}, given {item.category} {item.category_confidence} {item.category_source}"
            )


if __name__ == "__main__":
    main()
