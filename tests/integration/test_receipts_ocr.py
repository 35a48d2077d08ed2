"""The receipt tools on real pictures with the real engine, against the truth; and every bad picture with its clear failure."""

from __future__ import annotations

import difflib
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.register import registry
from orchestrator.errors import ToolError
from orchestrator.settings import load_settings
from workers.ocr import images
from workers.ocr.images import DATA, bundled_images
from workers.ocr.tools import receipt_ocr, warm_up
from workers.receipt import OcrResult, ParsedReceipt
from workers.small_model.tools import line_item_parser
from workers.testing import FakeContext

pytestmark = pytest.mark.integration
TRUTH: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "receipts" / "truth.json").read_text(encoding="utf-8"))
PNG = (DATA / "notice.png").read_bytes()


def context(**values: object) -> FakeContext:
    return FakeContext(settings=load_settings(_env_file=None, **values))


@pytest.fixture(scope="module")
def read() -> Callable[[str], OcrResult]:
    """The text of a bundled image, through the tool, once per module."""
    warm_up()
    known: dict[str, OcrResult] = {}

    def by_name(name: str) -> OcrResult:
        if name not in known:
            known[name] = receipt_ocr(f"bundled:{name}", context=context())
        return known[name]

    return by_name


def test_every_bundled_image_has_its_truth() -> None:
    assert sorted(TRUTH) == bundled_images()
    assert sum(t["is_receipt"] for t in TRUTH.values()) >= 6
    assert sum(t.get("balanced") is False for t in TRUTH.values()) >= 1


def like(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a.casefold(), b.casefold()).ratio()


@pytest.mark.parametrize("name", sorted(n for n, t in TRUTH.items() if t["is_receipt"]))
def test_a_bundled_image_is_read_and_parsed_as_printed(name: str, read: Callable[[str], OcrResult]) -> None:
    truth, receipt = TRUTH[name], line_item_parser(read(name), context())
    told = receipt.model_dump(mode="json")
    assert (receipt.is_receipt, receipt.source) == (True, f"bundled:{name}")
    assert {k: told[k] for k in ("date", "currency", "subtotal", "tax", "total", "balanced")} == {
        k: truth[k] for k in ("date", "currency", "subtotal", "tax", "total", "balanced")
    }
    assert any(like(receipt.merchant or "", m) >= 0.9 for m in (truth["merchant"], *truth.get("merchant_also", ())))
    assert [c["amount"] for c in told["charges"]] == truth["charges"]
    assert (told["tax_base"] and [told["tax_base"]["amount"], told["tax_base"]["rate"]]) == truth["tax_base"]
    assert receipt.uncertain == ()
    assert bool(receipt.problems) == (not truth["balanced"])


@pytest.mark.parametrize("name", sorted(n for n, t in TRUTH.items() if t["is_receipt"]))
def test_the_items_of_a_bundled_image(name: str, read: Callable[[str], OcrResult]) -> None:
    items, truth = line_item_parser(read(name), context()).model_dump(mode="json")["items"], TRUTH[name]["items"]
    assert [i["amount"] for i in items] == [t[3] for t in truth]
    for item, (description, quantity, unit_price, _) in zip(items, truth, strict=True):
        assert like(item["description"], description) >= 0.8
        assert quantity is None or item["quantity"] in (quantity, None)
        assert unit_price is None or item["unit_price"] in (unit_price, None)
    assert sum(i["quantity"] is not None for i in items) >= sum(t[1] is not None for t in truth) * 0.8


@pytest.mark.parametrize("name", sorted(n for n, t in TRUTH.items() if not t["is_receipt"]))
def test_what_is_no_receipt_says_so(name: str, read: Callable[[str], OcrResult]) -> None:
    receipt = line_item_parser(read(name), context())
    assert (receipt.is_receipt, receipt.items, receipt.total, len(receipt.problems)) == (False, (), None, 1)


