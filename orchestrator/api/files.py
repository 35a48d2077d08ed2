"""`/v1/files`: upload, list, fetch and remove files, streamed both ways; `/v1/blobs`: the bytes of any tenant, for workers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from orchestrator.api.accept import UnsupportedMediaType
from orchestrator.api.guard import RequestTimeout
from orchestrator.api.services import Api, By, Services, Tenant
from orchestrator.errors import RequestError
from orchestrator.jobs.blobs import Incoming, not_found
from orchestrator.jobs.books import FILE, Booked, Kind, Note
from orchestrator.models.access import Tenant as TenantName
from orchestrator.models.file import ArtifactPage, FilePage, FileRef, clean_media_type, clean_name, digest_of
from orchestrator.policy.limits import check_bytes
from orchestrator.settings import MIB

router = APIRouter(prefix="/v1", tags=["files"])

PIECE = 1 * MIB
IDLE_S = 30.0  # a client that sends nothing for so long has gone
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_BYTES: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "description": "the bytes of the file, as they are", "content": _BYTES},
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "the bytes", "content": _BYTES},
    206: {"description": "the part that the header `Range` asks for", "content": _BYTES},
    416: {"description": "the file ends before that part"},
}

Name = Annotated[str, Query(max_length=1024, description="what the file is called")]
JobName = Annotated[str, Query(max_length=64, pattern=r"^\w*$")]
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


class FileFilter(BaseModel):
    """How many files a page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=128, description="`next_cursor` of the page before")


class ArtifactFilter(FileFilter):
    """How many files of a job a page; a page may hold fewer and have a next one."""


@router.post("/files", status_code=201, openapi_extra=_BODY)
async def upload(request: Request, response: Response, api: Api, by: By, tenant: Tenant, name: Name = "") -> FileRef:
    """Stores the body as a file; pass its `ref` on. The header `Content-Type` says what it is."""
    declared = request.headers.get("content-type", "")
    if declared.startswith("multipart/"):
        raise UnsupportedMediaType(
            "A file is sent as the body itself, not as a form.", path="Content-Type", next="Use `curl --data-binary @FILE`."
        )
    note = Note(clean_name(name), clean_media_type(declared))
    allow = await run_in_threadpool(_allowance, api, by, tenant)
    file = await _receive(request, api.store.files.blobs.incoming(tenant=tenant, note=note, allow=allow))
    response.headers["Location"] = f"/v1/files/{file.ref}"
    return file


@router.get("/files")
def list_files(filter: Annotated[FileFilter, Query()], api: Api, tenant: Tenant) -> FilePage:
    """Files, newest first: uploaded ones, and those that tools made."""
    return api.store.files.blobs.books.page(tenant, limit=filter.limit, cursor=filter.cursor)


@router.get("/files/{ref}", response_class=StreamingResponse, responses=_CONTENT)
def fetch(ref: str, request: Request, api: Api, tenant: Tenant) -> Response:
    """The bytes of a file, or a part of them."""
    return _content(api, tenant, _find(api, tenant, ref), request)


@router.head("/files/{ref}", include_in_schema=False)
def look(ref: str, api: Api, tenant: Tenant) -> Response:
    """What `fetch` would say about the file."""
    found = _find(api, tenant, ref)
    return Response(headers=_headers(found.file) | {"Content-Length": str(found.file.size)})


@router.delete(
    "/files/{ref}", status_code=204, responses={202: {"model": FileRef, "description": "it goes with the jobs that name it"}}
)
def remove(ref: str, api: Api, tenant: Tenant) -> Response:
    """Removes a file: at once, or with the last kept job that names it (202)."""
    found = _find(api, tenant, ref)
    if api.store.files.blobs.books.remove(tenant, found.file.sha256):
        return Response(status_code=204)
    kept = found.file.model_copy(update={"expires_at": datetime.now(UTC)})
    return Response(kept.model_dump_json(), status_code=202, media_type="application/json")


