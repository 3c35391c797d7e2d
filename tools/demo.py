"""`make demo`: publish a real tree, serve it, mount it, run a program from it, show what it cost.

Everything is done by the `outcrop` command, in a temporary directory that is removed at the end,
also after Ctrl-C, which has an effect only where it is looked for: while one waits, never between
the start of something and the note that it has to be ended. What the server saw is read from its
access log.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich.console import Console
from rich.markup import escape

FQRN = "python.example.org"
CANNOT_MOUNT = 8
OUTCROP = (sys.executable, "-c", "from outcrop.cli.main import main; main()")
GREETING = "hello from revision"
PROGRAM = """\
import csv, decimal, json, sqlite3, statistics, zoneinfo
print("json is", json.__file__)
print("standard deviation of the first squares:", statistics.stdev(n * n for n in range(10)))
"""

console = Console(highlight=False)


class Interrupts:
    """Ctrl-C, a termination or a hangup: kept until it can be acted on, and then but once."""

    def __init__(self) -> None:
        self.came = False
        self.is_welcome = False

    def expect(self) -> None:
        """Begin. What whoever started us wants ignored (nohup) stays so."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        self.came = True
        self.act()

    def act(self) -> None:
        """Raise KeyboardInterrupt, if there is reason and this is the place."""
        if self.came and self.is_welcome:
            self.is_welcome = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def welcome(self) -> Iterator[None]:
        """Inside the `with` an interrupt raises KeyboardInterrupt; so does one that came before."""
        try:
            self.is_welcome = True
            self.act()
            yield
        finally:
            self.is_welcome = False


interrupts = Interrupts()


@dataclass(frozen=True)
class Cost:
    """What the server was asked for, so far or during a step."""

    requests: int
    sent_bytes: int

    def since(self, before: "Cost") -> str:
        """What was asked for since `before`, in words."""
        requests = self.requests - before.requests
        if requests == 0:
            return "no request to the server"
        return f"{requests} requests, {(self.sent_bytes - before.sent_bytes) / 1e6:.2f} MB"


