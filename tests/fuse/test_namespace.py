"""Commands that alone see mounts: as root in a mount namespace, as anybody in a user namespace."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.support.ordinary_user import OrdinaryUser, ordinary_user

from outcrop.fuse import keeper, namespace
from outcrop.fuse.errors import CommandNotFound, MountpointUnusable, NamespaceUnavailable

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
from outcrop.errors import OutcropError
from outcrop.fuse.engine import Engine
from outcrop.fuse.namespace import run_in_namespace
from tests.support.fuse_views import DictView, directory_row, file_row

def serve(index, fd):
    view = DictView({
        b"": [file_row(b"f", b"number %d\\n" % index), directory_row(b"d")],
        b"/d": [file_row(b"stuck", b"x")],
    })
    if FAIL:
        view.failures[b"/d"] = KeyboardInterrupt()
    with Engine(view, fd) as engine:
        engine.serve()

FAIL = False
MOUNTS = [("/cvmfs/one.example.org", "one"), ("/cvmfs/two.example.org", "two")]
#MORE
try:
    sys.exit(run_in_namespace(MOUNTS, sys.argv[1:], serve=serve))
except OutcropError as error:
    print(f"{type(error).__name__}: {error} ({error.hint})", file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Runner(Protocol):
    uid: int
    home: Path

    def start(self, program: str, *arguments: str) -> "subprocess.Popen[str]": ...

    def run(
        self, program: str, *arguments: str, stdin: str = "", seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]": ...


class Root:
    """Runs programs as the root we are."""

    uid = 0

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self, program: str, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-Pc", program, *arguments],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    run = OrdinaryUser.run


@pytest.fixture(scope="module", params=["root", "user"])
def runner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runner]:
    if request.param == "root":
        if os.geteuid() != 0:
            pytest.skip("not root")
        yield Root(tmp_path_factory.mktemp("home"))  # type: ignore[misc]
    else:
        with ordinary_user() as user:
            yield user


@contextlib.contextmanager
def running(
    runner: Runner, *arguments: str, program: str = PROGRAM
) -> Iterator["subprocess.Popen[str]"]:
    process = runner.start(program, *arguments)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.system
def test_the_command_sees_what_the_host_does_not_even_have(runner: Runner) -> None:
    script = "cat /cvmfs/*/f; id -u; pwd; echo $VARIABLE; exit 7"
    done = runner.run("import os; os.environ['VARIABLE'] = 'kept'\n" + PROGRAM, "sh", "-c", script)
    assert done.stderr == ""
    assert done.stdout == f"number 0\nnumber 1\n{runner.uid}\n{runner.home}\nkept\n"
    assert done.returncode == 7
    assert not Path("/cvmfs/one.example.org").exists()


@pytest.mark.system
def test_the_command_reads_our_standard_input(runner: Runner) -> None:
    assert runner.run(PROGRAM, "tr", "a-z", "A-Z", stdin="shout").stdout == "SHOUT"


@pytest.mark.system
def test_the_command_gets_the_descriptors_a_shell_opened_for_it(runner: Runner) -> None:
    opened = "import os\nos.dup2(os.open('/etc/hostname', os.O_RDONLY), 7)\n"
    script = "cat <&7; ls /proc/self/fd | wc -l"
    done = runner.run(opened + PROGRAM, "sh", "-c", script)
    assert done.stdout == Path("/etc/hostname").read_text() + "5\n"


@pytest.mark.system
def test_a_command_may_be_very_long(runner: Runner) -> None:
    program = "import sys\nsys.argv += ['%06d' % number for number in range(100000)]\n" + PROGRAM
    done = runner.run(program, "sh", "-c", "echo $# ${100}")
    assert done.stdout == "99999 000100\n"


@pytest.mark.system
def test_the_rest_of_the_host_looks_as_it_does(runner: Runner) -> None:
    script = (
        "for name in /*; do case $name in /cvmfs) ;; *) stat -c '%F %n %d:%i' $name/.; esac; done;"
        "ls -la /dev/null /proc/self/exe /tmp/. | wc -l; touch /made-here 2>&1"
    )
    inside = runner.run(PROGRAM, "sh", "-c", script).stdout.splitlines()
    outside = subprocess.run(
        ["sh", "-c", script.partition("touch")[0]], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    assert "Read-only file system" in inside[-1]
    listed = [line for line in outside if "directory" in line and " /dev/" not in line]
    missing = [line for line in listed if line not in inside]
    # a directory that may not be searched cannot be looked at from its inside
    assert [line for line in missing if os.stat(line.split()[1]).st_mode & 0o005 == 0o005] == []


@pytest.mark.system
@pytest.mark.parametrize(
    ("script", "status"), [("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)]
)
def test_how_the_command_ends_is_the_exit_status(runner: Runner, script: str, status: int) -> None:
    assert runner.run(PROGRAM, "sh", "-c", script).returncode == status


@pytest.mark.system
def test_a_command_that_cannot_be_run_is_told_so(runner: Runner) -> None:
    done = runner.run(PROGRAM, "no-such-command")
    assert done.returncode == 127
    assert "CommandNotFound: cannot run no-such-command: no such file" in done.stderr
    done = runner.run(PROGRAM, "/etc/passwd")
    assert done.returncode == 126
    assert "CommandNotExecutable: cannot run /etc/passwd: permission denied" in done.stderr


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_us_is_passed_on(runner: Runner, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 42' {name}; echo ready; while :; do sleep 0.05; done"
    with running(runner, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == 42
        assert process.stdout.readline() == "got\n"


@pytest.mark.system
def test_pipes_break_as_they_do_everywhere(runner: Runner) -> None:
    done = runner.run(PROGRAM, "bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}")
    assert done.stdout == "y\n141\n"


@pytest.mark.system
def test_what_the_command_leaves_running_does_not_hold_it_up(runner: Runner) -> None:
    script = "(cd /cvmfs/one.example.org; sleep 2; ls d) >/dev/null 2>&1 </dev/null & exit 3"
    started = time.monotonic()
    done = runner.run(PROGRAM, "sh", "-c", script)
    assert done.returncode == 3
    assert time.monotonic() - started < 1.9


@pytest.mark.system
def test_a_server_that_fails_ends_the_command(runner: Runner) -> None:
    program = PROGRAM.replace("FAIL = False", "FAIL = True")
    script = "cat /cvmfs/one.example.org/d/stuck; echo gone on; exec sleep 30"
    started = time.monotonic()
    done = runner.run(program, "sh", "-c", script)
    assert "KeyboardInterrupt" in done.stderr
    assert time.monotonic() - started < 10


@pytest.mark.system
def test_the_command_does_not_outlive_us(runner: Runner) -> None:
    with running(runner, "sh", "-c", "echo $$; exec sleep 60") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.system
def test_a_directory_that_exists_keeps_its_other_entries(runner: Runner) -> None:
    program = PROGRAM.replace("#MORE", "MOUNTS = [(sys.argv.pop(1), 'one')]")
    shelf = runner.home / "shelf"
    shelf.mkdir(exist_ok=True)
    (shelf / "book").write_text("a book")
    (shelf / "box").mkdir(exist_ok=True)
    (shelf / "box" / "thing").write_text("a thing")
    if not (shelf / "link").is_symlink():
        (shelf / "link").symlink_to("box/thing")
    script = "cd shelf; cat new/deep/f book box/thing link; ls"
    done = runner.run(program, f"{shelf}/new/deep", "sh", "-c", script)
    assert done.stdout == "number 0\na booka thinga thingbook\nbox\nlink\nnew\n", done.stderr
    assert not (shelf / "new").exists()


@pytest.mark.system
def test_a_directory_that_exists_is_mounted_on(runner: Runner) -> None:
    program = PROGRAM.replace("#MORE", "MOUNTS = [(sys.argv.pop(1), 'one')]")
    place = runner.home / "place"
    place.mkdir(exist_ok=True)
    (place / "hidden").touch()
    assert runner.run(program, str(place), "ls", str(place)).stdout == "d\nf\n"
    assert os.listdir(place) == ["hidden"]


@pytest.mark.system
def test_a_missing_device_is_told(runner: Runner) -> None:
    program = PROGRAM.replace("#MORE", "MOUNTS = [('/dev/null/x', 'one')]")
    done = runner.run(program, "true")
    assert done.returncode == 8
    assert "MountpointUnusable: cannot make the mount points /dev/null/x" in done.stderr


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "limit of user namespaces"), (errno.EPERM, "forbids it")]
)
def test_a_kernel_that_refuses_namespaces_is_told_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(keeper.linux, "unshare", refuse)
    monkeypatch.setattr(Path, "read_text", lambda _: "unknown")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NamespaceUnavailable, match="cannot make a user namespace") as caught:
        keeper.enter_namespace()
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    def read(path: Path) -> str:
        return value if str(path).endswith(name) else "neither\n"

    monkeypatch.setattr(Path, "read_text", read)
    assert advice in keeper._namespace_hint(errno.EPERM)


def test_errors_come_out_of_the_namespace_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(namespace._ERRORS) >= {
        error.__name__ for error in (CommandNotFound, MountpointUnusable, NamespaceUnavailable)
    }


@pytest.mark.system
def test_control_c_on_the_terminal_reaches_the_command_once(runner: Runner) -> None:
    command = "trap 'count=$((count+1))' INT; echo ready; i=0\n"
    command += "while [ $i -lt 40 ]; do sleep 0.05; i=$((i+1)); done; echo count $count; exit 5"
    # script(1) gives the program a terminal of its own, as a login does. Its shell must not stay in
    # between: one that got the signal too may end by it, whatever the program's exit status is.
    wrapper = (
        "import os, shlex, sys\n"
        "inner = shlex.join([sys.executable, '-Pc', sys.argv[1], 'sh', '-c', sys.argv[2]])\n"
        "os.execvp('script', ['script', '-qec', f'exec {inner}', '/dev/null'])\n"
    )
    process = runner.start(wrapper, PROGRAM, command)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        process.stdin.write("\x03")
        process.stdin.flush()
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert "count 1" in output
    assert process.returncode == 5
