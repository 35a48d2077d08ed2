"""Whether programs can run here, and the table of walls: `python -m workers.code.check`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from orchestrator.errors import BackendError
from orchestrator.settings import Settings, load_settings
from workers.able import in_one_line
from workers.code.container import Maker, Shape
from workers.code.engine import Engine
from workers.code.image import require_image
from workers.code.inspection import Check, look, verify
from workers.code.leases import Owner, sweep

STANDS, LEAKS, UNREACHABLE = 0, 1, 3


def able(settings: Settings) -> None:
    """Makes one container and looks at it.

    Raises:
        BackendError: there is no engine, no image, or a wall does not stand; programs cannot run here.
    """
    asyncio.run(_inspected(settings, strict=True))


def table(settings: Settings) -> list[Check]:
    """Every wall of a container made for this.

    Raises:
        BackendError: none could be made.
    """
    return asyncio.run(_inspected(settings, strict=False))


async def _inspected(settings: Settings, *, strict: bool) -> list[Check]:
    engine = Engine.of(settings)
    owner = Owner.of(settings, engine.host)
    try:
        image = await engine.run(require_image, engine, settings.sandbox_image)
        await engine.run(owner.begin)
        await engine.run(sweep, engine, owner.place)
        container = await Maker(engine, owner, image.id, settings.sandbox_lease_s).make(Shape.of(None))
        try:
            return await (verify(container) if strict else look(container))
        finally:
            await container.remove()
    finally:
        await asyncio.to_thread(engine.close)
        await asyncio.to_thread(owner.end)


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 0 when all walls stand, 1 when one does not, 3 when there is no container to look at."""
    parser = argparse.ArgumentParser(prog="python -m workers.code.check", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--brief", action="store_true", help="print one line, and that only when programs cannot run here")
    options = parser.parse_args(argv)
    return _short(load_settings()) if options.brief else show(load_settings(), as_json=options.json)


def _short(settings: Settings) -> int:
    try:
        able(settings)
    except BackendError as error:
        print_line(in_one_line(error))
        return UNREACHABLE
    return STANDS


def show(settings: Settings, *, as_json: bool = False) -> int:
    """Prints the table, and how many walls stand on stderr."""
    try:
        checks = table(settings)
    except BackendError as error:
        sys.stderr.write(f"{error}\n")
        return UNREACHABLE
    print_line(json.dumps([asdict(c) for c in checks], indent=2) if as_json else "\n".join(map(line, checks)))
    bad = sum(not c.ok for c in checks)
    sys.stderr.write(f"{bad} of {len(checks)} walls do not stand\n" if bad else f"all {len(checks)} walls stand\n")
    return LEAKS if bad else STANDS


def line(check: Check) -> str:
    """A check as a line of the table."""
    wanted = "" if check.ok else f"  (wanted {check.wanted})"
    return f"{'ok  ' if check.ok else 'FAIL'}  {check.flag:34}  {check.found}{wanted}"


def print_line(text: str) -> None:
    """A line of data."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
