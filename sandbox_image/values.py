"""Turns what a program returns into JSON for any reader: exact where JSON can, readable where it cannot, a clear error else."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import types
import uuid
from collections.abc import Callable
from typing import Any

# The host refuses deeper frames; the frame around a value takes two levels more.
MAX_DEPTH = 60
MAX_REPR = 10_000
# Python itself reads and writes no longer integers (4300 digits).
_MAX_INT_BITS = 14_280
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LISTS = (collections.deque, range, collections.abc.KeysView, collections.abc.ValuesView, collections.abc.ItemsView)


class ValueUnfit(ValueError):
    """A value that no JSON text can carry; the message says which and what to do."""

    __module__ = "builtins"  # that is how tracebacks show it


def dumps(value: object) -> bytes:
    """The value as UTF-8 JSON.

    Dataclasses and mappings become objects; sets (sorted where possible) and tuples arrays; dates ISO text; decimals
    numbers where a number says the same, else text; enum members their value; bytes text, or base64; NaN and the
    infinities null; lone surrogates U+FFFD; all else its `repr`. Raises `ValueUnfit` for circular values, for more than
    60 levels and for integers of more than 4300 digits.
    """
    try:
        text = _encode(value)
    except (ValueError, TypeError, RecursionError):  # NaN, odd keys, circles, depth: the careful way, which is slower
        text = _encode(_careful(value))
    data = utf8(text)
    if _may_be_deep(data):
        _careful(value)
    return data


def utf8(text: str) -> bytes:
    """Text as UTF-8; what is no text (a lone surrogate) is replaced."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def simple(value: object) -> Any:
    """One level of a value that JSON does not know, made of values that it may know."""
    for kind in type(value).__mro__:
        convert = _SIMPLE.get(kind)
        if convert is not None:
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, _LISTS):
        return list(value)
    return _foreign(value)


_encode: Callable[[object], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=simple
).encode


def _foreign(value: Any) -> Any:
    """Values of libraries, by what they offer: pydantic, numpy, pandas; else the `repr`."""
    if not isinstance(value, type):
        if callable(getattr(value, "model_dump", None)):
            return value.model_dump()
        if callable(getattr(value, "tolist", None)):
            return value.tolist()
        if type(value).__name__ == "DataFrame" and callable(getattr(value, "to_dict", None)):
            return value.to_dict(orient="records")
    return safe_repr(value)


def safe_repr(value: object) -> str:
    """The `repr`, cut to 10,000 characters; a broken `__repr__` does no harm."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__} object whose repr fails: {type(error).__name__}>"
    return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "..."


def _decimal(value: decimal.Decimal) -> Any:
    if not value.is_finite():
        return None
    sign_digits_exponent = value.as_tuple()
    if sign_digits_exponent.exponent == 0 and len(sign_digits_exponent.digits) <= 4000:
        return int(value)
    number = float(value)
    return number if math.isfinite(number) and decimal.Decimal(repr(number)) == value else str(value)


def _bytes(value: Any) -> str:
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _set(value: Any) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=lambda item: (type(item).__name__, safe_repr(item)))


def _iso(value: Any) -> str:
    return str(value.isoformat())


_SIMPLE: dict[type, Callable[[Any], Any]] = {
    decimal.Decimal: _decimal,
    datetime.date: _iso,  # and datetime
    datetime.time: _iso,
    datetime.timedelta: datetime.timedelta.total_seconds,
    enum.Enum: lambda member: member.value,
    set: _set,
    frozenset: _set,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    pathlib.PurePath: str,
    uuid.UUID: str,
    fractions.Fraction: str,
    complex: str,
    types.SimpleNamespace: vars,
    types.MappingProxyType: dict,
    BaseException: lambda error: f"{type(error).__name__}: {error}",
}


def _may_be_deep(data: bytes) -> bool:
    """Whether JSON text may be deeper than allowed: sure when it says no, and at the speed of C."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    shape = data.translate(None, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):  # each round takes the innermost level away
        if not shape:
            return False
        shape = shape.replace(b"[]", b"").replace(b"{}", b"")
    return bool(shape)


def _careful(value: object) -> Any:
    try:
        return _plain(value, 0, [])
    except RecursionError:
        raise ValueUnfit("the value never ends: return the parts that matter") from None
    except ValueUnfit as error:
        raise error.with_traceback(None) from None


def _plain(value: Any, depth: int, around: list[int]) -> Any:
    """The value of JSON's own types alone; says what is wrong with one that cannot be so."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (str, bool, type(None))):
        return value
    if isinstance(value, int):
        return _integer(value)
    if id(value) in around:
        raise ValueUnfit("the value contains itself, which JSON cannot say: return the parts that matter")
    if depth > MAX_DEPTH:
        raise ValueUnfit(f"the value is nested deeper than {MAX_DEPTH} levels: return a flatter one")
    around.append(id(value))
    try:
        return _parts(value, depth, around)
    finally:
        around.pop()


def _parts(value: Any, depth: int, around: list[int]) -> Any:
    if isinstance(value, dict):
        return {_key(key): _plain(item, depth + 1, around) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1, around) for item in value]
    # A conversion is no level of the JSON text, but conversions that never end must end here.
    return _plain(simple(value), depth + (len(around) > 4 * MAX_DEPTH) * MAX_DEPTH, around)


def _integer(value: int) -> int:
    if value.bit_length() > _MAX_INT_BITS:
        raise ValueUnfit("the value holds an integer of more than 4300 digits: return it as text, or round it")
    return int(value)


def _key(key: Any) -> str | int | float | bool | None:
    if isinstance(key, enum.Enum):
        return _key(key.value)
    if isinstance(key, (str, bool, type(None))):
        return key
    if isinstance(key, int):
        return _integer(key)
    if isinstance(key, float):
        return key if math.isfinite(key) else str(key)
    if isinstance(key, (datetime.date, datetime.time)):
        return key.isoformat()
    return str(key) if isinstance(key, (decimal.Decimal, pathlib.PurePath, uuid.UUID)) else safe_repr(key)
