"""Starts the platform as a process of its own that ends with this one: for `demo`, and for plans run from a script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestrator.errors import BackendError
from orchestrator.models.platform import Platform

STOP_S = 20.0  # the supervisor stops its processes within 10 s; beyond this something is badly wrong


class Launched:
    """A platform of this process: it is told to stop when its standard input ends, so it ends however this process does."""

    def __init__(self, *, options: Sequence[str] = (), env: Mapping[str, str] | None = None, quiet: bool = False) -> None:
        command = (sys.executable, "-m", "orchestrator.local", "up", "--json", "--until-stdin-ends", *options)
        # A session of its own: Ctrl-C is ours to handle, and the platform stops in its own order.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )

    def wait_ready(self) -> Platform:
        """Waits until everything answers.

        Raises:
            BackendError: it did not come up; what it said is on stderr.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(STOP_S)
            raise BackendError(f"the platform did not come up (exit code {code})", next="`toolweaver doctor` looks for the cause.")
        return Platform.model_validate_json(line)

    def stop(self) -> None:
        """Stops it in order; kills it when it does not go. Safe to call twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)  # its guard ends the rest
            self._process.wait()


@contextmanager
def launched(*, options: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """A platform for as long as the block runs; an interrupt while it starts or stops leaves nothing behind."""
    platform = Launched(options=options, env=env)
    try:
        yield platform.wait_ready()
    finally:
        _stop_undisturbed(platform)


def _stop_undisturbed(platform: Launched) -> None:
    interrupts = 0
    while True:
        try:
            platform.stop()
            return
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 5:
                raise
