"""aimock, a published server of the vendors' wire formats (npm, MIT): an independent check of ours and of the providers."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.mcp.lab import npm_programs

NPM = Path(__file__).parent / "npm"
_START_S = 60


@contextmanager
def aimock(fixtures: Sequence[dict[str, Any]], folder: Path) -> Iterator[str]:
    """The address `http://host:port` of a server with these fixtures, for as long as the block runs; skips without Node."""
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}))
    command = [npm_programs(NPM) / "llmock", "-p", "0", "-f", file, "--validate-on-load", "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        timer = threading.Timer(_START_S, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            said = next((line.split()[-1] for line in process.stdout if "listening on http" in line), None)
            assert said, "aimock did not start"
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield said
        finally:
            timer.cancel()
            process.kill()
