"""Keys for tests, made once per session: generating RSA keys is slow."""

from functools import cache

from outcrop.trust.keys import PublicKey, load_public_keys
from outcrop.trust.signing import RepositoryKeys, generate_keys

LONG_AGO = 1_500_000_000


@cache
def repository_keys(fqrn: str = "sim.example.org") -> RepositoryKeys:
    """The right keys; the same for every repository unless one asks for its own."""
    return generate_keys(fqrn, now=LONG_AGO)


@cache
def other_keys() -> RepositoryKeys:
    """Keys of somebody else."""
    return generate_keys("other.example.org", now=LONG_AGO)


def master_keys(keys: RepositoryKeys) -> tuple[PublicKey, ...]:
    """What a client has of a repository."""
    return load_public_keys(keys.master_public_pem)
