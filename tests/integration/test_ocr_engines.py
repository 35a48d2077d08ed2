"""The engines on real pictures: each one's text, who takes over from whom, the deadline, and Azure by its wire format."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")

from orchestrator.errors import ToolError
from orchestrator.settings import Settings, load_settings
from workers.ocr import rapid
from workers.ocr.engines import read_image
from workers.ocr.images import DATA
from workers.ocr.tools import receipt_ocr
from workers.receipt import OcrResult
from workers.testing import FakeContext

pytestmark = pytest.mark.integration
KEY = "0123456789abcdef-key-of-azure"
GROCERY = Image.open(DATA / "grocery.png").convert("RGB")
TOTAL = "37.32"


def need(found: object, what: str) -> None:
    """Skips where an optional part is missing; CI has them all."""
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def settings(**values: object) -> Settings:
    return load_settings(_env_file=None, **values)


def lines_with(result: OcrResult, text: str) -> list[str]:
    return [line.text for line in result.lines if text in line.text]


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
@pytest.mark.parametrize("engine", ["rapidocr", "tesseract"])
def test_a_picture_is_turned_upright(engine: str, turned: int) -> None:
    if engine == "tesseract":
        need(shutil.which("tesseract"), "tesseract")
    result = read_image(GROCERY.rotate(turned, expand=True), settings=settings(), engines=[engine])
    assert (result.engine, result.orientation) == (engine, turned)
    assert (result.width, result.height) == GROCERY.size
    assert lines_with(result, "TOTAL  $37.32")


@pytest.mark.parametrize("engine", ["rapidocr", "tesseract"])
@pytest.mark.parametrize(
    "tilt", [-14.0, pytest.param(-5.0, marks=pytest.mark.long), 7.0, pytest.param(14.0, marks=pytest.mark.long)]
)
def test_tilt_is_taken_out(engine: str, tilt: float) -> None:
    if engine == "tesseract":
        need(shutil.which("tesseract"), "tesseract")
    tilted = GROCERY.rotate(-tilt, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)
    result = read_image(tilted, settings=settings(), engines=[engine])
    assert abs(result.skew - tilt) < 1.0
    assert lines_with(result, "TOTAL  $37.32")
    assert lines_with(result, "Sourdough Bread  5.49")


def test_a_given_orientation_is_not_guessed() -> None:
    lying = GROCERY.rotate(90, expand=True)
    assert "Sourdough Bread" in read_image(lying, settings=settings(), orientation="90").text
    assert "Sourdough Bread" not in read_image(lying, settings=settings(), orientation="270").text


@pytest.mark.long
def test_a_very_long_scan_keeps_its_letters() -> None:
    long = Image.new("RGB", (GROCERY.width, GROCERY.height * 7), "white")
    for n in range(7):
        long.paste(GROCERY, (0, n * GROCERY.height))
    result = read_image(long, settings=settings())
    assert [len(lines_with(result, t)) for t in ("HARVEST LANE", "Sourdough Bread  5.49", "TOTAL  $37.32")] == [7, 7, 7]


def test_boxes_lie_on_the_upright_page() -> None:
    for picture in (GROCERY, GROCERY.rotate(180)):
        (line,) = [x for x in read_image(picture, settings=settings()).lines if x.text.startswith("Bananas")]
        assert [c.text for c in line.cells] == ["Bananas 2.31 lb", "1.59"]
        assert line.cells[0].box[2] < line.cells[1].box[0]
        left, top, right, bottom = line.cells[1].box
        assert Image.Image.getextrema(GROCERY.convert("L").crop((left, top, right, bottom)))[0] < 128, "there is print"


# -- the next engine takes over


@contextmanager
def without(monkeypatch: pytest.MonkeyPatch, package: str, module: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        patch.delitem(sys.modules, f"workers.ocr.{module}", raising=False)
        yield


def test_tesseract_takes_over_when_rapidocr_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    need(shutil.which("tesseract"), "tesseract")
    with without(monkeypatch, "rapidocr", "rapid"):
        result = read_image(GROCERY, settings=settings())
    assert result.engine == "tesseract"
    assert TOTAL in result.text
    assert result.notes == ("rapidocr could not read it (the package `rapidocr` is not installed); tesseract took over",)


def test_another_script_goes_to_the_engine_that_has_its_pack() -> None:
    need(shutil.which("tesseract"), "tesseract")
    with pytest.raises(ToolError) as caught:
        read_image(GROCERY, settings=settings(), language="ka")
    assert (caught.value.code, caught.value.retryable) == ("ocr_failed", False)
    assert "its characters cannot write the language `ka`" in caught.value.message
    assert "its pack `kat`" in caught.value.message
    assert "tesseract-ocr-kat" in (caught.value.next or "")


def test_no_engine_at_all_names_every_reason_and_move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    from workers.ocr import tesseract

    tesseract.packs.cache_clear()
    try:
        with without(monkeypatch, "rapidocr", "rapid"), pytest.raises(ToolError) as caught:
            read_image(GROCERY, settings=settings())
    finally:
        tesseract.packs.cache_clear()
    assert "rapidocr: the package `rapidocr` is not installed; tesseract: the program `tesseract`" in caught.value.message
    assert "pip install 'toolweaver[ocr]'" in (caught.value.next or "")
    assert "tesseract-ocr" in (caught.value.next or "")


# -- the deadline


def long_page() -> Image.Image:
    """A page that takes an engine seconds."""
    page = Image.new("RGB", (GROCERY.width, GROCERY.height * 16), "white")
    for n in range(16):
        page.paste(GROCERY, (0, n * GROCERY.height))
    return page


@pytest.mark.parametrize("engine", ["rapidocr", "tesseract"])
def test_a_page_that_takes_too_long_ends_soon_after_its_deadline(engine: str) -> None:
    if engine == "tesseract":
        need(shutil.which("tesseract"), "tesseract")
    rapid.engine()
    page, began = long_page(), time.monotonic()
    with pytest.raises(ToolError) as caught:
        read_image(page, settings=settings(), engines=[engine], deadline_s=0.5)
    assert (caught.value.code, caught.value.retryable) == ("too_slow", False)
    assert "TOOLWEAVER_OCR_DEADLINE_S" in (caught.value.next or "")
    assert time.monotonic() - began < 6, "one run of a network over a strip, on a busy machine"


def test_pages_that_were_read_before_the_deadline_are_kept(tmp_path: Path) -> None:
    rapid.engine()
    pages = [GROCERY, long_page(), long_page(), long_page()]
    pages[0].save(tmp_path / "long.tiff", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    began = time.monotonic()
    read_image(GROCERY, settings=settings())
    seconds = 4 * (time.monotonic() - began) + 0.5
    made = settings(file_roots=(tmp_path,), ocr_deadline_s=seconds, ocr_engines=("rapidocr",))
    result = receipt_ocr("./long.tiff", context=FakeContext(settings=made))
    assert 1 <= result.pages < 4
    assert TOTAL in result.text
    assert any(note.startswith("only the first ") for note in result.notes)


# -- Azure, by its wire format


class Azure(BaseHTTPRequestHandler):
    """Image Analysis 4.0: checks what the service checks, answers as it does."""

    protocol_version = "HTTP/1.1"
    asked: list[dict[str, Any]]
    plan: list[Callable[[Azure], None]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body})
        if self.plan:
            self.plan.pop(0)(self)
        elif self.headers.get("Ocp-Apim-Subscription-Key") != KEY:
            self.refuse(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
        else:
            self.answer(200, json.dumps(analysis(body)).encode())

    def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        self.answer(status, json.dumps({"error": {"code": code, "message": message}}).encode(), **headers)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


def analysis(body: bytes) -> dict[str, Any]:
    """What the service says of a picture: its size, and two lines of words, in the form of its REST reference."""
    width, height = Image.open(io.BytesIO(body)).size

    def word(text: str, left: int, top: int, right: int) -> dict[str, Any]:
        corners = [(left, top), (right, top), (right, top + 20), (left, top + 20)]
        return {"text": text, "boundingPolygon": [{"x": x, "y": y} for x, y in corners], "confidence": 0.98}

    def line(*words: dict[str, Any]) -> dict[str, Any]:
        text = " ".join(w["text"] for w in words)
        return {"text": text, "boundingPolygon": words[0]["boundingPolygon"], "words": list(words)}

    lines = [
        line(word("Sourdough", 24, 60, 120), word("Bread", 130, 60, 190)),
        line(word("5.49", 400, 62, 450)),
        line(word("TOTAL", 24, 120, 90), word("37.32", 395, 120, 450)),
    ]
    return {
        "modelVersion": "2023-10-01",
        "metadata": {"width": width, "height": height},
        "readResult": {"blocks": [{"lines": lines}]},
    }


@pytest.fixture
def azure() -> Iterator[tuple[Settings, type[Azure]]]:
    need(
        importlib.util.find_spec("azure.ai.vision.imageanalysis") if importlib.util.find_spec("azure") else None,
        "the extra `azure`",
    )
    handler = type("Handler", (Azure,), {"asked": [], "plan": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield (
            settings(azure_vision_endpoint=f"http://127.0.0.1:{server.server_address[1]}", azure_vision_key=SecretStr(KEY)),
            handler,
        )
    finally:
        server.shutdown()
        server.server_close()


def fails(made: Settings, **rest: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        read_image(GROCERY, settings=made, engines=["azure"], **rest)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert KEY not in f"{chain!r} {chain} {vars(chain)}"
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return caught.value


def test_azure_reads_by_the_wire_format(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    result = read_image(GROCERY, settings=made, engines=["azure"], language="de-AT")
    assert result.text == "Sourdough Bread  5.49\nTOTAL  37.32"
    assert (result.engine, result.confidence, result.orientation) == ("azure", 0.98, 0)
    (asked,) = server.asked
    assert asked["path"].startswith("/computervision/imageanalysis:analyze?")
    assert {"features=read", "language=de"} <= set(asked["path"].partition("?")[2].split("&"))
    assert asked["headers"]["ocp-apim-subscription-key"] == KEY
    assert asked["headers"]["content-type"] == "application/octet-stream"
    assert Image.open(io.BytesIO(asked["body"])).size == GROCERY.size


def test_azure_is_never_asked_unless_it_is_named(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    assert "azure" not in made.ocr_engines
    assert TOTAL in read_image(GROCERY, settings=made).text
    assert server.asked == []


def test_azure_with_a_wrong_key(azure: tuple[Settings, type[Azure]]) -> None:
    made, _ = azure
    wrong = "another-key-0123456789"
    error = fails(made.model_copy(update={"azure_vision_key": SecretStr(wrong)}))
    assert (error.code, error.retryable) == ("ocr_failed", False)
    assert "answered 401" in error.message
    assert "TOOLWEAVER_AZURE_VISION_KEY" in (error.next or "")
    assert wrong not in str(error)


def test_azure_that_is_not_set_up_says_what_to_set() -> None:
    error = fails(settings())
    assert "TOOLWEAVER_AZURE_VISION_ENDPOINT" in (error.next or "")


def test_azure_is_asked_again_after_the_wait_that_it_names(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    server.plan[:] = [lambda s: s.refuse(429, "429", "Requests exceed the rate limit.", Retry_After="1")]
    began = time.monotonic()
    assert TOTAL in read_image(GROCERY, settings=made, engines=["azure"]).text
    assert time.monotonic() - began >= 1.0
    assert len(server.asked) == 2


def test_azure_that_wants_a_long_wait_is_retryable_and_not_waited_for(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    server.plan[:] = [lambda s: s.refuse(429, "429", "Requests exceed the rate limit.", Retry_After="60")]
    began = time.monotonic()
    error = fails(made)
    assert error.retryable
    assert "asks to wait 60 s" in error.message
    assert time.monotonic() - began < 5
    assert len(server.asked) == 1


def test_azure_down_lets_the_next_engine_take_over(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    server.plan[:] = [lambda s: s.refuse(503, "InternalServerError", "down", Retry_After="0")] * 2
    result = read_image(GROCERY, settings=made, engines=["azure", "rapidocr"])
    assert result.engine == "rapidocr"
    assert result.notes[0].startswith("azure could not read it (answered 503")
    assert "rapidocr took over" in result.notes[0]


@pytest.mark.long
def test_azure_that_answers_too_slowly_is_left(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    gate = threading.Event()
    server.plan[:] = [lambda s: gate.wait(20)]
    began = time.monotonic()
    result = read_image(GROCERY, settings=made, engines=["azure", "rapidocr"], deadline_s=15)
    gate.set()
    assert time.monotonic() - began < 15
    assert result.engine == "rapidocr"
    assert "azure could not read it" in result.notes[0]


def test_azure_that_drips_is_left_at_the_deadline(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    gate = threading.Event()

    def drip(handler: Azure) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10000")
        handler.end_headers()
        while not gate.wait(0.1):
            handler.wfile.write(b" ")

    server.plan[:] = [drip]
    began = time.monotonic()
    error = fails(made, deadline_s=2)
    gate.set()
    assert error.code == "too_slow"
    assert time.monotonic() - began < 4


def test_azure_that_answers_nonsense(azure: tuple[Settings, type[Azure]]) -> None:
    made, server = azure
    server.plan[:] = [lambda s: s.answer(200, b"<html>a proxy</html>")]
    assert "azure: " in fails(made).message


def test_an_address_where_nobody_answers(azure: tuple[Settings, type[Azure]]) -> None:
    made, _ = azure
    error = fails(made.model_copy(update={"azure_vision_endpoint": "http://127.0.0.1:9"}))
    assert error.retryable
    assert "TOOLWEAVER_AZURE_VISION_ENDPOINT" in (error.next or "")


# -- the tool


def test_exactly_one_address() -> None:
    for given in ({}, {"image_url": "bundled:cafe", "image_uri": "bundled:cafe"}):
        with pytest.raises(ToolError) as caught:
            receipt_ocr(**given, context=FakeContext())
        assert caught.value.code == "bad_input"
    one, other = (receipt_ocr(**{name: "bundled:cafe"}, context=FakeContext()) for name in ("image_url", "image_uri"))
    assert one == other
