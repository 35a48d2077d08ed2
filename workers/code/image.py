"""The image that programs run in: its files come with this package, and their hash is its version."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import tarfile
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import IO

from orchestrator.errors import BackendError
from workers.code.engine import BUILD, Engine, Image

PACKAGE = "sandbox_image"
VERSION = "toolweaver.sandbox.version"
BASE_HINT = "Where no registry is reached, make one with `ops/sandbox-base.sh`, and name it as `--base`."


def content() -> dict[str, bytes]:
    """The files of the image's folder, by name."""
    folder = importlib.resources.files(PACKAGE)
    names = sorted(f.name for f in folder.iterdir() if f.is_file() and not f.name.endswith(".pyc"))
    return {name: (folder / name).read_bytes() for name in names}


def version() -> str:
    """The version of the image that this package wants: a hash of its files."""
    digest = hashlib.sha256()
    for name, data in content().items():
        digest.update(b"%s\0%d\0" % (name.encode(), len(data)) + data)
    return digest.hexdigest()[:16]


def require_image(engine: Engine, name: str) -> Image:
    """The image that programs run in.

    Raises:
        BackendError: the engine has none of that name, or one of another version.
    """
    engine.about()
    image = engine.image(name)
    if image is None:
        raise BackendError(f"the engine has no image `{name}`", next=f"{BUILD.capitalize()}.")
    if (found := image.labels.get(VERSION)) != version():
        made = f"of version {found}" if found else "not built by this command"
        raise BackendError(f"the image `{name}` is {made}, wanted is {version()}", next=f"{BUILD.capitalize()}.")
    return image


def require_any(engine: Engine, name: str) -> Image:
    """An image of somebody else.

    Raises:
        BackendError: the engine has none of that name.
    """
    engine.about()
    if (image := engine.image(name)) is None:
        raise BackendError(f"the engine has no image `{name}`", next=f"Run `docker pull {name}`, or name one of `docker images`.")
    return image


def build(
    engine: Engine, *, tag: str, base: str, libraries: str = "", more: Mapping[str, bytes] = MappingProxyType({})
) -> Iterator[str]:
    """Builds the image; yields what the engine says. `more`: `pip.conf` and `ca.pem` for the libraries, kept out of the image.

    Raises:
        BackendError: the base cannot be had, or a step failed.
    """
    engine.about()
    arguments = {"BASE_IMAGE": base, "LIBRARIES": libraries}
    try:
        yield from engine.build(_tar(more), tag=tag, arguments=arguments, labels={VERSION: version()})
    except BackendError as error:
        if engine.image(base) is None:
            raise BackendError(f"the base image `{base}` cannot be had: {error.message}", next=BASE_HINT) from error
        raise


def _tar(more: Mapping[str, bytes]) -> IO[bytes]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in {**content(), **more}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, io.BytesIO(text))
    data.seek(0)
    return data
