"""Files over a real API: up, down, in parts, by the clients and the command; between tenants; with no room left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from orchestrator.catalog.context import ToolContext
from orchestrator.cli.app import app
from orchestrator.client import AsyncClient, Client
from orchestrator.errors import BackendError, LimitExceeded, NotFound, RequestError, StoreFull, ToolError
from orchestrator.models.access import CreateKeyRequest
from orchestrator.models.file import clean_name, reference
from orchestrator.policy.keys import KeyStore
from orchestrator.settings import MIB, Settings, load_settings
from orchestrator.state.connection import connect
from tests.api import running_api
from tests.engine import Engine
from tests.support import wait_until

pytestmark = pytest.mark.integration

MANY = os.urandom(3 * MIB + 17)
UNKNOWN = reference("0" * 64)


@pytest.fixture(scope="module")
def served(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, str]]:
    """One API for all tests here; each finds it empty."""
    home = tmp_path_factory.mktemp("home")
    settings = load_settings(_env_file=None, home=home, redis_url=server, file_max_bytes=4 * MIB, shards=2)
    with running_api(settings) as address:
        yield settings, address


@pytest.fixture
def settings(served: tuple[Settings, str]) -> Settings:
    settings, _ = served
    connect(settings).flushdb()
    shutil.rmtree(settings.home / "blobs", ignore_errors=True)
    return settings


@pytest.fixture
def url(served: tuple[Settings, str], settings: Settings) -> str:
    return served[1]


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as made:
        yield made


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as made:
        yield made


def stored(settings: Settings) -> list[Path]:
    """Every byte that lies in the store, temporary files too."""
    return [p for p in (settings.home / "blobs").rglob("*") if p.is_file() and not p.name.startswith(".store-")]


# The API


def test_a_file_goes_up_and_down(http: httpx.Client) -> None:
    answer = http.post("/v1/files", params={"name": "café.png"}, content=MANY, headers={"Content-Type": "image/png; x=y"})
    assert answer.status_code == 201
    file = answer.json()
    assert file["ref"] == reference(hashlib.sha256(MANY).hexdigest())
    assert (file["size"], file["media_type"], file["name"]) == (len(MANY), "image/png", "café.png")
    assert file["expires_at"] > file["created_at"]
    assert answer.headers["Location"] == f"/v1/files/{file['ref']}"

    got = http.get(answer.headers["Location"])
    assert got.content == MANY
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Disposition"].startswith("attachment;")
    assert "sandbox" in got.headers["Content-Security-Policy"]

    look = http.head(answer.headers["Location"])
    assert (look.status_code, look.headers["Content-Length"], look.content) == (200, str(len(MANY)), b"")


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        (f"bytes=5-{10**15}", slice(5, None)),
        ("bytes=9-5", slice(None)),  # no range at all, so it is not heeded
        ("bytes=0-1,5-6", slice(None)),
        ("items=0-1", slice(None)),
        ("bytes=-", slice(None)),
    ],
)
def test_parts(http: httpx.Client, asked: str, part: slice) -> None:
    ref = http.post("/v1/files", content=MANY).json()["ref"]
    got = http.get(f"/v1/files/{ref}", headers={"Range": asked})
    assert got.content == MANY[part]
    assert got.status_code == (200 if part == slice(None) else 206)
    if got.status_code == 206:
        start = len(MANY) - len(got.content) if part.start and part.start < 0 else part.start or 0
        assert got.headers["Content-Range"] == f"bytes {start}-{start + len(got.content) - 1}/{len(MANY)}"


def test_a_part_beyond_the_end(http: httpx.Client) -> None:
    ref = http.post("/v1/files", content=b"abc").json()["ref"]
    got = http.get(f"/v1/files/{ref}", headers={"Range": "bytes=3-"})
    assert (got.status_code, got.headers["Content-Range"]) == (416, "bytes */3")


@pytest.mark.parametrize(
    "name",
    [
        'a"; filename="evil.exe',
        "a\r\nSet-Cookie: x=1",
        "../../etc/passwd",
        "..",
        "a\x00b",
        "C:\\x\\y.txt",
        "\u202egnp.exe",
        "%2e%2e",
    ],
)
def test_a_name_breaks_no_header_and_leaves_no_folder(http: httpx.Client, name: str) -> None:
    ref = http.post("/v1/files", params={"name": name}, content=b"x").json()["ref"]
    got = http.get(f"/v1/files/{ref}")
    assert "set-cookie" not in got.headers
    assert got.headers["Content-Disposition"].count(";") == 2
    assert got.headers["Content-Disposition"].count('"') == 2
    assert not set("/\\\r\n\0") & set(clean_name(name))


@pytest.mark.parametrize("kind", ["text/html\r\nX-Evil: 1", "no type", "a/b/c", "x" * 300, ""])
def test_what_is_no_media_type_is_plain_bytes(http: httpx.Client, kind: str) -> None:
    headers = [(b"content-type", kind.replace("\r\n", " ").encode())]
    assert http.post("/v1/files", content=b"x", headers=headers).json()["media_type"] == "application/octet-stream"


def test_more_than_the_limit_is_refused_before_it_comes(http: httpx.Client, settings: Settings) -> None:
    sent = []

    def body() -> Iterator[bytes]:
        for _ in range(64):
            sent.append(1)
            yield bytes(MIB)

    told = http.post("/v1/files", content=body(), headers={"Content-Length": str(64 * MIB)})
    assert (told.status_code, told.json()["code"]) == (413, "limit_exceeded")
    assert "4 MiB" in told.json()["detail"]
    untold = http.post("/v1/files", content=(bytes(MIB) for _ in range(64)))
    assert untold.status_code == 413
    assert stored(settings) == []
    assert http.get("/v1/files").json()["files"] == []


def test_a_client_that_goes_away_leaves_nothing(url: str, http: httpx.Client, settings: Settings) -> None:
    class Gone(Exception):
        pass

    def body() -> Iterator[bytes]:
        yield bytes(2 * MIB)
        raise Gone

    with pytest.raises(Gone):
        http.post("/v1/files", content=body(), headers={"Content-Length": str(3 * MIB)})
    wait_until(lambda: stored(settings) == [], description="the half file is gone")
    assert http.get("/v1/files").json()["files"] == []


def test_a_form_is_refused_with_what_to_do(http: httpx.Client) -> None:
    answer = http.post("/v1/files", files={"file": ("a.txt", b"abc")})
    assert answer.status_code == 415
    assert "--data-binary" in answer.json()["next"]


def test_other_bodies_stay_bounded(http: httpx.Client) -> None:
    assert http.post("/v1/jobs", content=bytes(3 * MIB), headers={"Content-Type": "application/json"}).status_code == 413


@pytest.mark.parametrize("ref", [UNKNOWN, "blob:sha256:xyz", "..%2f..%2fetc%2fpasswd", "sha256:" + "0" * 64, "x" * 2000])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_what_is_not_there(http: httpx.Client, method: str, ref: str) -> None:
    assert http.request(method, f"/v1/files/{ref}").status_code == 404


def test_files_are_listed_and_removed(http: httpx.Client) -> None:
    refs = [http.post("/v1/files", content=str(n).encode()).json()["ref"] for n in range(5)]
    first = http.get("/v1/files", params={"limit": 3}).json()
    second = http.get("/v1/files", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert {f["ref"] for f in first["files"] + second["files"]} == set(refs)
    assert second["next_cursor"] is None
    assert http.delete(f"/v1/files/{refs[0]}").status_code == 204
    assert http.delete(f"/v1/files/{refs[0]}").status_code == 404
    assert len(http.get("/v1/files").json()["files"]) == 4
    assert http.get("/v1/files", params={"cursor": "nonsense"}).status_code == 400


def test_neither_up_nor_down_holds_a_file_in_memory(settings: Settings) -> None:
    large = settings.model_copy(update={"file_max_bytes": 1024 * MIB})
    size, piece = 96, os.urandom(MIB)
    with running_api(large) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        http.get("/v1/files")
        tracemalloc.start()
        try:
            ref = http.post("/v1/files", content=(piece for _ in range(size))).json()["ref"]
            with http.stream("GET", f"/v1/files/{ref}") as response:
                got = sum(len(p) for p in response.iter_raw())
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert got == size * MIB
    assert most < 24 * MIB, most


# The clients


def test_the_client_uploads_paths_bytes_and_open_files(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(MANY)
    file = client.upload(path)
    assert (file.name, file.media_type, file.size) == ("scan.png", "image/png", len(MANY))
    with path.open("rb") as opened:
        assert client.upload(opened).ref == file.ref
    assert client.upload(MANY, name="x.pdf").media_type == "application/pdf"
    assert client.upload(io.BytesIO(b"abc")).size == 3
    assert client.upload(b"").size == 0
    assert len(list(client.files(limit=2))) == 2


def test_the_client_downloads_to_a_path_a_folder_and_an_open_file(client: Client, tmp_path: Path) -> None:
    file = client.upload(MANY, name="ä b.bin")
    assert client.download(file, tmp_path / "here.bin") == tmp_path / "here.bin"
    assert client.download(file.ref, tmp_path) == tmp_path / "ä b.bin"
    out = io.BytesIO()
    assert client.download(file, out) is None
    assert out.getvalue() == (tmp_path / "here.bin").read_bytes() == (tmp_path / "ä b.bin").read_bytes() == MANY


def test_what_the_client_refuses(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        client.upload(tmp_path / "missing")
    with pytest.raises(RequestError, match="folder"):
        client.upload(tmp_path)
    with (tmp_path / "t").open("w") as text, pytest.raises(RequestError, match="as text"):
        client.upload(text)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="no reference"):
        client.download("nonsense", tmp_path / "x")
    with pytest.raises(NotFound):
        client.download(UNKNOWN, tmp_path / "x")
    with pytest.raises(LimitExceeded):
        client.upload(bytes(5 * MIB))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["t"]


async def test_the_asyncio_client_does_the_same(url: str, tmp_path: Path) -> None:
    async with AsyncClient(url) as client:
        file = await client.upload(MANY, name="a.bin")
        assert await client.download(file, tmp_path / "b") == tmp_path / "b"
        assert (tmp_path / "b").read_bytes() == MANY
        assert [f.ref async for f in client.files()] == [file.ref]
        assert await client.remove_file(file)


class Cut(httpx.BaseTransport):
    """A network that breaks off the first answers with a body after some bytes."""

    def __init__(self, *, times: int, after: int) -> None:
        self._real = httpx.HTTPTransport()
        self._times, self._after = times, after
        self.asked: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._real.handle_request(request)
        self.asked.append(request.headers.get("range"))
        if request.method == "GET" and self._times > 0:
            self._times -= 1
            whole = response.stream
            assert isinstance(whole, httpx.SyncByteStream)
            return httpx.Response(response.status_code, headers=response.headers, stream=_Broken(whole, self._after))
        return response


class _Broken(httpx.SyncByteStream):
    def __init__(self, whole: httpx.SyncByteStream, after: int) -> None:
        self._whole, self._left = whole, after

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._whole:
            yield piece[: self._left]
            self._left -= len(piece)
            if self._left <= 0:
                raise httpx.ReadError("the network broke off")

    def close(self) -> None:
        self._whole.close()


def test_a_download_goes_on_where_it_broke_off(url: str, tmp_path: Path) -> None:
    network = Cut(times=2, after=MIB + 5)
    with Client(url, http=network) as client:
        file = client.upload(MANY)
        client.download(file, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == MANY
    assert [a for a in network.asked if a is not None] == [f"bytes={MIB}-", f"bytes={2 * MIB}-"], "in pieces of 1 MiB"


def test_a_download_of_other_bytes_leaves_nothing(client: Client, settings: Settings, tmp_path: Path) -> None:
    file = client.upload(b"the right bytes")
    [path] = stored(settings)
    path.write_bytes(b"the wrong bytes")
    with pytest.raises(BackendError, match="not those that were stored"):
        client.download(file, tmp_path / "a")
    assert list(tmp_path.glob("*a*")) == []


# The command


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("TOOLWEAVER_URL", url)
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lambda *words, **options: CliRunner().invoke(app, list(words), **options)


def test_the_command_uploads_lists_gets_and_removes(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    up = run("files", "upload", "a.txt")
    assert up.exit_code == 0, up.stderr
    ref = up.stdout.strip()
    assert ref == reference(hashlib.sha256(b"hello").hexdigest())
    assert "5 bytes" in up.stderr
    listed = run("files", "list")
    assert ref in listed.stdout
    assert "text/plain" in listed.stdout
    (tmp_path / "out").mkdir()
    assert run("files", "get", ref, "-o", "out").stdout.strip() == str(Path("out/a.txt"))
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"hello"
    assert run("files", "get", ref, "-o", "-").stdout == "hello"
    assert run("files", "rm", ref).exit_code == 0
    gone = run("files", "get", ref, "-o", "x")
    assert gone.exit_code == 2
    assert "There is no file" in gone.stderr
    assert run("files", "upload", "-", input=b"from a pipe").exit_code == 0


def test_submit_takes_files_as_inputs(run: Callable[..., Result], client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "plan.json").write_text(json.dumps(PLAN | {"inputs": {"scan": None}}))
    submitted = run("submit", "plan.json", "--file", "scan=a.txt")
    assert submitted.exit_code == 0, submitted.stderr
    [file] = client.files()
    assert file.name == "a.txt"
    assert not client.remove_file(file), "the job names it"
    assert run("submit", "plan.json", "--file", "scan").exit_code == 2
    assert run("submit", "plan.json", "--file", "scan=missing.txt").exit_code == 2


# Tenants


@pytest.fixture
def tenants(settings: Settings) -> Iterator[tuple[Client, Client]]:
    keys = KeyStore(connect(settings))
    made = [keys.create(CreateKeyRequest(tenant=tenant, name=tenant)).key for tenant in ("acme", "bolt")]
    with running_api(settings) as url, Client(url, api_key=made[0]) as acme, Client(url, api_key=made[1]) as bolt:
        yield acme, bolt


PLAN: dict[str, Any] = {"steps": [{"id": "s", "tool": "compute_tax", "input": {"amount": 1, "tax_rate": 0.1}}]}
READ: dict[str, Any] = {
    "steps": [{"id": "s", "tool": "receipt_ocr", "input": {"image_uri": "input:image"}}],
    "inputs": {"image": ""},
}
READ_ALL: dict[str, Any] = {"steps": [{"id": "s", "tool": "receipt_ocr", "map": "input:images", "input": {"image_uri": "item"}}]}


def test_another_tenant_s_file_is_not_there_even_with_the_right_hash(tenants: tuple[Client, Client], tmp_path: Path) -> None:
    acme, bolt = tenants
    file = acme.upload(b"a secret of acme")
    attempts: list[Callable[[], Any]] = [
        lambda: bolt.download(file.ref, tmp_path / "x"),
        lambda: bolt.remove_file(file.ref),
        lambda: bolt.submit(READ, inputs={"image": file.ref}),
        lambda: bolt.submit(READ_ALL, inputs={"images": ["bundled:grocery", file.ref]}),
        lambda: bolt.submit(READ | {"inputs": {"image": file.ref}}),
        lambda: bolt.submit_tool("receipt_ocr", {"image_uri": file.ref}),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    assert list(bolt.files()) == []
    assert acme.download(file, io.BytesIO()) is None
    acme.submit(READ, inputs={"image": file.ref})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("place", ["acme", "acme/" + "0" * 64, "..%2facme"])
def test_the_addresses_of_workers_need_a_worker_s_key(tenants: tuple[Client, Client], method: str, place: str) -> None:
    _, bolt = tenants
    response = bolt._transport._http.request(method, f"/v1/blobs/{place}", content=b"x" if method == "POST" else None)
    assert response.status_code in (403, 404, 405)


def test_a_tenant_may_store_as_much_as_its_limit(settings: Settings) -> None:
    settings = settings.model_copy(update={"tenant_blob_bytes": 2 * MIB})
    keys = KeyStore(connect(settings))
    acme, bolt = (keys.create(CreateKeyRequest(tenant=tenant, name=tenant)).key for tenant in ("acme", "bolt"))
    with running_api(settings) as url, Client(url, api_key=acme) as greedy, Client(url, api_key=bolt) as other:
        file = greedy.upload(bytes(2 * MIB - 10))
        with pytest.raises(Exception, match="limit is 2 MiB"):
            greedy.upload(b"eleven byte")
        other.upload(b"room for others")
        greedy.remove_file(file)
        greedy.upload(b"eleven byte")


# No room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_no_half_file(settings: Settings, small_disk: Path) -> None:
    settings = settings.model_copy(update={"blobs": str(small_disk / "blobs")})
    with running_api(settings) as url, Client(url) as client:
        small = client.upload(b"fits")
        with pytest.raises(StoreFull) as caught:
            client.upload(os.urandom(4 * MIB))
        assert caught.value.code == "store_full"
        assert str(small_disk) in str(caught.value)
        assert "files rm" in str(caught.value)
        raw = httpx.post(f"{url}/v1/files", content=os.urandom(4 * MIB), trust_env=False)
        assert raw.status_code == 507
        left = [p for p in (small_disk / "blobs").rglob("*") if p.is_file() and not p.name.startswith(".store-")]
        assert len(left) == 1
        client.upload(os.urandom(MIB))  # there is room again
        assert client.download(small, io.BytesIO()) is None


def test_a_tool_error_names_what_to_do_when_the_disk_is_full(settings: Settings, small_disk: Path) -> None:
    settings = settings.model_copy(update={"blobs": str(small_disk / "blobs"), "broker_url": None})
    engine = Engine(settings)
    bodies = []

    @engine.tool()
    def save(context: ToolContext) -> str:
        bodies.append(1)
        return context.save_file(os.urandom(4 * MIB))

    view, result = engine.run([{"id": "s", "tool": "save", "retry": {"max": 1, "backoff_s": 0}}])
    while not view.status.final:
        engine.retry_now(view.id)
        engine.drain()
        view, result = engine.store.view(view.id), engine.store.result(view.id)
    assert len(bodies) == 2, "it is worth another try"
    assert result.errors[0].code == "store_full"
    assert "TOOLWEAVER_BLOBS" in (result.errors[0].next or "")
    assert issubclass(StoreFull, BackendError)
    assert not issubclass(StoreFull, ToolError)
