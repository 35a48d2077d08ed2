"""Everything that does: worker pools, each loading only its own packages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.code.direct import CodeExecutor, CodeResult, DockerExecutor
    from workers.code.figures import ResourceError, ResourceMonitor

__all__ = ["CodeExecutor", "CodeResult", "DockerExecutor", "ResourceError", "ResourceMonitor"]

_PLACES = {
    "CodeExecutor": "workers.code.direct",
    "CodeResult": "workers.code.direct",
    "DockerExecutor": "workers.code.direct",
    "ResourceError": "workers.code.figures",
    "ResourceMonitor": "workers.code.figures",
}


def __getattr__(name: str) -> Any:
    """The public names, loaded on first use: a pool that runs no programs has no Docker."""
    if name not in _PLACES:
        raise AttributeError(f"module `workers` has no attribute `{name}`")
    try:
        return getattr(import_module(_PLACES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("docker", "requests"):
            raise
        raise ImportError(f"`{name}` needs Docker's package: run `pip install 'toolweaver[sandbox]'`") from error
