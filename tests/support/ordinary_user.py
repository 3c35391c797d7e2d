"""Runs Python programs as an ordinary user who may open /dev/fuse, wherever root runs the tests.

On some machines (containers above all) only root may open the device. So the user gets one of their
own, in a mount namespace that ends with the program, and with it every mount made in it.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_USER = "daemon"
_ENTER = """
set -e
node=$(mktemp -d /var/tmp/outcrop-node-XXXXXX)
mount -t tmpfs -o dev,mode=0755 tmpfs "$node"
mknod -m 666 "$node/fuse" c 10 229
mount --bind "$node/fuse" /dev/fuse
umount -l "$node"
rmdir "$node"
exec setpriv --reuid "$1" --regid "$2" --clear-groups -- "${@:3}"
"""
_SOURCES = Path(__file__).parents[2]


@dataclass(frozen=True)
class OrdinaryUser:
    """An account, an interpreter and sources it can read, a directory it can write."""

    uid: int
    gid: int
    python: str
    home: Path

    def start(self, program: str, *arguments: str, **settings: object) -> "subprocess.Popen[str]":
        """Start a Python program; standard streams are pipes."""
        enter = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _ENTER, "bash"]
        return subprocess.Popen(
            [*enter, str(self.uid), str(self.gid), self.python, "-Pc", program, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(self.home / "sources"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(self.home),
            },
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,  # type: ignore[call-overload]
        )

    def run(
        self, program: str, *arguments: str, stdin: str = "", seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run a Python program to its end."""
        process = self.start(program, *arguments)
        try:
            output, errors = process.communicate(stdin, timeout=seconds)
        finally:
            process.kill()
            process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _interpreter(user: pwd.struct_passwd, sources: Path) -> str | None:
    """An interpreter of our version that the user can run: ours may be in root's home."""
    check = (
        "import os, sys, outcrop.fuse._engine\n"
        "print(*sys.version_info[:2], os.access(sys.executable, os.X_OK))"
    )
    wanted = [*(str(part) for part in sys.version_info[:2]), "True"]
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if python is None:
            continue
        identity = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
        done = subprocess.run(
            ["setpriv", *identity, "--", python, "-Pc", check],
            env={**os.environ, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.split() == wanted:
            return python
    return None


@contextlib.contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Make what an ordinary user needs; skips the test where that cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a device for an ordinary user")
    user = pwd.getpwnam(_USER)
    home = Path(tempfile.mkdtemp(prefix="outcrop-user-", dir="/var/tmp"))
    try:
        home.chmod(0o755)
        os.chown(home, user.pw_uid, user.pw_gid)
        sources = home / "sources"
        shutil.copytree(_SOURCES / "src" / "outcrop", sources / "outcrop")
        (sources / "tests" / "support").mkdir(parents=True)
        shutil.copy(_SOURCES / "tests" / "support" / "fuse_views.py", sources / "tests" / "support")
        python = _interpreter(user, sources)
        if python is None:
            pytest.skip("no interpreter of this version that an ordinary user can run")
        yield OrdinaryUser(user.pw_uid, user.pw_gid, python, home)
    finally:
        shutil.rmtree(home)
