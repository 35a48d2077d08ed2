"""A text as a model would understand it: what is invisible in it, what is encoded in it, and its plain words."""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

_SUSPECT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ue000-\uf8ff\U000f0000-\U0010fffd]+"
)
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")  # England, Scotland, Wales, Texas
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_EMBED, _CLOSE = "\u202a\u202b\u2066\u2067\u2068", "\u202c\u2069"
_JOINERS, _MARKS = "\u200c\u200d", "\u200e\u200f\u061c"
_SPACES = "\u200b\ufeff\u2060\xad"
_MOST_STRAY = 4
_LOOKALIKES = str.maketrans(
    "абвгеѕіјкмнорстухһԁѵԛԝαβεικνορτυχɡıⅼℓ’‘“”‐‑‒–—",
    "abbreSijkmhopctyxhdvqwabeiknoptuxgill''\"\"-----".lower(),
)
_MIXED = re.compile(r"\b(?=\w*[a-z])(?=\w*[\u0370-\u03ff\u0400-\u052f])\w+\b")
_SPELLED = re.compile(r"(?<![\w'])(?:\w[ .\-_*]){4,}\w(?!\w)")
_DIGITS = str.maketrans("013457", "oieast")
_LEET = re.compile(r"\b[a-z]+[013457][a-z]+(?:[013457][a-z]+)*\b")
_BLANKS = re.compile(r"\s+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{28,}={0,2}")
_HEX = re.compile(r"(?<![\w])(?:0x)?((?:[0-9a-fA-F]{2}[ :]?){16,})")
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}){6,}")
_ONE_ESCAPE = re.compile(r"\\[ux]([0-9a-fA-F]{2,4})")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}|\w){0,400}(?:%[0-9a-fA-F]{2}){3}(?:%[0-9a-fA-F]{2}|[\w./-]){0,2000}")
_ENTITIES = re.compile(r"(?:&#x?[0-9a-fA-F]{1,6};){6,}")
_LEAST_DECODED, _MOST_DECODED = 12, 50


def hidden_characters(text: str) -> str | None:
    """What is hidden in the text: characters that people do not see, or see otherwise. None: nothing that does harm.

    Joiners within emoji and within scripts that need them, marks and balanced isolates of texts written from right to
    left, soft hyphens and few stray zero-width spaces are no harm.
    """
    if text.isascii() and not _SUSPECT.search(text):
        return None
    stray = 0
    for run in _SUSPECT.finditer(_FLAG.sub("", text)):
        what = _harm(run, text)
        if what is not None:
            return what
        stray += sum(run.group().count(c) for c in "\u200b\ufeff\u2060")
    if stray > _MOST_STRAY and not _writes_without_spaces(text):
        return "many zero-width spaces"
    return "text directions that are not closed" if not _balanced(text) else None


def _harm(run: re.Match[str], text: str) -> str | None:
    """What one run of suspect characters does, if it does harm."""
    chars, around = run.group(), run.string
    before = around[run.start() - 1] if run.start() else ""
    after = around[run.end()] if run.end() < len(around) else ""
    if "\x1b" in chars or "\x9b" in chars:
        return "terminal escapes (ANSI)"
    if any("\U000e0000" <= c <= "\U000e007f" for c in chars):
        return "invisible tag characters"
    if any(c in "\u202d\u202e" for c in chars) or (any(c in _EMBED + _CLOSE for c in chars) and not _RIGHT_TO_LEFT.search(text)):
        return "characters that turn the direction of text"
    if all(c in _MARKS + _EMBED + _CLOSE for c in chars):
        return None if _RIGHT_TO_LEFT.search(text) else "marks of direction in a text without such a script"
    if all("\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef" or c in _JOINERS for c in chars):
        return _harm_of_joiners(chars, before, after)
    if all(c in _SPACES + _MARKS + _JOINERS for c in chars):
        return _harm_of_spaces(chars, before, after)
    return "control or invisible characters"


def _harm_of_joiners(chars: str, before: str, after: str) -> str | None:
    if len(chars) > 2:
        return "a run of invisible selectors"
    if any(c in _JOINERS for c in chars):
        joins = not _is_latin(before) and not _is_latin(after)
        return None if joins and before.strip() else "joiners where nothing is joined"
    return None if before.strip() and len(chars) == 1 else "invisible selectors"


def _harm_of_spaces(chars: str, before: str, after: str) -> str | None:
    if len(chars) > 2:
        return "a run of zero-width characters"
    if chars == "\xad":
        return None
    return "zero-width characters within a word" if _is_latin(before) and _is_latin(after) else None


def _is_latin(char: str) -> bool:
    return char.isalnum() and char < "\u0250"


def _writes_without_spaces(text: str) -> bool:
    return bool(re.search("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u4e00-\u9fff]", text))


def _balanced(text: str) -> bool:
    return sum(map(text.count, _EMBED)) == sum(map(text.count, _CLOSE))


def plain(text: str) -> str:
    """The words as a model reads them: lower case, one kind of letters, without invisible characters and tricks of spacing."""
    text = unicodedata.normalize("NFKC", text)
    text = _SUSPECT.sub("", text) if not text.isascii() else text
    text = text.lower()
    if not text.isascii():
        text = _MIXED.sub(lambda m: m.group().translate(_LOOKALIKES), text.translate(str.maketrans("’‘‐‑", "''--")))
    text = _SPELLED.sub(lambda m: m.group()[::2], text)
    text = _LEET.sub(lambda m: m.group().translate(_DIGITS), text)
    return _BLANKS.sub(" ", text)


def words_of(name: str) -> str:
    """A name as words: `readSshKey_first` is `read ssh key first`."""
    return re.sub(r"[_\-.:/]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).lower()


def tags_said(text: str) -> str:
    """What invisible tag characters spell."""
    return "".join(chr(ord(c) - 0xE0000) for c in text if "\U000e0020" <= c <= "\U000e007e")


def decoded(text: str) -> Iterator[str]:
    """Texts that are encoded in the text: base64, hexadecimal, escapes, percent, entities; only what decodes to a text."""
    for number, found in enumerate(_BASE64.finditer(text)):
        if number >= _MOST_DECODED:
            break
        yield from _texts(_from_base64(found.group()))
    for number, found in enumerate(_HEX.finditer(text)):
        if number >= _MOST_DECODED:
            break
        yield from _texts(bytes.fromhex(re.sub("[ :]", "", found.group(1))))
    if "\\u" in text or "\\x" in text:
        yield from (_ONE_ESCAPE.sub(lambda m: chr(int(m.group(1), 16)), m.group()) for m in _ESCAPES.finditer(text))
    if "%" in text:
        yield from (unquote(m.group()) for m in _PERCENT.finditer(text))
    if "&#" in text:
        yield from (html.unescape(m.group()) for m in _ENTITIES.finditer(text))


def _from_base64(blob: str) -> bytes:
    blob = blob.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(blob[: len(blob) - (len(blob) % 4 == 1)] + "=" * (-len(blob) % 4))
    except (binascii.Error, ValueError):
        return b""


def _texts(data: bytes) -> Iterator[str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if len(text) >= _LEAST_DECODED and all(c.isprintable() or c in "\n\t\r" for c in text):
        yield text
