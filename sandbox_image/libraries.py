"""Runs while the image is built: installs what LIBRARIES names into a folder of its own, by pip. Needs no shell."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

INTO = "/opt/libraries"


def main() -> None:
    """Installs them, or ends the build with the reason."""
    os.makedirs(INTO, exist_ok=True)
    names = os.environ.get("LIBRARIES", "").split()
    if not names:
        return
    if importlib.util.find_spec("pip") is None:
        sys.exit("The base image has no pip: take one that has, or one that has the libraries already (ops/sandbox-base.sh).")
    command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-compile", "--only-binary", ":all:", "--target", INTO]
    subprocess.run([*command, *names], check=True, env={**os.environ, **_own_index()})


def _own_index() -> dict[str, str]:
    """What `pip.conf` and `ca.pem` of the build context say."""
    found = {"PIP_CONFIG_FILE": "/build/pip.conf", "PIP_CERT": "/build/ca.pem"}
    return {name: path for name, path in found.items() if os.path.exists(path)}


if __name__ == "__main__":
    main()
