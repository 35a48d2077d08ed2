"""What a server answers becomes one of our values; what it reports of its progress is thinned out."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.errors import ToolError
from workers.mcp.values import MOST_BLOCKS, MOST_TEXT, Throttle, cut, has_files, text_of, value_of
from workers.testing import FakeContext

PNG = base64.b64encode(b"a picture").decode()


@dataclass
class Said:
    """An answer, as the connection gives it."""

    content: list[dict[str, Any]] = field(default_factory=list)
    structured: Any = None
    has_structured: bool = False


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def value(answer: Said, context: FakeContext | None = None) -> Any:
    context = context or FakeContext()
    return value_of(answer, save=lambda data, name, kind: context.save_file(data, name=name, media_type=kind))


def test_structured_content_is_the_value_whatever_stands_beside() -> None:
    assert value(Said([text("{...}")], {"a": [1]}, True)) == {"a": [1]}
    assert value(Said([text("null")], None, True)) is None
    assert not has_files(Said([{"type": "image", "data": PNG}], {}, True))


def test_one_text_is_itself_and_several_are_blocks() -> None:
    assert value(Said([text("hello")])) == "hello"
    assert value(Said([text('{"no": "json of ours"}')])) == '{"no": "json of ours"}'
    assert value(Said([text("a"), text("b")])) == {"content": [text("a"), text("b")]}
    assert value(Said([])) == {"content": []}


def test_bytes_are_kept_as_files_with_their_media_types() -> None:
    context = FakeContext()
    blocks = [
        {"type": "image", "data": PNG, "mimeType": "image/png", "annotations": {"audience": ["user"]}},
        {"type": "audio", "data": PNG, "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "file:///made/table.bin", "blob": PNG}},
    ]
    assert has_files(Said(blocks))
    found = value(Said(blocks), context)["content"]

    assert [b["type"] for b in found] == ["image", "audio", "resource"]
    assert [b["media_type"] for b in found] == ["image/png", "audio/wav", "application/octet-stream"]
    assert all(b["file"].startswith("blob:sha256:") and "data" not in b and "annotations" not in b for b in found)
    assert found[2]["uri"] == "file:///made/table.bin"
    assert [f.name.partition(".")[0] for f in context.files.made] == ["image", "audio", "table"]
    assert context.files.made[0].name == "image.png"
    with context.open_file(found[0]["file"]) as kept:
        assert kept.read() == b"a picture"


def test_texts_and_links_of_resources_stay_readable() -> None:
    blocks = [
        {"type": "resource", "resource": {"uri": "memo://1", "mimeType": "text/plain", "text": "words"}},
        {"type": "resource_link", "uri": "memo://2", "name": "two", "mimeType": "text/html", "size": 3},
        {"type": "hologram", "depth": 3, "_meta": {"x": 1}},
    ]
    assert not has_files(Said(blocks))
    assert value(Said(blocks)) == {
        "content": [
            {"type": "resource", "uri": "memo://1", "media_type": "text/plain", "text": "words"},
            {"type": "resource_link", "uri": "memo://2", "name": "two", "media_type": "text/html"},
            {"type": "hologram", "depth": 3},
        ]
    }


@pytest.mark.parametrize("data", ["no base64!", "", 7, {"a": 1}])
def test_bytes_that_are_none_are_bad_output(data: Any) -> None:
    if data == "":  # nothing is something: an empty file
        assert value(Said([{"type": "image", "data": data}]))["content"][0]["file"].startswith("blob:")
        return
    with pytest.raises(ToolError, match="base64") as raised:
        value(Said([{"type": "image", "data": data}]))
    assert raised.value.code == "bad_output"


def test_no_more_blocks_are_kept_than_anybody_reads() -> None:
    with pytest.raises(ToolError, match="blocks"):
        value(Said([text("x")] * (MOST_BLOCKS + 1)))


def test_the_words_of_a_failure_are_cut_by_bytes() -> None:
    assert text_of(Said([text("a"), {"type": "resource", "resource": {"text": "b"}}, {"type": "image", "data": PNG}])) == "a\nb"
    assert text_of(Said([], {"error": "deep"}, True)) == "{'error': 'deep'}"
    long = text_of(Said([text("ä" * MOST_TEXT)]))
    assert len(long.encode()) <= MOST_TEXT
    assert long.endswith("...")
    assert cut("short", 5) == "short"
    assert cut("\ud800 alone") == "? alone"


def test_progress_is_thinned_out_and_its_end_is_told_once() -> None:
    now = 0.0
    throttle = Throttle(every_s=0.25, clock=lambda: now)
    told = []
    for n in range(101):
        now = n / 64
        if throttle.lets(n, 100):
            told.append(n)
    assert told == [0, 16, 32, 48, 64, 80, 96, 100]

    now += 0.01
    assert not throttle.lets(100, 100), "that all is done was told"
    assert not throttle.lets(101, None)
    now += 0.25
    assert throttle.lets(102, None)
