"""Files and folders of the machine that its owner shows to programs: checked, since some of them would give the machine away."""

from __future__ import annotations

import itertools
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.errors import RequestError
from workers.code.container import INSIDE, RUNNER, Volume

# Never shown, nor anything in them, nor what holds them: the kernel's, the engine's, running services', the machine's own settings.
KEPT = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/etc", "/var/lib/docker", "/var/lib/containerd")
OWN = (
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/run",
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    INSIDE,
    posixpath.dirname(RUNNER),
)
ELSE = "Name a folder that holds what the program needs and nothing else."


def volumes_of(given: Mapping[str, str] | None, *, writable: bool, place: Path, engine: str) -> tuple[Volume, ...]:
    """The volumes of `{host path: path inside}`.

    Args:
        writable: Whether programs may change them.
        place: The folder of our sockets, which programs never see.
        engine: The engine's address; what holds its socket is refused.

    Raises:
        RequestError: a path is relative, is not there, or would give away more than files.
    """
    kept = [*KEPT, str(place), *([engine.removeprefix("unix://")] if engine.startswith("unix://") else [])]
    made = tuple(Volume(_host(host, kept), _inside(inside), writable) for host, inside in (given or {}).items())
    targets = sorted(v.inside for v in made)
    for before, after in itertools.pairwise(targets):
        if _within(after, before):
            raise RequestError(
                f"the volumes at `{before}` and `{after}` cover each other", path="volumes", next="Move one of them."
            )
    return made


def _host(path: str | os.PathLike[str], kept: list[str]) -> str:
    text = os.fspath(path)
    if not text.startswith("/"):
        raise _refused(text, "is not absolute", "Write the whole path, such as `str(Path(name).resolve())`.")
    real = os.path.realpath(text)
    for secret in (k for name in kept for k in _both(name)):
        if _within(real, secret) or _within(secret, real):
            raise _refused(text, f"is, holds or lies in `{secret}`, which no program may see", ELSE)
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        raise _refused(text, f"cannot be had ({error.strerror})", "It must be there, on the engine's machine.") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise _refused(text, "is neither a folder nor a plain file", ELSE)
    return real


def _inside(path: str) -> str:
    text = posixpath.normpath(path)
    if not path.startswith("/") or ".." in path.split("/"):
        raise _refused(path, "is not absolute, as seen by the program", "Write it such as `/app`.")
    for own in OWN:
        if _within(text, own) or _within(own, text):
            raise _refused(path, f"covers or lies in the container's own `{own}`", "Take another one, such as `/app`.")
    return text


def _both(path: str) -> Iterator[str]:
    yield path
    if (real := os.path.realpath(path)) != path:
        yield real


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _refused(path: str, why: str, move: str) -> RequestError:
    return RequestError(f"volume `{path}` {why}", path="volumes", next=move)
