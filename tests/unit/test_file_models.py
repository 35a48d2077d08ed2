"""References, names and types of files: what is one, what is made safe."""

from __future__ import annotations

import json

import pytest

from orchestrator.jobs.blob_store import shown
from orchestrator.models.file import UNTYPED, clean_media_type, clean_name, digest_of, digests_in, reference

SHA = "ab" * 32


def test_a_reference_and_its_digest() -> None:
    assert digest_of(reference(SHA)) == SHA


@pytest.mark.parametrize(
    "text", ["", SHA, f"blob:sha256:{SHA}0", f"blob:sha256:{SHA.upper()}", f"blob:md5:{SHA}", f" {reference(SHA)}"]
)
def test_what_is_no_reference(text: str) -> None:
    assert digest_of(text) is None


def test_references_are_found_as_whole_strings_anywhere_in_a_value() -> None:
    other = "cd" * 32
    value = {
        "a": [reference(SHA), {"b": reference(other)}],
        "text": f"see {reference('ef' * 32)}",
        "said": json.dumps(reference("01" * 32)),
    }
    assert digests_in(json.dumps(value).encode()) == {SHA, other}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.txt", "y.txt"),
        ("..", ""),
        ("a\r\nb\x00c", "abc"),
        ("\u202egnp.exe", "gnp.exe"),
        ("ü" * 300, "ü" * 255),
        ("dir/", ""),
    ],
)
def test_names_lose_folders_and_what_cannot_be_seen(given: str, kept: str) -> None:
    assert clean_name(given) == kept


@pytest.mark.parametrize(
    ("declared", "kept"),
    [("image/PNG; q=1", "image/png"), ("", UNTYPED), (None, UNTYPED), ("a/b/c", UNTYPED), ("text/html\r\nX: y", UNTYPED)],
)
def test_media_types(declared: str | None, kept: str) -> None:
    assert clean_media_type(declared) == kept


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/var/blobs", "/var/blobs"),
        ("s3://key:secret@bucket/prefix?x=1#y", "s3://bucket/prefix"),
        ("ftp://u:p%40ss@host:21/x", "ftp://host:21/x"),
        ("ftp://u:p@ss@host/x", "ftp://host/x"),
    ],
)
def test_a_store_is_named_without_its_secrets(url: str, said: str) -> None:
    assert shown(url) == said
