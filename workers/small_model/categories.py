"""What items were bought for: by certain words, by the nearest examples, or by a model whose answers must prove themselves.

Each way falls back to the one before it, and says so. A category that is not to be relied on is named in `uncertain`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from orchestrator.errors import ModelError, ToolError
from orchestrator.monitoring.feed import record_fallback
from orchestrator.providers import warm
from orchestrator.settings import Settings
from workers.receipt import CERTAIN, Categorized, CategorizedItem, CategoryTotal, Item, cents
from workers.small_model.asking import Asked, ask
from workers.small_model.counted import FALLBACK
from workers.small_model.nearest import Hint, confidence, nearest
from workers.small_model.prototypes import DISCOUNT, OTHER, Prototypes, load
from workers.small_model.wording import words_of

# How often what rules say was right among the items of `tests/receipts/categories_dev.json`, rounded down.
ONE_WORD, SOME_WORDS, SIGN = 0.95, 0.6, 0.98
UNNAMED = 0.9  # nothing but numbers is `other`
NO_WORD = 0.2
STRONG = 0.9  # evidence that no model overrules
GUESS = 0.2  # below it a guess says less than `other` does
_PERCENT_OFF = re.compile(r"(?i)\d\s*%?\s*off\b|^\s*-\s*\d+\s*%")
_READ = 120  # characters of a description: the pattern above looks at each blank many times
_LONGEST_PHRASE = 3  # words


@dataclass(frozen=True, slots=True)
class Verdict:
    """A category, how far it is to be believed, and what decided."""

    category: str
    confidence: float
    source: str


def categorise(items: Iterable[Item], *, settings: Settings | None = None, categories: Sequence[str] = ()) -> Categorized:
    """The items with their categories, and the totals, largest first. Without settings: by the bundled examples.

    Raises:
        ToolError: `unknown_category`, or `bad_categories_file`.
    """
    every = list(items)
    prototypes = load(settings.categories_file if settings else None)
    allowed = _allowed(prototypes, categories)
    verdicts = [by_rules(item, prototypes, allowed) for item in every]
    notes: list[str] = []
    mode = settings.categorizer_used if settings else "prototypes"
    if mode != "rules":
        verdicts = _by_prototypes(every, verdicts, prototypes, allowed, settings, notes)
    if mode == "model" and settings is not None:
        verdicts = _by_model(every, verdicts, prototypes, allowed, settings, notes)
    return _made(every, verdicts, notes)


def warm_nearest(settings: Settings) -> None:
    """Loads what the settings' way of categorising compares with.

    Raises:
        ToolError: `bad_categories_file`.
        ModelError: the embedder's package is missing.
    """
    prototypes = load(settings.categories_file)
    if settings.categorizer_used != "rules":
        nearest(prototypes, settings.home / "cache").likenesses(["tea"], [None])


def by_rules(item: Item, prototypes: Prototypes, allowed: Sequence[str]) -> Verdict:
    """What is certain without likeness: the amount's sign, and words that decide alone."""
    if DISCOUNT in allowed and ((item.amount or 0) < 0 or _PERCENT_OFF.search(item.description[:_READ])):
        return Verdict(DISCOUNT, SIGN, "rules")
    text = words_of(item.description, prototypes.known)
    if not text:
        return Verdict(OTHER, UNNAMED, "rules")
    hint = hint_of(text, prototypes)
    if hint is None:
        return Verdict(OTHER, NO_WORD, "rules")
    return Verdict(hint.category if hint.category in allowed else OTHER, ONE_WORD if hint.alone else SOME_WORDS, "rules")


def hint_of(text: str, prototypes: Prototypes) -> Hint | None:
    """What the certain words in a text say."""
    found = _certain(text, prototypes.category_of)
    return Hint(found[-1], len(set(found)) == 1) if found else None  # names end with what the thing is


def _certain(text: str, category_of: dict[str, str]) -> list[str]:
    """The categories of the known words and phrases, in their order; the longest phrase counts."""
    words, at, found = text.split(), 0, []
    while at < len(words):
        for length in range(_LONGEST_PHRASE, 0, -1):
            phrase = " ".join(words[at : at + length])
            category = category_of.get(phrase) or category_of.get(phrase.removesuffix("s"))
            if category:
                found.append(category)
                break
        at += length
    return found


