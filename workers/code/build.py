"""Builds the image that programs run in, and checks it: `python -m workers.code.build`."""

from __future__ import annotations

import argparse
import sys

from orchestrator.errors import BackendError
from orchestrator.settings import Settings, load_settings
from workers.code import check
from workers.code.engine import Engine
from workers.code.image import build, version


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
        return check.UNREACHABLE
    return check.show(settings.model_copy(update={"sandbox_image": options.tag}))


if __name__ == "__main__":
    sys.exit(main())
