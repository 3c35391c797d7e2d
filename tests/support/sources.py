"""Repository sources over the simulator: with a cache directory or without."""

from pathlib import Path

from tests.support.simulator import RepositorySimulator

from outcrop.repository.open import RepositorySource
from outcrop.repository.tree import Revision
from outcrop.storage.cache import Cache
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.keys import load_public_keys


def source_of(
    sim: RepositorySimulator,
    *,
    cache_directory: Path | None = None,
    public_key: bytes | None = None,
    blacklist: bytes = b"",
    fqrn: str | None = None,
) -> RepositorySource:
    """A source that believes the simulator's master key unless another is given."""
    cache = Cache(cache_directory, quota_bytes=None) if cache_directory is not None else None
    return RepositorySource(
        fqrn or sim.fqrn,
        sim,
        cache.opener(sim) if cache is not None else TransientOpener(sim),
        load_public_keys(public_key or sim.public_key),
        Blacklist.parse(blacklist),
        cache,
    )


def trunk_of(sim: RepositorySimulator, cache_directory: Path | None = None) -> Revision:
    """The simulator's trunk, opened."""
    return source_of(sim, cache_directory=cache_directory).open_trunk(now=sim.now)


def cached_names(directory: Path) -> set[str]:
    """Objects in a cache directory, as `XX/REST`."""
    return {f"{path.parent.name}/{path.name}" for path in directory.glob("??/*") if path.is_file()}
