"""What is compared: each candidate shows the same tree at a directory, again and again."""

import contextlib
import hashlib
import itertools
import os
import shlex
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.content import LARGE_FILE, Tree, write_list
from benchmarks.mounts import is_mounted, unmount
from benchmarks.origin import Origin
from benchmarks.sandbox import Sandbox, UnavailableError

_MOUNT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """The tree as a candidate shows it now, and the processes that do so."""

    root: Path
    servers: set[int] = field(default_factory=set)


class Candidate(ABC):
    """A way to see the tree. `show` gives a fresh mount each time, with all data local.

    Nothing is deleted while the run lasts: ext4 without a journal takes long to make files where
    others were deleted less than half a minute ago.
    """

    name: str
    has_network = False

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @abstractmethod
    def prepare(self) -> None:
        """Do once what is not measured. Raises UnavailableError."""

    @abstractmethod
    def show(self, *, cold: bool = False) -> contextlib.AbstractContextManager[Shown]:
        """Mount; `cold`: with nothing local (only where `has_network`)."""

    @property
    @abstractmethod
    def backing(self) -> Sequence[Path]:
        """Local files behind the mount, to be in the page cache before a measurement."""


class Native(Candidate):
    """The tree on ext4: an image mounted through a loop device, so that a mount can be fresh."""

    name = "native"

    def __init__(self, sandbox: Sandbox, tree: Tree) -> None:
        super().__init__(sandbox)
        self._tree = tree
        self._image = sandbox.directory / "native.img"
        self._mountpoint = sandbox.directory / "native"

    def prepare(self) -> None:
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            return
        content = self._tree.small_bytes + self._tree.large_bytes
        size = 2 * (64 * 1024 * 1024 + content + 8192 * self._tree.entries)
        command = ["mkfs.ext4", "-q", "-F", "-I", "256", "-d", str(self._tree.root)]
        try:
            with self._image.open("wb") as file:
                file.truncate(size)
            self._sandbox.run([*command, str(self._image)], timeout_seconds=300)
            self._mountpoint.mkdir()
            self._mount("loop")
            (self._mountpoint / "lost+found").rmdir()  # nobody else has one
            unmount(self._mountpoint)
        except RuntimeError:
            self._image.unlink()  # no mkfs -d, no loop devices: the directory itself, then

    @contextlib.contextmanager
    def show(self, *, cold: bool = False) -> Iterator[Shown]:
        if not self._image.exists():
            yield Shown(self._tree.root)
            return
        self._mount("ro,loop")
        try:
            yield Shown(self._mountpoint)
        finally:
            unmount(self._mountpoint)

    def _mount(self, options: str) -> None:
        command = ["mount", "-o", options, str(self._image), str(self._mountpoint)]
        self._sandbox.run(command, timeout_seconds=30)

    @property
    def backing(self) -> Sequence[Path]:
        return (self._image,) if self._image.exists() else (self._tree.root,)


