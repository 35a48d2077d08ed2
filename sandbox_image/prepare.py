"""Runs while the image is built: takes away what programs have no use for, and compiles what they import. Needs no shell."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterator

HOME = "/opt/toolweaver"
# Names in any `bin` folder; a program that breaks out of Python finds no package manager and no way to other users.
NOT_NEEDED = (
    "pip",
    "pip3",
    "su",
    "mount",
    "umount",
    "newgrp",
    "passwd",
    "chsh",
    "chfn",
    "gpasswd",
    "apt",
    "apt-get",
    "dpkg",
    "perl",
    "wget",
    "curl",
)
NOT_IMPORTED = ("test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip")
PACKAGES_NOT_NEEDED = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")


def main() -> None:
    """Prepares the root file system it runs in."""
    os.symlink(os.path.realpath(sys.executable), f"{HOME}/python3")
    os.symlink("sandbox_image/runner.py", f"{HOME}/runner.py")
    for path in _privileged():
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
    for path in _not_needed():
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    os.makedirs(f"{HOME}/libraries", exist_ok=True)
    _name_users()
    os.makedirs("/tmp", exist_ok=True)
    os.chmod("/tmp", 0o1777)  # the mounted one takes this mode over
    for folder in (sysconfig.get_path("stdlib"), *_packages(), HOME):
        compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def _name_users() -> None:
    """For bases that know no users: programs ask who they are."""
    if not os.path.exists("/etc/passwd"):
        with open("/etc/passwd", "w") as users:
            users.write("root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/tmp:/sbin/nologin\n")
    if not os.path.exists("/etc/group"):
        with open("/etc/group", "w") as groups:
            groups.write("root:x:0:\nnogroup:x:65534:\n")


def _privileged() -> Iterator[str]:
    for top in ("/usr", "/bin", "/sbin", "/lib", "/opt"):
        for folder, _, files in os.walk(top):
            for name in files:
                path = os.path.join(folder, name)
                if not os.path.islink(path) and os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
                    yield path


def _not_needed() -> Iterator[str]:
    stdlib = sysconfig.get_path("stdlib")
    wanted = [f"{folder}/{name}" for folder in _commands() for name in NOT_NEEDED]
    wanted += [f"{stdlib}/{name}" for name in NOT_IMPORTED]
    wanted += [f"{folder}/{name}" for folder in _packages() for name in PACKAGES_NOT_NEEDED]
    return (path for path in wanted if os.path.lexists(path))


def _commands() -> list[str]:
    """The folders of commands, each once: `/bin` is often a link to `/usr/bin`."""
    found = (f"{top}/{kind}" for top in ("", "/usr", "/usr/local") for kind in ("bin", "sbin"))
    return sorted({os.path.realpath(folder) for folder in found})


def _packages() -> list[str]:
    return [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages")) and os.path.isdir(folder)]


if __name__ == "__main__":
    main()
