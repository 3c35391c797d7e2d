"""All ways to publish a directory: everything that a rule must hold for is tried with each."""

import io
import os
from collections.abc import Callable
from pathlib import Path

from tests.support.overlays import publish_upper
from tests.support.stratum_zero import StratumZero
from tests.support.tars import pack

from outcrop.publisher.difflist import parse_diff_list
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.publish import PublishResult
from outcrop.publisher.tarball import publish_tarball


def by_list(world: StratumZero, source: Path) -> PublishResult:
    """Every path of the directory is in a diff list."""
    found = [os.fsencode(path.relative_to(source)) for path in source.rglob("*")]
    listed = parse_diff_list(io.BytesIO(b"\0".join(found)), is_null_separated=True)
    return world.publish(source, listed=listed)


def by_tar(world: StratumZero, source: Path) -> PublishResult:
    """The directory is packed."""
    world.now += 10
    options = PublishOptions(workers=2)
    return publish_tarball(
        world.locations,
        world.fqrn,
        archive=io.BytesIO(pack(source)),
        to=b"",
        options=options,
        now=world.now,
    )


def by_transaction(world: StratumZero, source: Path) -> PublishResult:
    """The directory is what somebody wrote in a transaction."""
    return publish_upper(world, source)


WAYS: dict[str, Callable[[StratumZero, Path], PublishResult]] = {
    "directory": lambda world, source: world.publish(source),
    "list": by_list,
    "tar": by_tar,
    "transaction": by_transaction,
}
