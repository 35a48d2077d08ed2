"""Parameters that are more than JSON: a `File` that a reference names, a `Lazy[T]` value that is fetched when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from orchestrator.errors import ToolError
from orchestrator.models.file import REF_PATTERN, FileRef, digest_of

T = TypeVar("T")
FORMAT = "toolweaver-file"


class FileSource(Protocol):
    """Where the files of a call come from."""

    def info(self, ref: str) -> FileRef:
        """What is known of a file."""

    def fetch(self, ref: str) -> Path:
        """A copy of it on this machine, which is gone with the call."""


class File:
    """A file that a tool takes: annotate a parameter with it, and pass `blob:sha256:...` in plans.

    The file is known to be there before the tool runs; its bytes are fetched with the first `open`, `read` or `path`.
    """

    def __init__(self, info: FileRef, source: FileSource) -> None:
        self.info = info
        self._source = source

    def __repr__(self) -> str:
        return f"File({self.info.name or self.ref!r}, {self.size} bytes)"

    @property
    def ref(self) -> str:
        """Its reference: return it to hand the file on."""
        return self.info.ref

    @property
    def size(self) -> int:
        """Bytes."""
        return self.info.size

    @property
    def name(self) -> str:
        """The name under which it was uploaded or saved; may be empty."""
        return self.info.name

    @property
    def media_type(self) -> str:
        """What it is said to be, such as `image/png`; nobody has checked it."""
        return self.info.media_type

    def path(self) -> Path:
        """A copy on this machine, for libraries that take a path; it is gone when the call ends."""
        return self._source.fetch(self.ref)

    def open(self) -> BinaryIO:
        """The bytes as a file that can be read and sought in."""
        return self.path().open("rb")

    def read(self) -> bytes:
        """All bytes."""
        return self.path().read_bytes()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(
            _checked,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda file: file.ref if isinstance(file, File) else file
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": FORMAT, "pattern": REF_PATTERN}


def _checked(value: Any, check: core_schema.ValidatorFunctionWrapHandler, info: ValidationInfo) -> File | str:
    if isinstance(value, File):
        return value
    ref: str = check(value)
    if digest_of(ref) is None:
        raise PydanticCustomError("file_reference", "is no reference to a file; upload it and pass `blob:sha256:...`")
    if info.context is None:  # a result: it only names the file
        return ref
    source: FileSource | None = info.context.get("files")
    if source is None:
        raise PydanticCustomError("no_files", "is a file, and files can only be read within a call")
    return File(source.info(ref), source)


class Unfetched:
    """What stands for a value that is fetched later."""

    def __init__(self, fetch: Callable[[], Any]) -> None:
        self.fetch = fetch


class Lazy(Generic[T]):
    """A value that is fetched, and checked against its type, only when the tool asks: `rows: Lazy[list[Row]]`, `rows.load()`.

    It stays out of memory until then when the plan gives a whole reference for the parameter, such as `step:read.rows`.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load: Callable[[], T] | None = load
        self._value: T | None = None
        self._lock = threading.Lock()

    def load(self) -> T:
        """The value; fetched once.

        Raises:
            ToolError: the reference leads nowhere, or the value is not of the type.
        """
        with self._lock:
            if self._load is not None:
                self._value = self._load()
                self._load = None
            return self._value  # type: ignore[return-value]  # it was loaded

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kind = (get_args(source) or (Any,))[0]

        def lazy(value: Any, check: core_schema.ValidatorFunctionWrapHandler, info: ValidationInfo) -> Lazy[Any]:
            if isinstance(value, Unfetched):
                return cls(lambda: _typed(kind, value.fetch(), info.context))
            known = check(value)
            return cls(lambda: known)

        return core_schema.with_info_wrap_validator_function(lazy, handler.generate_schema(kind))


def _typed(kind: Any, value: Any, context: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value, context=context)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ToolError(
            f"a lazy value is not what its parameter says: {where + ': ' if where else ''}{first['msg']}",
            code="bad_input",
            next="Let the reference in the plan name another part of the result.",
        ) from None