def test_every_value_has_its_evidence_in_a_line_of_the_text(read: Callable[[str], OcrResult]) -> None:
    ocr = read("tapas")
    receipt = line_item_parser(ocr, context())
    for name in ("merchant", "date", "total"):
        evidence = receipt.evidence[name]
        assert evidence.line is not None
        assert evidence.text in ocr.lines[evidence.line].text or ocr.lines[evidence.line].text in evidence.text
        assert 0.5 <= evidence.confidence <= 1


def test_the_receipt_that_does_not_add_up_says_so(read: Callable[[str], OcrResult]) -> None:
    receipt = line_item_parser(read("pharmacy"), context())
    assert receipt.problems == ("the items sum to 52.55, the printed subtotal is 55.25 (2.70 more)",)


def test_a_picture_without_readable_text_gives_an_empty_text(read: Callable[[str], OcrResult]) -> None:
    blurred = read("blurred")
    assert (blurred.text, blurred.lines, blurred.confidence) == ("", (), 0.0)
    assert (blurred.width, blurred.height) == (460, 629)


def test_results_pass_their_own_contract_from_pool_to_pool(read: Callable[[str], OcrResult]) -> None:
    ocr, parser = registry.get("receipt_ocr"), registry.get("line_item_parser")
    assert ocr is not None
    assert parser is not None
    wire = json.loads(json.dumps(ocr.validate_output(read("cafe"))))
    given = parser.validate_input({"ocr": wire})
    assert ParsedReceipt.model_validate(parser.validate_output(parser.function(**given, context=context()))).total == Decimal(
        "23.7"
    )


# -- bad pictures


def failure(uri: str, **values: object) -> ToolError:
    with pytest.raises(ToolError) as caught:
        receipt_ocr(image_uri=uri, context=context(**values))
    return caught.value


def corrupt() -> bytes:
    return (DATA / "grocery.png").read_bytes()[:3000]


def bomb() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    )


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (corrupt, "corrupt_image", "damaged PNG"),
        (bytes, "empty_file", "is empty"),
        (lambda: b"this is text\n" * 20, "not_an_image", "is a text file"),
        (bomb, "too_large", "pixels"),
    ],
)
def test_a_bad_file_fails_for_good_with_its_reason(tmp_path: Path, content: Callable[[], bytes], code: str, told: str) -> None:
    (tmp_path / "bad.png").write_bytes(content())
    error = failure(f"file://{tmp_path}/bad.png", file_roots=(tmp_path,))
    assert (error.code, error.retryable) == (code, False)
    assert told in error.message
    assert "bad.png" in error.message
    assert error.next


def test_a_file_of_50_mb_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(50 << 20)
    error = failure(f"file://{tmp_path}/huge.png", file_roots=(tmp_path,))
    assert (error.code, error.retryable) == ("too_large", False)
    assert "20,971,520 bytes" in error.message


def test_a_path_that_escapes_is_refused(tmp_path: Path) -> None:
    assert failure(f"file://{tmp_path}/../../etc/passwd", file_roots=(tmp_path,)).code == "forbidden"


# -- images over HTTP, from a server on this machine


