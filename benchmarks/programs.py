"""The C programs of the benchmark: built when their source is newer, into `benchmarks/build`."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sandbox import UnavailableError

_HERE = Path(__file__).resolve().parent
_BUILD = _HERE / "build"
_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libfuse3-dev", "fuse3")


def build_client() -> Path:
    """The measured client programs (plain C)."""
    return _build("client", [])


def build_reference() -> Path:
    """The reference server; needs libfuse 3's headers, which root gets installed here."""
    if not _has_libfuse():
        _install_packages()
    if not _has_libfuse():
        raise UnavailableError(f"libfuse 3 headers are missing: apt install {' '.join(_PACKAGES)}")
    flags = _output(["pkg-config", "--cflags", "--libs", "fuse3"]).split()
    return _build("reference", flags)


def _has_libfuse() -> bool:
    if shutil.which("pkg-config") is None or shutil.which("gcc") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", "fuse3 >= 3.12"], check=False).returncode == 0


def _install_packages() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *_PACKAGES]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, timeout=600)


def _build(name: str, flags: Sequence[str]) -> Path:
    source, program = _HERE / f"{name}.c", _BUILD / name
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    _BUILD.mkdir(exist_ok=True)
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise UnavailableError("no C compiler: install gcc")
    fresh = program.with_suffix(f".{os.getpid()}")
    warnings = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    _output([compiler, *warnings, str(source), "-o", str(fresh), *flags])
    fresh.rename(program)
    return program


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise UnavailableError(f"{command[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout
