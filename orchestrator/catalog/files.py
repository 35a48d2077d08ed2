"""Parameters that are more than JSON: a `File` that a reference names, a `Lazy[T]` value that is fetched when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from orchestrator.models.file import REF_PATTERN, FileRef

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
        by_reference = core_schema.with_info_after_validator_function(_bound, core_schema.str_schema(pattern=REF_PATTERN))
        return core_schema.json_or_python_schema(
            json_schema=by_reference,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), by_reference]),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda file: file.ref),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": FORMAT, "pattern": REF_PATTERN}


def _bound(ref: str, info: ValidationInfo) -> File:
    source: FileSource | None = (info.context or {}).get("files")
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
            ToolError: the reference leads nowhere.
            pydantic.ValidationError: the value is not of the type.
        """
        with self._lock:
            if self._load is not None:
                self._value = self._load()
                self._load = None
            return self._value  # type: ignore[return-value]  # it was loaded

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kind = (get_args(source) or (Any,))[0]

        def lazy(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Lazy[Any]:
            if isinstance(value, Unfetched):
                return cls(lambda: TypeAdapter(kind).validate_python(value.fetch()))
            known = check(value)
            return cls(lambda: known)

        return core_schema.no_info_wrap_validator_function(lazy, handler.generate_schema(kind))
