"""`cvmfs_rsync`: rsync into an open transaction, with nested catalogs left as they are.

The markers of nested catalogs are in the repository and seldom in the source. They are neither
overwritten nor deleted, but for those in directories that go as a whole.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from outcrop.cli.dropin.repositories import configured, use_existing_installation
from outcrop.cli.exit_codes import FAILED
from outcrop.cli.output import write_message
from outcrop.errors import OutcropError
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.locations import Locations, default_locations

# A perishable exclusion is ignored in directories that are being deleted.
FILTERS: Final = ("--filter=-p .cvmfscatalog", "--filter=-p .cvmfsautocatalog")
_REMOTE: Final = re.compile(r"[^/]*:")
_USAGE: Final = "cvmfs_rsync [rsync_options] srcdir /cvmfs/reponame[/destsubdir]"


def run(arguments: Sequence[str]) -> int:
    """Run rsync and return its exit code; 1 if it is not even run."""
    problem = _problem(default_locations(), arguments)
    if problem:
        write_message(f"cvmfs_rsync: {problem}")
        write_message(_USAGE)
        return FAILED
    program = shutil.which("rsync")
    if program is None:
        write_message("cvmfs_rsync: there is no rsync on this machine")
        return FAILED
    *options, source, target = arguments
    command = [program, *FILTERS, *options, source, os.path.realpath(target)]
    return subprocess.run(command, check=False).returncode


def _problem(locations: Locations, arguments: Sequence[str]) -> str:
    """Why rsync is not run; empty if it is."""
    if len(arguments) < 2:
        return "a source and a destination are needed"
    source, target = arguments[-2], Path(os.path.realpath(arguments[-1]))
    if _REMOTE.match(source):
        return "srcdir must be locally mounted, not a remote host, sorry"
    places = [Path("/cvmfs"), *_union_directories(locations)]
    if not any(place in (target, *target.parents) for place in places):
        return "destination does not begin with /cvmfs/"
    return "no reponame given" if target == Path("/cvmfs") else ""


def _union_directories(locations: Locations) -> list[Path]:
    """Where repositories are written to, if that is not below /cvmfs."""
    found = []
    for fqrn in configured(locations):
        try:
            found.append(StratumZeroSettings.read(locations, fqrn).union_directory)
        except OutcropError:
            continue  # a replica, or none of our business
    return found


def main() -> None:
    """Entry point of the `cvmfs_rsync` script."""
    use_existing_installation()
    sys.exit(run(sys.argv[1:]))
