"""What a new repository may have that most have not, and what follows from it."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.settings import StratumZeroSettings, user_name
from outcrop.storage.locations import Locations
from outcrop.storage.s3_settings import S3Settings
from outcrop.storage.upstream import Upstream, parse_upstream
from outcrop.trust.signing import RepositoryKeys

STRATUM0_URL: Final = "http://127.0.0.1:8000/cvmfs/"
"""Where `outcrop serve` serves unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """Choices for a new repository.

    `upstream`: where it is stored (`None`: the usual directory); `settings_file`: the bucket of an
    `s3.conf` instead. `stratum0_url` is where it will be served, `owner` the name of the user who
    will publish (`None`: who makes it). `is_volatile` tells clients to evict its files first,
    `is_replicable` allows stratum 1 servers.
    """

    upstream: Upstream | None = None
    settings_file: Path | None = None
    stratum0_url: str = ""
    owner: str | None = None
    auto_tag_timespan: str = ""
    external_data: bool = False
    is_volatile: bool = False
    is_replicable: bool = True


def choose_upstream(locations: Locations, fqrn: str, options: CreateOptions) -> Upstream:
    """The place of the new repository. Raises PublisherSettingsError."""
    if options.settings_file is not None:
        if options.upstream is not None:
            raise PublisherSettingsError("a settings file names a place already: give one of them")
        file, temporary = options.settings_file.absolute(), locations.spool(fqrn) / "tmp"
        upstream = Upstream.by_settings_file(file, fqrn, temporary)
        if parse_upstream(str(upstream)) != upstream:
            raise PublisherSettingsError(f"{temporary}: no comma can be in the spool area's path")
        return upstream
    if options.upstream is None:
        return Upstream.local(locations.repository(fqrn))
    return options.upstream.for_repository(fqrn)


def default_url(upstream: Upstream, fqrn: str) -> str:
    """Where readers will find a repository, as far as that can be guessed."""
    if upstream.settings_file is not None:
        return f"{S3Settings.read(upstream.settings_file).bucket_url}/{upstream.prefix}"
    return STRATUM0_URL + fqrn


def find_owner(name: str | None) -> tuple[int, int] | None:
    """The ids of who is to own the files, unless that is who runs this.

    Raises PublisherSettingsError.
    """
    if name is None or name == user_name():
        return None
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        raise PublisherSettingsError(f"there is no user {name!r} on this machine") from error
    return found.pw_uid, found.pw_gid


def give_away(locations: Locations, settings: StratumZeroSettings, owner: tuple[int, int]) -> None:
    """Give the owner what publishing needs; the master key stays with who made the repository."""
    trees = [settings.spool, locations.server_config(settings.fqrn)]
    if settings.upstream.directory is not None:
        trees.append(settings.upstream.directory)
    paths = [locations.keys / f"{settings.fqrn}.{name}" for name in ("key", "crt", "pub")]
    for tree in trees:
        paths += [tree, *tree.rglob("*")]
    for path in paths:
        os.chown(path, *owner, follow_symlinks=False)


def read_keys(directory: Path, fqrn: str) -> RepositoryKeys:
    """The four keys of a repository in some directory. Raises PublisherSettingsError."""
    parts = {}
    for name in ("masterkey", "pub", "key", "crt"):
        file = directory / f"{fqrn}.{name}"
        try:
            parts[name] = file.read_bytes()
        except OSError as error:
            raise PublisherSettingsError(
                f"{file}: {error.strerror}",
                hint="all of masterkey, pub, key and crt are needed; without any, they are made",
            ) from error
    return RepositoryKeys(
        master_key_pem=parts["masterkey"],
        master_public_pem=parts["pub"],
        repository_key_pem=parts["key"],
        certificate_pem=parts["crt"],
    )
