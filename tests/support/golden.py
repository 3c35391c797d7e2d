"""The golden repositories in tests/golden/data: where they are and how to open them."""

import time
from pathlib import Path

from outcrop.repository.open import RepositorySource
from outcrop.storage.local import LocalStore
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.keys import load_public_keys

DATA = Path(__file__).parent.parent / "golden" / "data"

LISTINGS = [
    (name, tag)
    for name, tags in {
        "basic": ("", "v1.0", "v1.1", "v2.0", "v2.1"),
        "shake128": ("", "r1", "r2"),
        "uncompressed": ("", "r1", "r2"),
        "gc": ("", "r2"),
        "external": ("",),
    }.items()
    for tag in tags
]
"""Every golden repository with each tag that has a listing; no tag is the trunk."""


def directory(name: str) -> Path:
    """The folder of a golden repository."""
    return DATA / f"golden-{name}"


def fqrn(name: str) -> str:
    """Its fully qualified repository name."""
    return f"{name}.golden.test"


def public_key(name: str) -> Path:
    """Its master public key."""
    return directory(name) / f"{name}.golden.test.pub"


def listing_file(name: str, tag: str) -> Path:
    """What upstream's client shows of it."""
    return directory(name) / (f"expected-{tag}.tsv" if tag else "expected.tsv")


def source(name: str) -> RepositorySource:
    """The repository straight from its files."""
    store = LocalStore(directory(name) / "repo")
    return RepositorySource(
        fqrn(name),
        store,
        TransientOpener(store),
        load_public_keys(public_key(name).read_bytes()),
        Blacklist.parse(b""),
    )


def now() -> int:
    """Unix time: the goldens' whitelists run until 2076."""
    return int(time.time())
