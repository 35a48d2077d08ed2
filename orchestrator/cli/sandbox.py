"""The commands about the containers that programs run in: their image, and whether their walls stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import AsJson, register
from orchestrator.cli.platform import become
from orchestrator.errors import BackendError
from orchestrator.extras import install_command, missing_packages

EXTRA = "sandbox"

app = typer.Typer(help="The containers that programs run in.", no_args_is_help=True)


@register(app, "build", examples='toolweaver sandbox build · toolweaver sandbox build --libraries "numpy pandas"')
def build(
    base: Annotated[str | None, typer.Option(help="Image with Python 3.10 or newer to start from.")] = None,
    libraries: Annotated[str | None, typer.Option(help="Packages that programs may import, separated by spaces.")] = None,
    pip_config: Annotated[
        Path | None, typer.Option(help="pip.conf that finds the libraries; it does not get into the image.")
    ] = None,
    ca_bundle: Annotated[Path | None, typer.Option(help="PEM file of the authorities that pip trusts then.")] = None,
    tag: Annotated[str | None, typer.Option(help="The image's name; default: `sandbox_image`.")] = None,
) -> int:
    """Build the image that programs run in, then check it. Needs Docker."""
    given = {"--base": base, "--libraries": libraries, "--pip-config": pip_config, "--ca-bundle": ca_bundle, "--tag": tag}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return _become("workers.code.build", *words)


@register(app, "check")
def check(as_json: AsJson = False) -> int:
    """Check every wall of a container of that image; the exit code is 1 when one does not stand, 3 without Docker or image."""
    return _become("workers.code.check", *(("--json",) if as_json else ()))


def _become(module: str, *words: str) -> int:
    if missing := missing_packages(EXTRA):
        raise BackendError(f"{', '.join(missing)} is not installed", next=f"Run `{install_command(EXTRA)}`.")
    return become(module, *words, env={})
