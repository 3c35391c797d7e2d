"""The measured trees: same arguments, same Python installation, same bytes.

File contents are slices of what every machine that runs this has: the Python installation's own
sources, byte code and shared libraries, and a little noise. That is what software repositories
hold, and it compresses like it (zlib-6: about 0.39).
"""

import os
import random
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_BYTES = 8 * 1024 * 1024
_STEP_BYTES = 1024 * 1024
_FAN_OUT = 8
_FIRST_MTIME = 1_700_000_000
LARGE_FILE = "large/file.bin"


@dataclass(frozen=True, slots=True)
class Scale:
    """How big a tree is; sizes are distributed exponentially around `mean_bytes`."""

    files: int
    directories: int
    mean_bytes: int
    symlinks: int = 0
    large_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree on the local disk; paths are relative to `root`, parents before children."""

    root: Path
    directories: tuple[str, ...]
    files: tuple[str, ...]
    symlinks: tuple[str, ...]
    small_bytes: int
    large_bytes: int

    @property
    def entries(self) -> int:
        """Everything `find` prints, the root included."""
        large = 1 if self.large_bytes else 0
        return 1 + len(self.directories) + len(self.files) + len(self.symlinks) + large


def build_tree(root: Path, scale: Scale, *, seed: int = 1) -> Tree:
    """Write the tree below `root`, which must not exist."""
    chance = random.Random(seed)
    samples = _Samples(chance)
    root.mkdir(parents=True)
    directories = _directories(scale)
    for path in directories:
        (root / path).mkdir()
    small_bytes = 0
    files = list(_file_names(scale, directories, chance))
    for position, path in enumerate(files):
        marker = path.endswith("/.cvmfscatalog")
        data = b"" if marker else samples.slice(1 + int(chance.expovariate(1 / scale.mean_bytes)))
        (root / path).write_bytes(data)
        os.utime(root / path, (_FIRST_MTIME + position, _FIRST_MTIME + position))
        small_bytes += len(data)
    symlinks = []
    for number in range(scale.symlinks):
        path = f"{chance.choice(directories)}/link-{number:05}"
        (root / path).symlink_to(f"target-{number:05}")
        symlinks.append(path)
    if scale.large_bytes:
        directories.append("large")
        _write_large(root / LARGE_FILE, scale.large_bytes, samples)
    return Tree(
        root, tuple(directories), tuple(files), tuple(symlinks), small_bytes, scale.large_bytes
    )


def write_list(path: Path, lines: list[str]) -> None:
    """One path per line, for the client programs and the reference server."""
    path.write_text("".join(f"{line}\n" for line in lines))


def shuffled(paths: tuple[str, ...], *, missing_every: int = 0, seed: int = 2) -> list[str]:
    """The paths in random order; every n-th replaced by one that does not exist."""
    order = list(paths)
    random.Random(seed).shuffle(order)
    if missing_every:
        for position in range(0, len(order), missing_every):
            order[position] += ".missing"
    return order


def _directories(scale: Scale) -> list[str]:
    """A tree with a fan-out of 8, breadth first."""
    paths: list[str] = []
    for number in range(scale.directories):
        parent = paths[number // _FAN_OUT - 1] + "/" if number >= _FAN_OUT else ""
        paths.append(f"{parent}package-{number:04}")
    return paths


def _file_names(scale: Scale, directories: list[str], chance: random.Random) -> Iterator[str]:
    """A nested catalog for each top directory, and the files wherever they fall."""
    tops = [path for path in directories if "/" not in path]
    for path in tops[: scale.files]:
        yield f"{path}/.cvmfscatalog"
    for number in range(scale.files - len(tops)):
        yield f"{chance.choice(directories)}/module-{number:05}.py"


def _write_large(path: Path, size: int, samples: "_Samples") -> None:
    path.parent.mkdir()
    with path.open("wb") as file:
        for start in range(0, size, _STEP_BYTES):
            file.write(samples.slice(min(_STEP_BYTES, size - start)))
    os.utime(path, (_FIRST_MTIME, _FIRST_MTIME))


class _Samples:
    """Bytes to cut slices from: (weight, sample) pairs."""

    def __init__(self, chance: random.Random) -> None:
        library = Path(sysconfig.get_path("stdlib"))
        binaries = sorted(Path(sysconfig.get_config_var("DESTSHARED") or library).glob("*.so"))
        self._chance = chance
        noise = chance.randbytes(_SAMPLE_BYTES)
        self._samples = [
            (25, _gather(sorted(library.glob("*.py"))) or noise),
            (30, _gather(sorted(library.glob("**/__pycache__/*.pyc"))) or noise),
            (40, _gather([*binaries, Path(sys.executable).resolve()]) or noise),
            (5, noise),
        ]

    def slice(self, size: int) -> bytes:
        """`size` bytes from somewhere in one of the samples, going on at its start if need be."""
        weights = [weight for weight, _ in self._samples]
        sample = self._chance.choices(self._samples, weights)[0][1]
        start = self._chance.randrange(len(sample))
        data = sample[start : start + size]
        while len(data) < size:
            data += sample[: size - len(data)]
        return data


def _gather(paths: list[Path]) -> bytes:
    data = bytearray()
    for path in paths:
        if len(data) >= _SAMPLE_BYTES:
            break
        data += path.read_bytes()
    return bytes(data[:_SAMPLE_BYTES])