class Demo:
    """The demonstration, in a directory of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tree = place / "tree"
        self.access_log = place / "access.log"
        self.environment = os.environ | {"OUTCROP_ROOT": str(place / "world")}
        self.url = ""
        self.key = f"{FQRN}.pub"

    # Steps

    def publish_first(self) -> None:
        """Make a repository and publish the library of this Python into it."""
        heading("Publish a real tree: the standard library of this Python")
        with interrupts.welcome():
            library = collect_library(self.tree)
            self.greet(1)
            files = sum(1 for path in self.tree.rglob("*") if path.is_file())
            size = sum(path.stat().st_size for path in self.tree.rglob("*") if path.is_file())
        say(f"{library}: {files} files, {size / 1e6:.0f} MB, copied to {self.tree}")
        show(["cd", str(self.place)])
        show(["export", "OUTCROP_ROOT=$PWD/world"])
        self.outcrop("mkfs", FQRN)
        # A file changed within the last two seconds would not be believed unchanged next time.
        with interrupts.welcome():
            time.sleep(2.1)
        started = time.monotonic()
        self.outcrop("publish", FQRN, "--from", "tree", "--tag", "first")
        seconds = time.monotonic() - started
        stored = sum(f.stat().st_size for f in (self.place / "world/srv").rglob("*") if f.is_file())
        cost(f"{seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s; stored as {stored / 1e6:.0f} MB")

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """The web server runs inside the `with`."""
        heading("Serve it on loopback, as any web server could")
        command = ["serve", FQRN, "--port", "0"]
        show(["outcrop", *command])
        with (
            self.access_log.open("wb") as log,
            subprocess.Popen(
                [*OUTCROP, *command, "--json", "--log-level", "info"],
                env=self.environment, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            ) as server,
        ):  # fmt: skip
            try:
                with interrupts.welcome():
                    self.url = f"{read_json(server.stdout)['url']}/{FQRN}"
                say(self.url)
                yield
            finally:
                server.terminate()

    @contextlib.contextmanager
    def mounted(self) -> Iterator[bool]:
        """Inside the `with` the repository is mounted, unless this machine cannot (False)."""
        heading("Mount it, as any other machine would")
        show(["cp", f"world/etc/cvmfs/keys/{self.key}", "."])
        shutil.copy(self.place / "world/etc/cvmfs/keys" / self.key, self.place)
        (self.place / "mnt").mkdir()
        before, started = self.cost(), time.monotonic()
        mount = ("mount", self.url, "mnt", "--key", self.key)
        ended = self.run(*mount, "--json", is_interruptible=False)
        if ended.returncode == CANNOT_MOUNT:
            error = json.loads(ended.stderr)
            say(f"no mount here: {error['error']}. The same without one:", style="yellow")
            yield False
            return
        check(ended)
        try:
            show(["outcrop", *mount])
            cost(f"{time.monotonic() - started:.2f} s, {self.cost().since(before)}")
            yield True
        finally:
            self.unmount()

    def unmount(self) -> None:
        """Unmount; somebody who looks around in there is an error, but does not stop us."""
        try:
            heading("Unmount")
            show(["outcrop", "umount", "mnt"])
        finally:
            ended = self.run("umount", "mnt", is_interruptible=False)
            if ended.returncode != 0:
                self.run("umount", "--lazy", "mnt", is_interruptible=False)
        check(ended)

    def run_program(self, root: Path) -> None:
        """Run a program whose library is below `root`, twice."""
        heading(f"Run a program: Python, with its library from {root.name}")
        for time_of_day in ("first run", "again"):
            before, started = self.cost(), time.monotonic()
            python = [os.path.realpath(sys.executable), "-S", "-c", PROGRAM]
            if time_of_day == "first run":
                show(
                    [
                        "env",
                        f"PYTHONHOME=$PWD/{root.name}",
                        "python3",
                        "-S",
                        "-c",
                        "'import json, sqlite3 …'",
                    ]
                )
            environment = self.environment | {
                "PYTHONHOME": str(root),
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            ended = run(python, env=environment)
            check(ended)
            if time_of_day == "first run":
                say(ended.stdout.rstrip())
            seconds = time.monotonic() - started
            cost(f"{time_of_day}: {seconds:.2f} s, {self.cost().since(before)}")

    def walk(self) -> None:
        """Name every file."""
        heading("Look at all of it")
        before, started = self.cost(), time.monotonic()
        with interrupts.welcome():
            count = sum(len(names) for _, _, names in os.walk(self.place / "mnt"))
        say(f"{count} files")
        cost(f"{time.monotonic() - started:.2f} s, {self.cost().since(before)}")

    def publish_second(self, *, is_mounted: bool) -> None:
        """Change one file, publish, and look."""
        heading("Publish a second revision and see it appear")
        self.greet(2)
        started = time.monotonic()
        self.outcrop("publish", FQRN, "--from", "tree", "--tag", "second")
        cost(f"{time.monotonic() - started:.1f} s")
        before = self.cost()
        if is_mounted:
            greeting = self.place / "mnt/greeting"
            with greeting.open() as still_open:
                self.outcrop("remount", "mnt")
                show(["cat", "mnt/greeting"])
                with interrupts.welcome():
                    seen, before_it = greeting.read_text().rstrip(), still_open.read().rstrip()
                say(seen)
                say(f"(a file that was open all the time: {before_it})")
        else:
            seen = self.outcrop("cat", self.url, "/greeting", "--key", self.key).rstrip()
        if seen != f"{GREETING} 2":
            raise SystemExit(f"the second revision did not appear: {seen!r}")
        cost(self.cost().since(before))

    def without_a_mount(self) -> None:
        """List, copy, and run from the copy."""
        self.outcrop("ls", self.url, "/", "--key", self.key)
        before, started = self.cost(), time.monotonic()
        self.outcrop("cp", self.url, "/", "copy", "--key", self.key)
        cost(f"{time.monotonic() - started:.2f} s, {self.cost().since(before)}")
        self.run_program(self.place / "copy")

    def look_around(self) -> None:
        """History, an old revision, a full check."""
        heading("Ask without a mount, and check everything")
        self.outcrop("log", self.url, "--key", self.key)
        self.outcrop("cat", self.url, "/greeting", "--tag", "first", "--key", self.key)
        self.outcrop("verify", FQRN)

    # Means

    def greet(self, revision: int) -> None:
        """Write the file that tells revisions apart."""
        (self.tree / "greeting").write_text(f"{GREETING} {revision}\n")

    def outcrop(self, *arguments: str | Path) -> str:
        """Run a command that must succeed, showing it and what it prints."""
        show(["outcrop", *arguments])
        ended = self.run(*arguments)
        check(ended)
        if ended.stdout:
            say(ended.stdout.rstrip())
        return ended.stdout

    def run(
        self, *arguments: str | Path, is_interruptible: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours, whatever comes of it."""
        command = [*OUTCROP, *map(str, arguments)]
        return run(command, cwd=self.place, env=self.environment, is_interruptible=is_interruptible)

    def cost(self) -> Cost:
        """What stands in the access log so far."""
        sizes = re.findall(rb"GET \S+ 20\d (\d+)$", self.access_log.read_bytes(), re.MULTILINE)
        return Cost(len(sizes), sum(map(int, sizes)))


