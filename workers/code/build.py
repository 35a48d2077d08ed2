"""Builds the image that programs run in, from the files that come with this package: `python -m workers.code.build`."""

from __future__ import annotations

import argparse
import hashlib
import importlib.resources
import io
import sys
import tarfile
from collections.abc import Iterator
from typing import IO

from orchestrator.errors import BackendError
from orchestrator.settings import Settings, load_settings
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


def build(engine: Engine, *, tag: str, base: str, libraries: str = "") -> Iterator[str]:
    """Builds the image; yields what the engine says.

    Raises:
        BackendError: the base cannot be had, or a step failed.
    """
    engine.about()
    arguments = {"BASE_IMAGE": base, "LIBRARIES": libraries}
    try:
        yield from engine.build(_tar(), tag=tag, arguments=arguments, labels={VERSION: version()})
    except BackendError as error:
        if engine.image(base) is None:
            raise BackendError(f"the base image `{base}` cannot be had: {error.message}", next=BASE_HINT) from error
        raise


def _tar() -> IO[bytes]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in content().items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, io.BytesIO(text))
    data.seek(0)
    return data


def say(line: str) -> None:
    """A line of progress, for a person."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run(settings: Settings, *, base: str, libraries: str, tag: str) -> None:
    """Builds the image and says how it goes.

    Raises:
        BackendError: it could not be built.
    """
    engine = Engine.of(settings)
    try:
        for line in build(engine, tag=tag, base=base, libraries=libraries):
            say(line)
    finally:
        engine.close()
    say(f"built {tag}, version {version()}")


def main(argv: list[str] | None = None) -> int:
    """Builds; 3 when it cannot."""
    settings = load_settings()
    parser = argparse.ArgumentParser(prog="python -m workers.code.build", description=__doc__)
    parser.add_argument("--base", default=settings.sandbox_base, help="image with Python 3.10 or newer to start from")
    parser.add_argument("--libraries", default="", help='packages to install, such as "numpy pandas"')
    parser.add_argument("--tag", default=settings.sandbox_image, help="the image's name")
    options = parser.parse_args(argv)
    try:
        run(settings, base=options.base, libraries=options.libraries, tag=options.tag)
    except BackendError as error:
        say(str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
