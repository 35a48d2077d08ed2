"""Builds the image that programs run in, and checks it: `python -m workers.code.build`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import BackendError
from orchestrator.settings import Settings, load_settings
from workers.code import check
from workers.code.engine import Engine
from workers.code.image import build, version


def say(line: str) -> None:
    """A line of progress, for a person."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run(settings: Settings, *, base: str, libraries: str, tag: str, more: Mapping[str, bytes]) -> None:
    """Builds the image and says how it goes.

    Raises:
        BackendError: it could not be built.
    """
    engine = Engine.of(settings)
    try:
        for line in build(engine, tag=tag, base=base, libraries=libraries, more=more):
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
    parser.add_argument("--pip-config", type=Path, help="pip.conf that finds the packages")
    parser.add_argument("--ca-bundle", type=Path, help="PEM file of the authorities that pip trusts")
    parser.add_argument("--tag", default=settings.sandbox_image, help="the image's name")
    options = parser.parse_args(argv)
    files = {"pip.conf": options.pip_config, "ca.pem": options.ca_bundle}
    try:
        more = {name: path.read_bytes() for name, path in files.items() if path is not None}
    except OSError as error:
        parser.error(str(error))
    try:
        run(settings, base=options.base, libraries=options.libraries, tag=options.tag, more=more)
    except BackendError as error:
        say(str(error))
        return check.UNREACHABLE
    return check.show(settings.model_copy(update={"sandbox_image": options.tag}))


if __name__ == "__main__":
    sys.exit(main())