class Site(BaseHTTPRequestHandler):
    """Pages by path; `asked` holds what was asked for."""

    asked: list[tuple[str, str]]
    other: str

    def do_GET(self) -> None:
        self.asked.append((self.headers["Host"], self.path))
        match self.path.partition("?")[0]:
            case "/ok.png":
                self.answer(200, PNG)
            case "/moved":
                self.answer(302, b"", location="/ok.png")
            case "/private":
                self.answer(302, b"", location=f"{self.other}/ok.png")
            case "/file":
                self.answer(302, b"", location="file:///etc/passwd")
            case "/circle":
                self.answer(302, b"", location="/circle")
            case "/huge":
                self.answer(200, b"", length=50 << 20)
            case "/endless":
                self.answer(200, b"x" * 4000)
            case "/broken":
                self.answer(503, b"later")
            case _:
                self.answer(404, b"no")

    def answer(self, status: int, body: bytes, *, location: str | None = None, length: int | None = None) -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        if self.path != "/endless":  # that one does not say how long it is
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def site() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The port of a web server on this machine, and what it was asked for."""
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (Site,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    port = server.server_address[1]
    handler.other = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield str(port), asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_image_is_fetched_and_read(site: tuple[str, list[tuple[str, str]]]) -> None:
    port, asked = site
    result = receipt_ocr(f"http://127.0.0.1:{port}/moved", context=context(fetch_hosts=("127.0.0.1",)))
    assert "CITY LIBRARY" in result.text
    assert asked == [(f"127.0.0.1:{port}", "/moved"), (f"127.0.0.1:{port}", "/ok.png")]


def test_a_private_address_is_refused_before_anything_is_sent(site: tuple[str, list[tuple[str, str]]]) -> None:
    port, asked = site
    error = failure(f"http://127.0.0.1:{port}/ok.png")
    assert (error.code, error.retryable) == ("forbidden", False)
    assert asked == []


@pytest.mark.parametrize(("path", "code"), [("/private", "forbidden"), ("/file", "bad_uri"), ("/circle", "http_error")])
def test_every_hop_of_a_redirect_is_checked(
    site: tuple[str, list[tuple[str, str]]], path: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = site
    resolve_as(monkeypatch, "trusted.test", "127.0.0.1")
    error = failure(f"http://trusted.test:{port}{path}", fetch_hosts=("trusted.test",))
    assert (error.code, error.retryable) == (code, False)
    assert {p for _, p in asked} == {path}


def resolve_as(monkeypatch: pytest.MonkeyPatch, host: str, address: str) -> list[str]:
    """Lets a name resolve to an address, and records each time it is resolved."""
    real, seen = socket.getaddrinfo, []

    def resolve(name: Any, *rest: Any, **more: Any) -> Any:
        if name == host:
            seen.append(name)
            return real(address, *rest, **more)
        return real(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return seen


def test_a_name_is_resolved_once_and_that_address_is_used(
    site: tuple[str, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = site
    seen = resolve_as(monkeypatch, "rebind.test", "127.0.0.1")
    monkeypatch.setattr(images, "is_public", lambda _: True)
    assert receipt_ocr(f"http://rebind.test:{port}/ok.png", context=context()).text
    assert seen == ["rebind.test"]
    assert asked == [(f"rebind.test:{port}", "/ok.png")]


@pytest.mark.parametrize(
    ("path", "code", "retryable"),
    [
        ("/huge", "too_large", False),
        ("/endless", "too_large", False),
        ("/broken", "http_error", True),
        ("/nothing", "http_error", False),
    ],
)
def test_a_bad_answer_fails_with_its_reason(site: tuple[str, list[tuple[str, str]]], path: str, code: str, retryable: bool) -> None:
    port, _ = site
    error = failure(f"http://127.0.0.1:{port}{path}?key=secret", fetch_hosts=("127.0.0.1",), fetch_max_bytes=3000)
    assert (error.code, error.retryable) == (code, retryable)
    assert "secret" not in str(error)


def test_a_server_that_does_not_answer_is_worth_a_retry() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing else can take the port
        error = failure(f"http://127.0.0.1:{taken.getsockname()[1]}/x.png", fetch_hosts=("127.0.0.1",))
    assert (error.code, error.retryable) == ("unreachable", True)


def test_a_name_that_does_not_resolve_is_worth_a_retry() -> None:
    error = failure("http://no-such-host.invalid/x.png")
    assert (error.code, error.retryable) == ("unreachable", True)


def test_a_server_that_drips_is_given_up(site: tuple[str, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, _ = site
    monkeypatch.setattr(images, "FETCH_S", -1.0)  # the time is over when the first bytes arrive
    error = failure(f"http://127.0.0.1:{port}/ok.png", fetch_hosts=("127.0.0.1",))
    assert (error.code, error.retryable) == ("unreachable", True)
