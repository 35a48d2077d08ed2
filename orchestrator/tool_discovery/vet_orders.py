"""Orders to a model that hide in what only describes a tool: found by who is addressed, what is asked, and of what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import yaml

from orchestrator.tool_discovery import vet_words as words

_WINDOW = 320
_STEP = 160
_SHORT = 2_000
_ANCHORS = (words.PLACE, words.SECRET, words.TARGET, words.AWAY, words.COMMAND)


@dataclass(frozen=True, slots=True)
class Order:
    """An order that was found: what it wants, and where it says so."""

    wants: str
    excerpt: str


def orders_in(text: str, *, parameter: bool = False) -> Iterable[Order]:
    """The orders in a text that `vet_text.plain` made plain; `parameter` says that it describes what to fill in."""
    return _remembered(text, parameter) if len(text) <= _SHORT else _orders_in(text, parameter)


@lru_cache(maxsize=8_192)
def _remembered(text: str, parameter: bool) -> tuple[Order, ...]:
    """The tools of one server share many texts, such as those of the types that they share."""
    return tuple(_orders_in(text, parameter))


def _orders_in(text: str, parameter: bool) -> Iterator[Order]:
    yield from _by_itself(text)
    yield from _out_of_sight(text)
    if not any(p.search(text) for p in _ANCHORS):
        return
    for start in range(0, max(1, len(text) - _STEP), _STEP):
        window = text[start : start + _WINDOW]
        yield from _order_of(window, parameter=parameter)


def _by_itself(text: str) -> Iterator[Order]:
    """What is an order wherever it stands."""
    for wants, about, pattern in (
        (words.WANTS["ignore"], words.INSTRUCTIONS, words.IGNORE),
        ("to take orders from it", words.CLAIMED, words.CLAIMS),
        (words.WANTS["conceal"], words.PEOPLE, words.CONCEAL),
        ("to call another tool first", ("before", "prior to", "ahead of"), words.FIRST_OF_ALL),
    ):
        for found in pattern.finditer(text) if _any_in(about, text) else ():
            if not _quoted(text, found.start()) and not (pattern is words.IGNORE and _negated(text, found.start())):
                yield Order(wants, found.group())
    for order in _foreign():
        if _any_in(order.about, text) and (said := order.pattern.search(text)) is not None:
            yield Order(order.wants, said.group())


def _out_of_sight(text: str) -> Iterator[Order]:
    for what, about, pattern in (
        ("in a comment", ("<!--", "/*", "[//]", "[comment]"), words.COMMENT),
        ("in a tag that claims authority", ("<",), words.TAG),
        ("after a marker of a role", ("<|", "<start", "<<", "[", "##", "system", "human", "assistant"), words.ROLE),
        ("in hidden markup", ("<",), words.STYLED),
    ):
        for found in pattern.finditer(text) if _any_in(about, text) else ():
            inside = next((g for g in reversed(found.groups()) if g), "")
            if _is_order(inside):
                yield Order(f"{what}, out of sight", found.group())


def _any_in(parts: tuple[str, ...], text: str) -> bool:
    """A look that costs little, before a pattern that costs more."""
    return any(part in text for part in parts)


def _is_order(text: str) -> bool:
    secret = words.PLACE.search(text) or words.SECRET.search(text)
    asked = any(_affirmed(p, text) for p in (words.TAKES, words.GIVES, words.RUNS))
    return bool(
        words.LOW.search(text)
        or words.IGNORE.search(text)
        or words.CONCEAL.search(text)
        or (secret and asked)
        or (words.COMMAND.search(text) and asked)
    )


def _order_of(window: str, *, parameter: bool) -> Iterator[Order]:
    if (place := words.PLACE.search(window)) is not None:
        yield from _about_place(window, place, parameter=parameter)
    if words.SECRET.search(window) is not None:
        yield from _about_secrets(window)
    if words.TARGET.search(window) is not None:
        yield from _about_targets(window)
    if words.COMMAND.search(window) is not None and _affirmed(words.RUNS, window) and words.ADDRESSED.search(window):
        yield Order("to run a command", window)


def _about_place(window: str, place: re.Match[str], *, parameter: bool) -> Iterator[Order]:
    before = window[: place.start()]
    directed = bool(words.BEFORE.search(window) or words.ORDERED.search(window))
    if _hands_over(window, place, told=directed or parameter) or (directed and _hands_over_at_once(before)):
        yield Order("to hand over a secret file", window)
    elif parameter and words.FILL.search(before) and not _negated(window, place.start()):
        yield Order("to fill in a secret file", window)
    elif words.BEFORE.search(window) and words.FIRST.search(window) and _affirmed(words.TAKES, before[-60:]):
        yield Order("to read a secret file", window)


def _hands_over(window: str, place: re.Match[str], *, told: bool) -> bool:
    """Whether it is to be taken, and then given: "read X and pass its content as Y"."""
    given = _first_affirmed(words.GIVES, window)
    if given is None or not (_affirmed(words.TAKES, window[: place.end()]) or words.PASSIVE.search(window)):
        return False
    rest = window[given.end() : given.end() + 90]
    return bool(words.THING.search(rest) and words.INTO.search(rest) and (told or words.OWN.search(rest)))


def _hands_over_at_once(before: str) -> bool:
    """Whether it is the contents of the place that are to be given: "pass the contents of X"."""
    given = words.HANDS_OVER.search(before)
    return given is not None and not _negated(before, given.start())


def _about_secrets(window: str) -> Iterator[Order]:
    for secret in words.SECRET.finditer(window):
        before, after = window[max(0, secret.start() - 70) : secret.start()], window[secret.end() : secret.end() + 140]
        taken_and_given = _affirmed(words.TAKES, before) and _affirmed(words.GIVES, after)
        if not taken_and_given and not _affirmed(words.GIVES, before):
            continue
        greedy = words.GREEDY.search(before + secret.group() + after[:30])
        if words.AWAY.search(after) and (greedy or words.ORDERED.search(window)):
            yield Order("to send secrets away", window)
        elif (greedy or taken_and_given) and words.UNASKED.search(window):
            yield Order("to hand over secrets", window)


def _about_targets(window: str) -> Iterator[Order]:
    target = words.TARGET.search(window)
    assert target is not None
    before = window[max(0, target.start() - 160) : target.start()]
    around = before + target.group() + window[target.end() : target.end() + 60]
    diverted = any(not _negated(before, m.start()) for m in words.DIVERT.finditer(before))
    if diverted and words.MUST.search(before) and (words.PRESENT.search(window) or words.OTHERS.search(around)) and _speaks(window):
        yield Order("to divert what other tools do", window)


def _speaks(window: str) -> bool:
    """Whether somebody is addressed; a description tells what a tool does (`sends`, `is sent`)."""
    return bool(words.PRESENT.search(window) or words.SPEAKS.search(window))


def _first_affirmed(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first verb that is neither negated nor told of what is done anyway (`is read`)."""
    return next((m for m in pattern.finditer(text) if not _negated(text, m.start()) and not _is_done(text, m.start())), None)


