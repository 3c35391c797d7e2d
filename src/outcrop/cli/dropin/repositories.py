"""Which repositories a command of the original is about: guessed, completed, by wildcard."""

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path

from outcrop.cli.dropin.options import Names, UsageError
from outcrop.errors import FormatError, OutcropError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.parameters import parse_parameters
from outcrop.repository.errors import RepositoryNotFound
from outcrop.storage.locations import Locations

_SETTINGS = ("default.conf", "default.local", "server.local")
_MAX_BYTES = 1 << 20
_ROOT = "OUTCROP_ROOT"


def use_existing_installation(root: Path = Path("/")) -> None:
    """Have an ordinary user's scripts find the repositories of the machine, if it has some.

    `outcrop` itself keeps an ordinary user's repositories below the home directory; the original
    knows one place only.
    """
    if _ROOT in os.environ or os.geteuid() == 0:
        return
    if configured(Locations(root)):
        os.environ[_ROOT] = str(root)


def configured(locations: Locations) -> list[str]:
    """The names of all repositories that are configured here."""
    directory = locations.server_config("x").parent
    if not directory.is_dir():
        return []
    return sorted(entry.name for entry in directory.iterdir() if entry.is_dir())


def choose(locations: Locations, names: Names, words: Sequence[str]) -> list[str]:
    """The repositories that are meant. Raises UsageError, RepositoryNotFound.

    What follows a slash is ignored: it is where a gateway would lock.
    """
    if names is Names.NONE:
        return []
    if not words:
        if names in (Names.ONE, Names.NEW):
            raise UsageError("Too few arguments provided")
        present = configured(locations)
        if len(present) != 1:
            raise UsageError("Please provide a repository name")
        return present
    if len(words) > 1 and names is not Names.MANY:
        raise UsageError("Too many arguments provided")
    found: dict[str, None] = {}
    for word in words:
        name = word.partition("/")[0]
        matching = fnmatch.filter(configured(locations), name) if names is Names.MANY else []
        if not matching and any(wild in name for wild in "*?["):
            raise RepositoryNotFound(f"no repository matches {word}")
        for match in matching or [complete(locations, name)]:
            if names is not Names.NEW:
                _check_configured(locations, match)
            found[match] = None
    return list(found)


def _check_configured(locations: Locations, fqrn: str) -> None:
    directory = locations.server_config(fqrn)
    if not directory.is_dir():
        raise RepositoryNotFound(
            f"The repository {fqrn} does not exist: there is no {directory}",
            hint="cvmfs_server list shows what there is",
        )


def complete(locations: Locations, name: str) -> str:
    """A name without a dot gets the default domain of this machine. Raises UsageError."""
    if "." not in name:
        domain = _default_domain(locations)
        if domain:
            name = f"{name}.{domain}"
    try:
        return check_fqrn(name)
    except FormatError as error:
        raise UsageError(str(error)) from error


def _default_domain(locations: Locations) -> str:
    """`CVMFS_DEFAULT_DOMAIN` of the client's and the server's settings; the last one counts."""
    domain = ""
    more = sorted((locations.config / "default.d").glob("*.conf"))
    names = [locations.config / name for name in _SETTINGS]
    for file in [names[0], *more, *names[1:]]:
        try:
            with file.open("rb") as opened:
                assignments = parse_parameters(opened.read(_MAX_BYTES), environment={})
        except (OSError, OutcropError):
            continue  # the client's settings may be anybody's; whoever needs them complains
        for assignment in assignments:
            if assignment.name == "CVMFS_DEFAULT_DOMAIN":
                domain = assignment.value
    return domain