@router.get("/jobs/{job_id}/artifacts", tags=["jobs"])
def artifacts(job_id: str, filter: Annotated[ArtifactFilter, Query()], api: Api, tenant: Tenant) -> ArtifactPage:
    """The files that the job's calls made, in the order of steps and positions."""
    cursor = filter.cursor or "0"
    if not (cursor.isascii() and cursor.isdigit()):
        raise RequestError(f"`{cursor}` is no cursor of this list.", path="cursor", next="Pass on `next_cursor`, unchanged.")
    return api.store.artifacts(job_id, tenant=tenant, limit=filter.limit, start=int(cursor))


@router.post("/blobs/{tenant}", status_code=201, include_in_schema=False)
async def store_blob(
    request: Request, tenant: TenantName, api: Api, name: Name = "", kind: Kind = FILE, job: JobName = ""
) -> FileRef:
    """Bytes of any tenant, from a worker."""
    note = Note(clean_name(name), clean_media_type(request.headers.get("content-type")), kind, job)
    return await _receive(request, api.store.files.blobs.incoming(tenant=tenant, note=note))


@router.get("/blobs/{tenant}/{sha256}", include_in_schema=False)
def fetch_blob(request: Request, tenant: TenantName, sha256: Sha256, api: Api) -> Response:
    """Bytes of any tenant, for a worker."""
    return _content(api, tenant, api.store.files.blobs.find(sha256, tenant=tenant), request)


def _find(api: Services, tenant: str, ref: str) -> Booked:
    sha256 = digest_of(ref)
    if sha256 is None:
        raise not_found(ref[:100])
    return api.store.files.blobs.find(sha256, tenant=tenant)


def _allowance(api: Services, by: By, tenant: str) -> Callable[[int], None]:
    """What the tenant's limit leaves, asked once at the beginning of an upload."""
    limits, used = api.limits.of(by), api.store.files.blobs.books.bytes_of(tenant)
    return lambda size: check_bytes(limits, used=used, more=size, tenant=tenant)


async def _receive(request: Request, incoming: Incoming) -> FileRef:
    """Streams the body into the store; a body that is too large is refused before it comes, if it says so."""
    declared = request.headers.get("content-length", "")
    incoming.check(int(declared) if declared.isdigit() else 0)
    gathered = bytearray()
    with incoming:
        async for chunk in _chunks(request):
            gathered += chunk
            if len(gathered) >= PIECE:
                await run_in_threadpool(incoming.write, bytes(gathered))
                gathered.clear()
        await run_in_threadpool(incoming.write, bytes(gathered))
        return await run_in_threadpool(incoming.commit)


async def _chunks(request: Request) -> Any:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise RequestTimeout(f"Nothing came for {IDLE_S:g} s.", next="Send the file again.") from None
        except ClientDisconnect:
            raise RequestError("The client went away before the end of its file.", next="Send the file again.") from None
        if chunk is None:
            return
        yield chunk


def _content(api: Services, tenant: str, found: Booked, request: Request) -> Response:
    file = found.file
    part = _part(request.headers.get("range"), file.size)
    headers = _headers(file)
    if part is not None and part[0] >= part[1]:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{file.size}"})
    start, stop = part or (0, file.size)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        pieces = api.store.files.blobs.read(file.sha256, tenant=tenant, start=start, stop=stop)
    else:
        pieces = api.store.files.blobs.read(file.sha256, tenant=tenant)
    body = _begun(pieces)  # what is wrong with the store shows before the answer begins
    headers["Content-Length"] = str(stop - start)
    return StreamingResponse(body, status_code=206 if part else 200, headers=headers)


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = next(pieces, b"")

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from pieces

    return all_of_them()


def _part(asked: str | None, size: int) -> tuple[int, int] | None:
    """The part that a `Range` header asks for; None for the whole, also when the header is none that we serve."""
    found = _RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        return max(0, size - int(found[2])), size
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    return (first, last + 1) if not found[2] or int(found[2]) >= first else None


def _headers(file: FileRef) -> dict[str, str]:
    """A browser shall save a file and run nothing of it, whatever its uploader says that it is."""
    return {
        "Content-Type": file.media_type,
        "Content-Disposition": _disposition(file.name or file.sha256[:16]),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
        "ETag": f'"{file.sha256}"',
        "Accept-Ranges": "bytes",
    }


def _disposition(name: str) -> str:
    plain = re.sub(r'[^\x20-\x7e]|["\\%;]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
