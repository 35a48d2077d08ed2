"""Pictures that cannot be read are clear failed calls of their own; the rest of a `continue` job finishes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.models.job import JobStatus
from orchestrator.planner.named import load_named
from workers.testing import running_engine


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_bad_pictures_fail_alone(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 200)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is a text, not a picture")
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(50 << 20)
    images = [
        "bundled:grocery",
        *(f"file:{tmp_path}/{name}.png" for name in ("corrupt", "empty", "text", "huge")),
        f"http://127.0.0.1:{closed_port()}/receipt.png",
        "file:/etc/hostname",
        "http://127.0.0.1.nip.invalid/receipt.png",
    ]
    with running_engine(file_roots=(tmp_path,), fetch_hosts=("127.0.0.1",)) as engine:
        result = engine.run_plan(load_named("receipts"), {"images": images})

    assert result.status is JobStatus.SUCCEEDED
    assert result.has_errors
    codes = {e.index: e.code for e in result.errors if e.step == "ocr"}
    assert codes == {
        1: "corrupt_image",
        2: "empty_file",
        3: "not_an_image",
        4: "too_large",
        5: "unreachable",
        6: "forbidden",
        7: "unreachable",
    }
    assert all(e.message and e.next for e in result.errors if e.step == "ocr"), "each says what is wrong and the next move"
    assert result.steps["ocr"][0]["text"]
    assert result.steps["ocr"][1:] == [None] * 7
    assert result.steps["merge"][0]["balanced"] is True
    assert result.output["pictures"] == 8
    assert result.output["failed"] == [1, 2, 3, 4, 5, 6, 7]
