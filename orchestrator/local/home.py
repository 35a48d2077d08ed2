"""The state folder: where things lie in it, who may read it, and the lock that lets one supervisor in."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from orchestrator.errors import BackendError, Conflict

SOCKET_PATH_MAX = 107  # bytes; the kernel's sun_path holds 108 with the closing NUL


class Home:
    """The layout of one state folder; made on first use, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.data = path / "redis"
        self.results = path / "results"
        self.pid_file = self.data / "server.pid"
        self.platform_file = path / "platform.json"

    def make(self) -> None:
        """Makes the folders with mode 0700.

        Raises:
            BackendError: the folder cannot be made or written.
        """
        try:
            for folder in (self.path, self.logs, self.data, self.results):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.data.chmod(0o700)  # a folder that was there before may be open to all
        except OSError as error:
            raise BackendError(
                f"the state folder `{self.path}` cannot be used: {error.strerror}",
                next="Set TOOLWEAVER_HOME to a folder that you may write.",
            ) from error

    def log(self, name: str) -> Path:
        """Where the process `name` writes."""
        return self.logs / f"{name}.log"

    @property
    def socket(self) -> Path:
        """The server's unix socket: in the home, or beneath the temp folder when the home's path is too long for a socket."""
        inside = self.path / "redis.sock"
        return inside if _fits(inside) else short_socket_folder(self.path) / "redis.sock"

    @property
    def redis_url(self) -> str:
        """The embedded server's address in the spelling of `Settings.redis_url`."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def forget_server(self) -> None:
        """Removes what a stopped server leaves beside its data: the pid file, and the folder of a short socket."""
        self.pid_file.unlink(missing_ok=True)
        if (folder := self.socket.parent) != self.path:
            self.socket.unlink(missing_ok=True)
            folder.rmdir()

    @contextmanager
    def lock(self, *, patience_s: float = 1.0) -> Iterator[None]:
        """Holds the home for one supervisor; the kernel lets go of it however that process ends.

        Raises:
            Conflict: another supervisor holds it.
        """
        descriptor = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _acquire(descriptor, self.path, until=time.monotonic() + patience_s)
            yield
        finally:
            os.close(descriptor)


def short_socket_folder(home: Path) -> Path:
    """A folder of ours with a short path, the same one for the same home.

    Raises:
        BackendError: the folder is there and belongs to somebody else.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    name = f"toolweaver-{os.getuid()}-{digest}"
    folder = next((f for t in (tempfile.gettempdir(), "/tmp") if _fits((f := Path(t) / name) / "redis.sock")), Path("/tmp") / name)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise BackendError(
            f"`{folder}` is not a private folder of yours", next="Remove it, or set TOOLWEAVER_HOME to a shorter path."
        )
    return folder


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_MAX


def _acquire(descriptor: int, home: Path, *, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise Conflict(f"a platform already runs in `{home}`", next="Use that one, or set TOOLWEAVER_HOME.") from None
            time.sleep(0.05)
