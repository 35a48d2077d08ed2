"""Fetches the image that a URI names, past a guard: allowed folders, public addresses, bounded bytes and pixels.

A host is resolved once and the connection goes to the address that was checked, for every hop of a redirect, so that
a name that changes its answer between check and use gains nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import httpx
from PIL import Image

from orchestrator.catalog.files import FileSource
from orchestrator.errors import ToolError
from orchestrator.policy.addresses import is_public
from orchestrator.settings import Settings
from workers.ocr.decode import Document, decode, open_document

DATA = Path(__file__).parent / "data"
MAX_REDIRECTS = 5
CONNECT_S, FETCH_S = 5.0, 30.0
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_RETRYABLE_STATUS = frozenset({408, 425, 429})


def bundled_images() -> list[str]:
    """The names that `bundled:<name>` takes."""
    return sorted(p.stem for p in DATA.glob("*.png"))


def load_image(uri: str, settings: Settings, *, files: FileSource | None = None) -> Image.Image:
    """The picture, or first page, that a URI or path names: upright, RGB, on white.

    Raises:
        ToolError: as `load_document`.
    """
    return decode(*_bytes(uri, settings, files))


def load_document(uri: str, settings: Settings, *, files: FileSource | None = None) -> Document:
    """The pages that a `blob:`, `bundled:`, `data:`, `file:`, `http:` or `https:` URI, or a path, names.

    Raises:
        ToolError: `bad_uri`, `forbidden`, `not_found`, `empty_file`, `not_an_image`, `corrupt_image`, `too_large`,
            `no_decoder`, `needs_password`, `http_error`; `unreachable` (and a server's 5xx) is retryable.
    """
    return open_document(*_bytes(uri, settings, files), most=settings.ocr_pages)


def _bytes(uri: str, settings: Settings, files: FileSource | None) -> tuple[bytes, str]:
    """What the URI names, and what messages call it."""
    if uri.startswith("blob:") and files is not None:
        return _uploaded(uri, settings, files)
    return fetch(uri, settings), short(uri)


def _uploaded(ref: str, settings: Settings, files: FileSource) -> tuple[bytes, str]:
    file = files.info(ref)
    if file.size > settings.fetch_max_bytes:
        raise _too_large(ref, settings)
    if not file.size:
        raise ToolError(f"`{file.name or ref}` is empty", code="empty_file", path="image_uri", next="Send the image again.")
    return files.fetch(ref).read_bytes(), file.name or ref


def short(uri: str) -> str:
    """The URI as messages show it: without credentials and query, without the bytes of a `data:` URI."""
    if uri.startswith("data:"):
        return uri.partition(",")[0][:60] + ",..."
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # no port, no address: where in it a password stands cannot be told
        return f"{uri.partition('//')[0][:60]}//..."
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"[:200] if parts.netloc else uri[:200]


def fetch(uri: str, settings: Settings) -> bytes:
    """The bytes that the URI names, at most `settings.fetch_max_bytes` of them."""
    scheme, _, rest = uri.partition(":")
    match scheme.lower() if _SCHEME.match(uri) else "":
        case "bundled":
            data = _bundled(rest, settings)
        case "data":
            data = _data(uri, settings)
        case "file":
            data = _file(uri, settings)
        case "http" | "https":
            data = _http(uri, settings)
        case "" if uri.strip() and "\0" not in uri:
            data = _path(uri, settings)
        case _:
            raise _bad(uri, "is no address of an image")
    if not data:
        raise ToolError(f"`{short(uri)}` is empty", code="empty_file", path="image_uri", next="Send the image again.")
    return data


def _bad(uri: str, what: str) -> ToolError:
    return ToolError(
        f"`{short(uri)}` {what}",
        code="bad_uri",
        path="image_uri",
        next="Write blob:sha256:..., https://..., file:///path/image.png, a path, data:image/png;base64,... or bundled:<name>.",
    )


def _too_large(uri: str, settings: Settings) -> ToolError:
    return ToolError(
        f"`{short(uri)}` is larger than {settings.fetch_max_bytes:,} bytes",
        code="too_large",
        path="image_uri",
        next="Send a smaller image, or raise TOOLWEAVER_FETCH_MAX_BYTES.",
    )


def _bundled(name: str, settings: Settings) -> bytes:
    names = bundled_images()
    if name.removesuffix(".png") not in names:
        raise ToolError(
            f"there is no bundled image `{name}`", code="not_found", path="image_uri", next=f"There are: {', '.join(names)}."
        )
    return _read(DATA / f"{name.removesuffix('.png')}.png", f"bundled:{name}", settings)


def _data(uri: str, settings: Settings) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise _bad(uri, "has no comma before its data")
    if len(body) > settings.fetch_max_bytes * 3:  # three characters a byte is the longest spelling
        raise _too_large(uri, settings)
    try:
        data = base64.b64decode(unquote(body), validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise _bad(uri, "is no valid base64") from None
    if len(data) > settings.fetch_max_bytes:
        raise _too_large(uri, settings)
    return data


def _file(uri: str, settings: Settings) -> bytes:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or "\0" in unquote(parts.path):
        raise _bad(uri, "names no file of this machine by its whole path")
    return _allowed(Path(unquote(parts.path)), uri, settings)


def _path(path: str, settings: Settings) -> bytes:
    """A path without scheme: a relative one is looked for beneath each of the allowed folders."""
    if Path(path).is_absolute() or not settings.file_roots:
        return _allowed(Path(path), path, settings)
    places = [root.expanduser() / path for root in settings.file_roots]
    return _allowed(next((p for p in places if p.exists()), places[0]), path, settings)


def _allowed(path: Path, uri: str, settings: Settings) -> bytes:
    path = path.resolve()
    roots = [r.expanduser().resolve() for r in (*settings.file_roots, DATA)]
    if not any(path.is_relative_to(root) for root in roots):
        raise ToolError(
            f"`{short(uri)}` lies outside the folders that may be read",
            code="forbidden",
            path="image_uri",
            next="Add its folder to TOOLWEAVER_FILE_ROOTS.",
        )
    return _read(path, uri, settings)


def _read(path: Path, uri: str, settings: Settings) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe put in its place must not hang us
    except OSError as error:
        raise ToolError(
            f"`{short(uri)}` cannot be opened: {error.strerror}",
            code="not_found",
            path="image_uri",
            next="Check the path and its permissions.",
        ) from None
    with _closing(handle):
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ToolError(f"`{short(uri)}` is no file", code="not_found", path="image_uri", next="Name a file.")
        if status.st_size > settings.fetch_max_bytes:
            raise _too_large(uri, settings)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(settings.fetch_max_bytes)


@contextmanager
def _closing(handle: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(handle)


def _http(uri: str, settings: Settings) -> bytes:
    deadline = time.monotonic() + FETCH_S
    with (
        httpx.Client(timeout=httpx.Timeout(10.0, connect=CONNECT_S), trust_env=False, follow_redirects=False) as client,
        _unreachable(uri),
    ):
        url = _parse(uri)
        for _ in range(MAX_REDIRECTS + 1):
            request = _request(client, url, settings)
            response = client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return _body(response, uri=uri, settings=settings, deadline=deadline)
                url = _parse(str(url.join(response.headers["location"])))
            finally:
                response.close()
    raise ToolError(
        f"`{short(uri)}` redirects more than {MAX_REDIRECTS} times",
        code="http_error",
        path="image_uri",
        next="Name the final address.",
    )


def _parse(uri: str) -> httpx.URL:
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL:
        raise _bad(uri, "is no valid URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise _bad(uri, "is no http(s) URL with a host")
    return url


@contextmanager
def _unreachable(uri: str) -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise ToolError(
            f"`{short(uri)}` cannot be reached: {reason}",
            code="unreachable",
            retryable=True,
            path="image_uri",
            next="Check the address and that its server is up.",
        ) from None


def _request(client: httpx.Client, url: httpx.URL, settings: Settings) -> httpx.Request:
    """A request to the checked address itself; name and certificate stay those of the host."""
    address = checked_address(url.host, url.port or (443 if url.scheme == "https" else 80), settings)
    headers = {"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "toolweaver"}
    return client.build_request("GET", url.copy_with(host=address), headers=headers, extensions={"sni_hostname": url.host})


def checked_address(host: str, port: int, settings: Settings) -> str:
    """The address to connect to for a host: resolved once, and public unless `settings.fetch_hosts` names the host.

    Raises:
        ToolError: `forbidden`.
        OSError: the name cannot be resolved.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    trusted = host.lower() in {h.lower() for h in settings.fetch_hosts}
    if not trusted and (private := [a for a in found if not is_public(a)]):
        raise ToolError(
            f"`{host}` is at {private[0]}, which is no public address",
            code="forbidden",
            path="image_uri",
            next="Add the host to TOOLWEAVER_FETCH_HOSTS if it may be fetched from.",
        )
    return found[0].partition("%")[0]


def _body(response: httpx.Response, *, uri: str, settings: Settings, deadline: float) -> bytes:
    status = response.status_code
    if status != httpx.codes.OK:
        raise ToolError(
            f"`{short(uri)}` answered {status} {response.reason_phrase}".rstrip(),
            code="http_error",
            retryable=status >= 500 or status in _RETRYABLE_STATUS,
            path="image_uri",
            next="Check the address.",
        )
    if int(response.headers.get("content-length", "0") or 0) > settings.fetch_max_bytes:
        raise _too_large(uri, settings)
    data = bytearray()
    for chunk in response.iter_raw():  # raw: nothing is unpacked, so nothing grows
        data += chunk
        if len(data) > settings.fetch_max_bytes:
            raise _too_large(uri, settings)
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"not done after {FETCH_S:g} s")
    return bytes(data)
