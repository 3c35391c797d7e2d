"""`cvmfs_server`: the original's command, over what `outcrop` does."""

import sys
from collections.abc import Sequence

import outcrop
from outcrop.cli.dropin.call import Tool
from outcrop.cli.dropin.repositories import use_existing_installation
from outcrop.cli.dropin.server_table import ALIASES, VERBS

TOOL = Tool(
    name="cvmfs_server",
    title=f"CernVM-FS server tool, as outcrop {outcrop.__version__} has it",
    verbs=VERBS,
    aliases=ALIASES,
    version=f"CernVM-FS version 2.12 (outcrop {outcrop.__version__})",
)


def run(arguments: Sequence[str]) -> int:
    """Run a command line to its end and return the exit code; errors are printed."""
    return TOOL.run(arguments)


def main() -> None:
    """Entry point of the `cvmfs_server` script."""
    use_existing_installation()
    sys.exit(run(sys.argv[1:]))
