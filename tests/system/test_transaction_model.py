"""Random operations in transactions: what is published equals a plain directory's."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.model import SMALL_CHUNKS, DirectoryOperations
from tests.support.mounts import mount_lines, outcrop
from tests.support.stratum_zero import FQRN, StratumZero

pytestmark = pytest.mark.system

ROUNDS = 6
STEPS = 30


@pytest.fixture
def zero(tmp_path: Path) -> Iterator[StratumZero]:
    found = StratumZero(tmp_path / "world")
    found.now = int(time.time()) - 1000
    found.create()
    union = tmp_path / "union"
    found.configure(CVMFS_UNION_DIR=union, **SMALL_CHUNKS)
    plain = tmp_path / "plain"
    plain.mkdir()
    found.publish(plain)
    yield found
    for place in (union, found.spool / "rdonly"):
        while mount_lines(place):
            subprocess.run(["umount", "-l", place], check=True)


def without_links(tree: dict[bytes, tuple]) -> dict[bytes, tuple]:
    return {path: value[:-1] for path, value in tree.items()}


@pytest.mark.parametrize("seed", range(3))
def test_what_transactions_publish_equals_a_plain_directory(
    zero: StratumZero, tmp_path: Path, seed: int
) -> None:
    root = zero.locations.root
    plain = DirectoryOperations(tmp_path / "plain", seed, in_overlay=True)
    union = DirectoryOperations(tmp_path / "union", seed, in_overlay=True)
    tagged = {}
    for round_ in range(ROUNDS):
        outcrop(root, "transaction", FQRN)
        for _ in range(STEPS):
            plain.step()
            union.step()
        expected = without_links(tree_on_disk(plain.root))
        assert without_links(tree_on_disk(union.root)) == expected
        outcrop(root, "publish", FQRN, "-a", f"v{round_}")
        checker = zero.checked()
        assert without_links(tree_in_repository(checker)) == expected
        assert without_links(tree_on_disk(union.root)) == expected  # shown right away
        tagged[f"v{round_}"] = (checker.manifest["C"], expected)
    for tag, (root_hash, expected) in tagged.items():
        checker = zero.checker()
        checker.load(root_hash)
        assert without_links(tree_in_repository(checker)) == expected, tag
