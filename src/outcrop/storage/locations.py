"""Where the tools keep things on this machine: the classic CernVM-FS paths below one root."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Locations:
    """Named places below `$OUTCROP_ROOT` (spec 32): `/` for root, a directory of one's own else.

    A value without IO: nothing is created here.
    """

    root: Path

    @property
    def config(self) -> Path:
        """Client and server parameter files."""
        return self.root / "etc/cvmfs"

    @property
    def keys(self) -> Path:
        """Public and private keys."""
        return self.config / "keys"

    def server_config(self, fqrn: str) -> Path:
        """Directory with `server.conf` of a repository published or replicated here."""
        return self.config / "repositories.d" / fqrn

    @property
    def storage(self) -> Path:
        """All repositories stored here, as the web server serves them below `/cvmfs`."""
        return self.root / "srv/cvmfs"

    def repository(self, fqrn: str) -> Path:
        """The stored files of one repository."""
        return self.storage / fqrn

    def spool(self, fqrn: str) -> Path:
        """A publisher's working directory."""
        return self.root / "var/spool/cvmfs" / fqrn

    @property
    def cache(self) -> Path:
        """The client cache shared by all mounts of this user."""
        return self.root / "var/lib/cvmfs/shared"

    @property
    def run(self) -> Path:
        """State of running mounts: one directory each."""
        return self.root / "var/lib/cvmfs/run"


def default_locations() -> Locations:
    """`$OUTCROP_ROOT`, else `/` for root and `~/.local/share/outcrop` for everybody else."""
    chosen = os.environ.get("OUTCROP_ROOT")
    if chosen:
        return Locations(Path(chosen).absolute())
    if os.geteuid() == 0:
        return Locations(Path("/"))
    return Locations(Path("~/.local/share/outcrop").expanduser())
