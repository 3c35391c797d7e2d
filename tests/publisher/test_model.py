"""Random file-system operations, published by every way: the repository equals the directory.

`make soak` runs many more of these, for as long as one likes.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.support.model import Model

COUNT = int(os.environ.get("OUTCROP_SOAK", "10"))
FIRST_SEED = int(os.environ.get("OUTCROP_SOAK_FROM", "1"))
ROUNDS = 25


SEEDS = [
    pytest.param(FIRST_SEED + number, marks=[pytest.mark.system] if number >= 2 else [])
    for number in range(COUNT)
]
"""A taste of it is quick enough for every commit."""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_repository_follows_the_directory_by_every_way(seed: int) -> None:
    place = Path(tempfile.mkdtemp(prefix="outcrop-test-"))
    try:
        model = Model(place, seed)
        model.run(ROUNDS)
        model.compare_tags()
        assert model.steps > ROUNDS
    finally:
        shutil.rmtree(place)
