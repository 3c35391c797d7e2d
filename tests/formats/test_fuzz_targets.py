"""Fuzz targets hold for their seeds, and for seeds damaged a little; `make fuzz` does the rest."""

import random
import warnings

import pytest
from fuzz.archive_targets import ARCHIVE_TARGETS
from fuzz.database_targets import DATABASE_TARGETS
from fuzz.targets import PURE_TARGETS, InvariantBroken, Target, require
from fuzz.trust_targets import TRUST_TARGETS

TARGETS = PURE_TARGETS | TRUST_TARGETS | DATABASE_TARGETS | ARCHIVE_TARGETS


def damaged(seed, chooser):
    """A copy with a few bytes changed and perhaps its end gone."""
    data = bytearray(seed)
    for _ in range(chooser.randrange(1, 4)):
        if data:
            data[chooser.randrange(len(data))] = chooser.randrange(256)
    return bytes(data[: chooser.randrange(len(data) + 1)] if chooser.random() < 0.3 else data)


@pytest.mark.parametrize("name", TARGETS)
def test_holds_for_seeds_and_damaged_copies(name):
    target = TARGETS[name]
    chooser = random.Random(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in target.seeds:
            target.run(seed)
            for _ in range(5 if name == "private_key" else 20):
                target.run(damaged(seed, chooser))


def test_states_its_invariant_in_one_line():
    assert all(0 < len(target.invariant) <= 90 for target in TARGETS.values())


def test_a_broken_invariant_is_an_error():
    with pytest.raises(InvariantBroken):
        require(False, "it is broken")
    assert Target("", lambda data: None).seeds
