"""Hooks: what an administrator wants run before and after a transaction, an abort, a publish.

Two kinds, in this order: the function `EVENT_hook FQRN` of `etc/cvmfs/cvmfs_server_hooks.sh`, as
`cvmfs_server` calls it, and the executables in `etc/cvmfs/hooks.d/EVENT/`, by name, with FQRN as
their argument. An event is `publish_before`, `abort_after` and so on. One that fails before
stops what it is about; one that fails after is told, and changes nothing any more.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from outcrop.publisher.errors import PublishError
from outcrop.storage.locations import Locations

ACTIONS: Final = ("transaction", "abort", "publish")
SCRIPT: Final = "cvmfs_server_hooks.sh"
DIRECTORY: Final = "hooks.d"

# The file, the function and the repository are arguments: nothing of them is read as shell.
_CALL: Final = '. "$1" || exit; if declare -F -- "$2" >/dev/null; then "$2" "$3"; fi'


class HookFailed(PublishError):
    """A hook ended with an error, or could not be run."""


@contextmanager
def hooks_around(locations: Locations, action: str, fqrn: str) -> Iterator[list[str]]:
    """Run the hooks before, then the block, then the hooks after, if the block got through.

    Gives a list that has, afterwards, what the hooks after had to complain of. What hooks print
    goes where this process prints its errors. Raises HookFailed for hooks before.
    """
    run_hooks(locations, f"{action}_before", fqrn)
    problems: list[str] = []
    yield problems
    try:
        run_hooks(locations, f"{action}_after", fqrn)
    except HookFailed as error:
        problems.append(str(error))


def run_hooks(locations: Locations, event: str, fqrn: str) -> None:
    """Run all hooks of an event (`publish_before`, …), one after the other. Raises HookFailed."""
    script = locations.config / SCRIPT
    if script.is_file():
        bash = shutil.which("bash")
        if bash is None:
            raise HookFailed(f"{script} needs bash", hint="install bash, or remove the file")
        command = [bash, "-c", _CALL, "outcrop-hook", str(script), f"{event}_hook", fqrn]
        _run(command, event, fqrn, f"{event}_hook of {script}")
    for program in _programs(locations.config / DIRECTORY / event):
        _run([str(program), fqrn], event, fqrn, str(program))


def _programs(directory: Path) -> list[Path]:
    try:
        found = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HookFailed(f"{directory}: {error.strerror}") from error
    return [path for path in found if _is_program(path)]


def _is_program(path: Path) -> bool:
    is_hidden = path.name.startswith(".") or path.name.endswith(("~", ".bak", ".orig"))
    return not is_hidden and path.is_file() and os.access(path, os.X_OK)


def _run(command: list[str], event: str, fqrn: str, name: str) -> None:
    environment = {**os.environ, "CVMFS_FQRN": fqrn, "OUTCROP_HOOK": event}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=2, env=environment, check=False
        )
    except OSError as error:
        raise HookFailed(f"{fqrn}: {name}: {error.strerror}") from error
    if done.returncode:
        how = f"exit code {done.returncode}"
        if done.returncode < 0:
            how = f"signal {-done.returncode}"
        raise HookFailed(f"{fqrn}: {name} failed: {how}", hint="what it printed is above")
