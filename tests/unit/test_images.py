"""The guard in front of images: which URIs, folders, addresses, bytes and pixels pass. No OCR, no network."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.errors import ToolError
from orchestrator.settings import Settings, load_settings
from workers.ocr.decode import decode
from workers.ocr.images import DATA, bundled_images, checked_address, fetch, is_public, load_image, short


def settings(**values: object) -> Settings:
    return load_settings(_env_file=None, **values)


def png(width: int = 40, height: int = 30, *, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, "PNG")
    return out.getvalue()


def refused(uri: str, made: Settings) -> ToolError:
    with pytest.raises(ToolError) as caught:
        load_image(uri, made)
    assert caught.value.path == "image_uri"
    assert caught.value.next
    return caught.value


def test_every_bundled_image_is_small_and_loads() -> None:
    assert len(bundled_images()) >= 8
    for name in bundled_images():
        assert (DATA / f"{name}.png").stat().st_size < 60 * 1024, name
        assert load_image(f"bundled:{name}", settings()).mode == "RGB"


def test_a_data_uri_is_decoded() -> None:
    body = base64.b64encode(png()).decode()
    assert load_image(f"data:image/png;base64,{body}", settings()).size == (40, 30)


@pytest.mark.parametrize("uri", ["ftp://x/y.png", "", "data:image/png;base64", "data:;base64,???", "file:x.png", "http://"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    assert refused(uri, settings()).code == "bad_uri"


@pytest.mark.parametrize("uri", ["bundled:nothing", "bundled:../engine", "bundled:../../../etc/passwd"])
def test_there_are_only_the_bundled_names(uri: str) -> None:
    error = refused(uri, settings())
    assert error.code == "not_found"
    assert "grocery" in (error.next or "")


def test_a_file_in_an_allowed_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(png())
    assert load_image(f"file://{tmp_path}/a%20b.png", settings(file_roots=(tmp_path,))).size == (40, 30)


def test_paths_do_not_escape_the_allowed_folders(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.png"
    root.mkdir()
    secret.write_bytes(png())
    (root / "link.png").symlink_to(secret)
    sibling = tmp_path / "root2"
    sibling.mkdir()
    (sibling / "x.png").write_bytes(png())
    made = settings(file_roots=(root,))
    for path in (
        f"{root}/../secret.png",
        f"{root}/%2e%2e/secret.png",
        f"{root}/link.png",
        str(secret),
        "/etc/passwd",
        f"{sibling}/x.png",
    ):
        assert refused(f"file://{path}", made).code == "forbidden", path
    assert refused(f"file://{secret}", settings()).code == "forbidden"


def test_a_path_without_scheme_is_a_file_beneath_an_allowed_folder(tmp_path: Path) -> None:
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts" / "x y%20.png").write_bytes(png())
    made = settings(file_roots=(tmp_path / "none", tmp_path))
    for path in ("./receipts/x y%20.png", "receipts/x y%20.png", f"{tmp_path}/receipts/x y%20.png"):
        assert load_image(path, made).size == (40, 30), path
    assert refused("receipts/other.png", made).code == "not_found"
    assert refused("./receipts/missing.png", settings(file_roots=(tmp_path,))).code == "not_found"


@pytest.mark.parametrize("uri", ["/etc/passwd", "../../etc/passwd", "./receipt.png", "/tmp/x.png"])
def test_a_path_outside_the_allowed_folders_is_refused(uri: str, tmp_path: Path) -> None:
    assert refused(uri, settings()).code == "forbidden"
    assert refused(uri, settings(file_roots=(tmp_path,))).code in ("forbidden", "not_found")


@pytest.mark.parametrize("name", ["missing.png", "folder"])
def test_a_file_that_is_none_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    assert refused(f"file://{tmp_path}/{name}", settings(file_roots=(tmp_path,))).code == "not_found"


def test_too_many_bytes_are_refused_wherever_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(b"x" * 2000)
    made = settings(file_roots=(tmp_path,), fetch_max_bytes=1000)
    body = base64.b64encode(b"x" * 2000).decode()
    for uri in (f"file://{tmp_path}/big.png", f"data:image/png;base64,{body}", "data:," + "x" * 5000):
        error = refused(uri, made)
        assert (error.code, error.retryable) == ("too_large", False)
        assert "TOOLWEAVER_FETCH_MAX_BYTES" in (error.next or "")


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert refused(f"file://{tmp_path}/empty.png", settings(file_roots=(tmp_path,))).code == "empty_file"


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (b"Dear all,\nthis is no picture.\n", "not_an_image", "is a text file"),
        (b"\x00\x01\x02\x03\xff\xfe", "not_an_image", "no image of a known format"),
        (b"%PDF-1.7\n\x00\xff\xfe", "corrupt_image", "damaged PDF"),
        (b"\x89PNG broken from the start", "corrupt_image", "damaged PNG"),
        (png(200, 200)[:90], "corrupt_image", "damaged PNG"),
        (b"\xff\xd8\xff\xe0 cut", "corrupt_image", "damaged JPEG"),
    ],
)
def test_bytes_that_are_no_picture_are_told_apart(data: bytes, code: str, told: str) -> None:
    with pytest.raises(ToolError, match=told) as caught:
        decode(data, "x.png")
    assert (caught.value.code, caught.value.retryable) == (code, False)


@pytest.mark.parametrize("side", [7_000, 30_000])
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_unpacked(side: int) -> None:
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    bomb = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    )
    with pytest.raises(ToolError, match="pixels") as caught:
        decode(bomb, "bomb.png")
    assert caught.value.code == "too_large"


def test_transparency_becomes_white_and_exif_turns_the_picture() -> None:
    assert decode(png(mode="RGBA"), "x").getpixel((0, 0)) == (255, 255, 255)
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.new("RGB", (40, 30)).save(out, "JPEG", exif=exif)
    assert decode(out.getvalue(), "x").size == (30, 40)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/x.png",
        "http://[::1]/x",
        "http://localhost:9/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "https://169.254.169.254/",
    ],
)
def test_private_addresses_are_refused_in_any_spelling(uri: str) -> None:
    error = refused(uri, settings())
    assert (error.code, error.retryable) == ("forbidden", False)
    assert "TOOLWEAVER_FETCH_HOSTS" in (error.next or "")


def test_a_host_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (a, 80)) for a in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr("workers.ocr.images.socket.getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ToolError, match=r"10\.0\.0\.1"):
        checked_address("two.test", 80, settings())
    assert checked_address("two.test", 80, settings(fetch_hosts=("TWO.test",))) == "8.8.8.8"


def test_messages_show_no_secrets() -> None:
    assert short("https://user:secret@example.com:8443/a.png?token=abc#x") == "https://example.com:8443/a.png"
    assert short("data:image/png;base64,AAAA") == "data:image/png;base64,..."
    assert short("https://user:secret@example.com:99999/a.png?token=abc") == "https://..."
    assert short("https://user:secret@[::1/a.png") == "https://..."
    with pytest.raises(ToolError) as caught:
        fetch("http://user:secret@127.0.0.1/x.png?token=abc", settings())
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)