def _affirmed(pattern: re.Pattern[str], text: str) -> bool:
    return _first_affirmed(pattern, text) is not None


def _negated(text: str, at: int) -> bool:
    return words.NOT.search(text[max(0, at - 34) : at]) is not None


def _is_done(text: str, at: int) -> bool:
    return words.IS_DONE.search(text[max(0, at - 24) : at]) is not None


def _quoted(text: str, at: int) -> bool:
    """Whether it is an example of what the tool looks for."""
    return words.QUOTES.search(text[max(0, at - 110) : at]) is not None


_PATH = r"(?:\.ssh|id_rsa|id_ed25519|/etc/(?:passwd|shadow)|\.aws|(?<!\w)\.env\b|mcp\.json|\.netrc|\.kube)"
_IN_PATHS = (".ssh", "id_rsa", "id_ed25519", "/etc/", ".aws", ".env", "mcp.json", ".netrc", ".kube")


@dataclass(frozen=True, slots=True)
class _Foreign:
    """One order in one language; a text without any of `about` is not looked at, since most are of no such language."""

    wants: str
    about: tuple[str, ...]
    pattern: re.Pattern[str]


@cache
def _foreign() -> tuple[_Foreign, ...]:
    table = yaml.safe_load((files(__package__) / "orders.yaml").read_text(encoding="utf-8"))
    return tuple(
        _Foreign(
            f"{words.WANTS[order]} ({language})",
            _IN_PATHS if order == "hand_over" else tuple(orders["about"]),
            re.compile("|".join(patterns).replace("PATH", _PATH)),
        )
        for language, orders in table.items()
        for order, patterns in orders.items()
        if order != "about"
    )
