"""`cvmfs_publish`: the original's newer command, whose commands are those of `cvmfs_server`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from outcrop.cli.dropin.call import Call, Tool
from outcrop.cli.dropin.options import UsageError, Verb
from outcrop.cli.dropin.repositories import use_existing_installation
from outcrop.cli.dropin.server_table import VERBS as SERVER
from outcrop.cli.dropin.swissknife import TOOL as SWISSKNIFE
from outcrop.cli.dropin.swissknife_actions import VERSION
from outcrop.cli.exit_codes import DONE
from outcrop.publisher.open_files import find_open_files


def _list_open_files(call: Call) -> int:
    """Every file that is open below a directory: `rw` if it can be written through."""
    if len(call.given.words) != 1:
        raise UsageError("one directory is needed")
    directory = Path(call.given.words[0]).resolve()
    written = {(file.pid, file.path) for file in find_open_files(directory, written_only=True)}
    paths: dict[str, str] = {}
    for file in find_open_files(directory, written_only=False):
        if (file.pid, file.path) in written or file.path not in paths:
            paths[file.path] = "rw" if (file.pid, file.path) in written else "ro"
    call.output.lines(f"{mode} {path}" for path, mode in sorted(paths.items()))
    return DONE


VERBS: Final[Mapping[str, Verb]] = {
    "mkfs": SERVER["mkfs"],
    "transaction": replace(
        SERVER["transaction"], long={"retry-timeout": "t", "template": "T", "force": "f"}
    ),
    "commit": replace(
        SERVER["publish"],
        long={"tag": "a", "message": "m", "force": "f", "verbose": "v"},
    ),
    "abort": replace(SERVER["abort"], long={"force": "f"}),
    "enter": SERVER["enter"],
    "info": SERVER["info"],
    "diff": SERVER["diff"],
    "hash": replace(
        SWISSKNIFE.verbs["hash"],
        long={"algorithm": "a", "input": "i", "fingerprint": "f", "split": "s"},
    ),
    "zpipe": replace(SWISSKNIFE.verbs["zpipe"], long={"decompress": "d"}),
    "lsof": Verb(
        summary="List the open files below a directory", words="DIR", run=_list_open_files
    ),
}

TOOL: Final = Tool(
    name="cvmfs_publish",
    title="CernVM-FS publisher",
    verbs=VERBS,
    no_command=1,
    wrong_usage=1,
    version=VERSION,
)


def run(arguments: Sequence[str]) -> int:
    """Run a command line to its end and return the exit code; errors are printed."""
    return TOOL.run(arguments)


def main() -> None:
    """Entry point of the `cvmfs_publish` script."""
    use_existing_installation()
    sys.exit(run(sys.argv[1:]))