def _by_prototypes(
    items: list[Item],
    ruled: list[Verdict],
    prototypes: Prototypes,
    allowed: Sequence[str],
    settings: Settings | None,
    notes: list[str],
) -> list[Verdict]:
    try:
        near = nearest(prototypes, settings.home / "cache" if settings else None)
    except ModelError as error:
        record_fallback("embedder")
        notes.append(f"Categories are by words alone: {error}.")
        return ruled
    open_at = [at for at, v in enumerate(ruled) if v.confidence not in (SIGN, UNNAMED)]
    texts = [words_of(items[at].description, prototypes.known) for at in open_at]
    made = list(ruled)
    for at, like in zip(open_at, near.likenesses(texts, [hint_of(t, prototypes) for t in texts]), strict=True):
        category = like.category if like.category in allowed else OTHER
        made[at] = Verdict(category, round(confidence(like), 3), "prototypes")
    return made


def _by_model(
    items: list[Item],
    before: list[Verdict],
    prototypes: Prototypes,
    allowed: Sequence[str],
    settings: Settings,
    notes: list[str],
) -> list[Verdict]:
    try:
        model = warm.chat_model(settings)
    except ModelError as error:
        record_fallback(FALLBACK)
        notes.append(f"The small model was not asked; examples decide: {error}")
        return before
    asked = ask(model, [i.description for i in items], prototypes, allowed, sure=[_strong(v) for v in before])
    notes.extend(asked.notes)
    return [stands(verdict, answer) for verdict, answer in zip(before, asked.answers, strict=True)]


def _strong(verdict: Verdict) -> str | None:
    return verdict.category if verdict.confidence >= STRONG else None


def stands(before: Verdict, answer: Asked | None) -> Verdict:
    """Whether a model's answer stands against what was known before: never against strong evidence; else by its trust.

    Two witnesses that agree are believed more than either; of two that do not, the better one is believed less.
    """
    if answer is None or (before.confidence >= STRONG and answer.category != before.category):
        return before
    if answer.category == before.category:
        both = 1 - (1 - before.confidence) * (1 - answer.trust)
        return replace(before, confidence=round(max(both, before.confidence), 3))
    theirs, ours = answer.trust * (1 - before.confidence), before.confidence * (1 - answer.trust)
    if theirs <= ours:
        return replace(before, confidence=round(before.confidence * ours / (ours + theirs or 1), 3))
    return Verdict(answer.category, round(answer.trust * theirs / (ours + theirs), 3), "model")


def _allowed(prototypes: Prototypes, wanted: Sequence[str]) -> tuple[str, ...]:
    unknown = [w for w in wanted if w not in prototypes.names]
    if unknown:
        raise ToolError(
            f"there is no category `{unknown[0]}`; there are {', '.join(prototypes.names)}",
            code="unknown_category",
            path="categories",
            next="Name some of these, or give yours examples in the file that TOOLWEAVER_CATEGORIES_FILE names.",
        )
    return tuple(n for n in prototypes.names if not wanted or n in wanted or n == OTHER)


def _made(items: list[Item], verdicts: list[Verdict], notes: list[str]) -> Categorized:
    done = tuple(_categorised(item, verdict) for item, verdict in zip(items, verdicts, strict=True))
    totals: dict[str, Decimal] = defaultdict(Decimal)
    counts: dict[str, int] = defaultdict(int)
    for item in done:
        category = item.category or OTHER
        totals[category] += item.amount or Decimal(0)
        counts[category] += 1
    ordered = sorted(totals, key=lambda c: (-totals[c], c))
    return Categorized(
        items=done,
        totals=tuple(CategoryTotal(category=c, count=counts[c], total=cents(totals[c])) for c in ordered),
        uncertain=tuple(at for at, v in enumerate(verdicts) if v.confidence < CERTAIN),
        notes=tuple(notes),
    )


def _categorised(item: Item, verdict: Verdict) -> CategorizedItem:
    return CategorizedItem(
        **item.model_dump(exclude={"category", "category_confidence", "category_source"}),
        category=verdict.category if verdict.confidence >= GUESS else OTHER,
        category_confidence=verdict.confidence,
        category_source=verdict.source,
    )