def run(
    command: Sequence[str], *, is_interruptible: bool = True, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a command, whatever comes of it; an interrupt kills it.

    In a session of its own: what the terminal sends is for us alone.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **options,
    ) as process:  # fmt: skip
        try:
            with interrupts.welcome() if is_interruptible else contextlib.nullcontext():
                output, errors = process.communicate()
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def collect_library(tree: Path) -> Path:
    """Copy the standard library, without installed packages, to where Python looks for it."""
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library,
        tree / "lib" / library.name,
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "dist-packages", "config-*", "__pycache__"),
    )
    return library


def read_json(stream: IO[bytes] | None) -> dict[str, Any]:
    """The first JSON object of a stream that stays open."""
    text = b""
    for line in stream or ():
        text += line
        with contextlib.suppress(ValueError):
            value: dict[str, Any] = json.loads(text)
            return value
    raise SystemExit("the server did not start")


def check(ended: "subprocess.CompletedProcess[str]") -> None:
    """Stop the demonstration when a command failed."""
    if ended.returncode != 0:
        console.print(escape(ended.stdout + ended.stderr), style="red")
        raise SystemExit(f"{shlex.join(ended.args[3:5])} … ended with {ended.returncode}")


def heading(text: str) -> None:
    """Begin a step."""
    console.print(f"\n[bold cyan]{escape(text)}[/]")


def show(command: Sequence[str | Path]) -> None:
    """A command as one would type it."""
    console.print(f"  [bold]$ {escape(' '.join(map(str, command)))}[/]", soft_wrap=True)


def say(text: str, *, style: str = "") -> None:
    """What came of it."""
    for line in text.splitlines():
        console.print(f"  {escape(line)}", style=style, soft_wrap=True)


def cost(text: str) -> None:
    """What it cost."""
    console.print(f"  [green]→ {escape(text)}[/]", soft_wrap=True)


def main() -> int:
    """Run the demonstration; 0 when everything worked."""
    interrupts.expect()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="outcrop-demo-", ignore_cleanup_errors=True) as place:
        demo = Demo(Path(place))
        try:
            demo.publish_first()
            with demo.served(), demo.mounted() as is_mounted:
                if is_mounted:
                    demo.run_program(demo.place / "mnt")
                    demo.walk()
                else:
                    demo.without_a_mount()
                demo.publish_second(is_mounted=is_mounted)
                demo.look_around()
        except KeyboardInterrupt:
            console.print("\ninterrupted; everything is cleaned up", style="yellow")
            return 130
    console.print(f"\n[bold green]Done[/] in {time.monotonic() - started:.0f} s, nothing is left.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
