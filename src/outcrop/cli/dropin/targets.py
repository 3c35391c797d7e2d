"""How commands that read get at a repository the original's way: by its server.conf, or a URL."""

from pathlib import Path

from outcrop.cli.dropin.call import Call
from outcrop.cli.dropin.options import Names
from outcrop.cli.dropin.repositories import choose
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.locations import Locations


def published_target(locations: Locations, fqrn: str) -> list[str]:
    """TARGET and options for a repository that is published here, wherever it is stored."""
    settings = StratumZeroSettings.read(locations, fqrn)
    directory = settings.upstream.directory
    place = str(directory) if directory is not None else settings.stratum0_url
    key = locations.keys / f"{fqrn}.pub"
    return [place, "--fqrn", fqrn, "--key", str(key), "--no-cache"]


def target_of(call: Call) -> list[str]:
    """TARGET and options for the one word a command was given: a URL, a directory or a name.

    `-k` names a directory of public keys, or one. Raises UsageError.
    """
    words = call.given.words
    if len(words) == 1 and "/" in words[0]:
        return [words[0], "--no-cache", *key_options(call.given.last("k"))]
    (fqrn,) = choose(call.locations, Names.GUESSED, words)
    return published_target(call.locations, fqrn)


def key_files(place: str | None) -> list[Path]:
    """Public keys: all of a directory, or files separated by colons."""
    if place is None:
        return []
    if Path(place).is_dir():
        return sorted(Path(place).glob("*.pub"))
    return [Path(part) for part in place.split(":")]


def key_options(place: str | None) -> list[str]:
    """The same as options of an `outcrop` command."""
    return [word for file in key_files(place) for word in ("--key", str(file))]