class _Server(Candidate):
    """A candidate that is a command which mounts, in the foreground or going to the background."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        super().__init__(sandbox)
        self.name = name
        self._mountpoint = sandbox.directory / f"{name}.mount"
        self._log = sandbox.directory / f"{name}.log"

    @abstractmethod
    def _command(self, *, cold: bool) -> Sequence[str]:
        """The command that mounts at the mount point."""

    def _environment(self) -> dict[str, str]:
        return {}

    @contextlib.contextmanager
    def show(self, *, cold: bool = False) -> Iterator[Shown]:
        self._mountpoint.mkdir(exist_ok=True)
        others = self._sandbox.processes()
        process = self._sandbox.spawn(
            self._command(cold=cold),
            measured=True,
            log=self._log,
            environment=self._environment(),
        )
        servers: set[int] = set()
        try:
            self._wait_mounted(process)
            servers = self._sandbox.processes() - others
            yield Shown(self._mountpoint, servers)
        finally:
            unmount(self._mountpoint)
            servers |= self._sandbox.processes() - others
            self._sandbox.end(servers)
            process.wait(timeout=10)

    def _wait_mounted(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _MOUNT_SECONDS
        while not is_mounted(self._mountpoint):
            if process.poll() not in (None, 0):
                raise UnavailableError(f"{self.name} does not mount: {self._last_words()}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.name} did not mount within {_MOUNT_SECONDS:.0f} s")
            time.sleep(0.01)
        look = self._sandbox.spawn(["test", "-d", str(self._mountpoint)])
        try:
            look.wait(timeout=_MOUNT_SECONDS)  # answered only once the server serves
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{self.name} is mounted, but does not answer") from error

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace").strip()[-400:] or "it said nothing"

    def _fill(self, client: Path) -> None:
        """Have everything fetched once, so that later mounts find it local."""
        with self.show() as shown:
            self._sandbox.run([str(client), "preread", str(shown.root)], timeout_seconds=900)


class Reference(_Server):
    """`reference.c`: what a client of the classic kind does at its best."""

    def __init__(self, sandbox: Sandbox, program: Path, objects: "LocalObjects") -> None:
        super().__init__(sandbox, "reference")
        self._program = program
        self._objects = objects

    def prepare(self) -> None:
        require_fuse()

    def _command(self, *, cold: bool) -> Sequence[str]:
        objects = self._objects
        program = str(self._program)
        return [program, str(objects.listing), str(objects.directory), str(self._mountpoint)]

    @property
    def backing(self) -> Sequence[Path]:
        return (self._objects.directory,)


class Outcrop(_Server):
    """`outcrop mount` of the published tree, from a web server of its own."""

    has_network = True

    def __init__(self, sandbox: Sandbox, origin: Origin, client: Path) -> None:
        super().__init__(sandbox, "outcrop")
        self._origin = origin
        self._client = client
        self._warm = sandbox.directory / "outcrop.cache"
        self._cold = (sandbox.directory / f"outcrop.cold-{number}" for number in itertools.count())

    def prepare(self) -> None:
        require_fuse()
        self._origin.require()
        self._fill(self._client)

    def _command(self, *, cold: bool) -> Sequence[str]:
        cache = next(self._cold) if cold else self._warm
        return self._origin.mount_command(self._mountpoint, cache)

    def _environment(self) -> dict[str, str]:
        return self._origin.environment

    @property
    def backing(self) -> Sequence[Path]:
        return (self._warm,)


class Peer(_Server):
    """Any other mount command, given as text with {placeholders}."""

    has_network = True

    def __init__(
        self, sandbox: Sandbox, text: str, origin: Origin, objects: "LocalObjects", client: Path
    ) -> None:
        name, separator, command = text.partition("=")
        if not separator or not name.replace("-", "").isalnum():
            name, command = Path(shlex.split(text)[0]).name, text
        super().__init__(sandbox, name)
        self._words = shlex.split(command)
        self._origin = origin
        self._objects = objects
        self._client = client
        self._caches = sandbox.directory / f"{name}.caches"
        self._cold = (self._caches / f"cold-{number}" for number in itertools.count())
        self.has_network = "{cache}" in command or "{config}" in command

    def prepare(self) -> None:
        require_fuse()
        if any("{url}" in word or "{config}" in word for word in self._words):
            self._origin.require()
        self._caches.mkdir()
        self._fill(self._client)

    def _command(self, *, cold: bool) -> Sequence[str]:
        cache = next(self._cold) if cold else self._caches / "warm"
        cache.mkdir(exist_ok=True)
        config = self._caches / "client.conf"
        config.write_text(self._origin.client_config(cache))
        values = {
            "url": self._origin.url,
            "fqrn": self._origin.fqrn,
            "key": self._origin.key,
            "config": config,
            "cache": cache,
            "mountpoint": self._mountpoint,
            "listing": self._objects.listing,
            "objects": self._objects.directory,
        }
        return [word.format_map(values) for word in self._words]

    @property
    def backing(self) -> Sequence[Path]:
        warm = self._caches / "warm"
        return (warm,) if any(warm.iterdir()) else (self._objects.directory,)


class LocalObjects:
    """The tree as the reference wants it: a listing, and objects named by their content."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        self.directory = directory / "objects"
        self.listing = directory / "listing"
        self.directory.mkdir()
        paths = [*tree.directories, *tree.files, *tree.symlinks]
        if tree.large_bytes:
            paths.append(LARGE_FILE)
        write_list(self.listing, [self._line(tree.root, path) for path in paths])

    def _line(self, root: Path, path: str) -> str:
        local = root / path
        status = local.lstat()
        if local.is_symlink():
            kind, reference = "l", os.readlink(local)
        elif local.is_dir():
            kind, reference = "d", "-"
        else:
            kind, reference = "f", self._add(local)
        fields = (kind, f"{status.st_mode & 0o7777:o}", status.st_size, int(status.st_mtime))
        return "\t".join(map(str, (*fields, reference, path)))

    def _add(self, local: Path) -> str:
        """A hard link: same disk, no second copy."""
        with local.open("rb") as file:
            name = hashlib.file_digest(file, "sha1").hexdigest()
        target = self.directory / name[:2] / name[2:]
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            target.hardlink_to(local)
        return f"{name[:2]}/{name[2:]}"


def require_fuse() -> None:
    """Raise UnavailableError when this machine or user cannot mount with FUSE."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise UnavailableError(f"/dev/fuse cannot be opened: {error.strerror}") from error
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise UnavailableError("fusermount3 is missing, and mounting needs it when not root")
