"""Transactions by an ordinary user: a user namespace, no /cvmfs, owners nobody can give away."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ordinary_user import OrdinaryUser, ordinary_user

pytestmark = pytest.mark.system

PROGRAM = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
from outcrop.cli.main import run

os.environ["OUTCROP_ROOT"] = os.path.join(os.environ["HOME"], "world")
for words in json.loads(sys.argv[2]):
    status = run(words)
    sys.stdout.flush()
    if status:
        sys.exit(status)
"""
FQRN = "user.example.org"
PLACE = f"/cvmfs/{FQRN}"


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as made:
        yield made


def run(user: OrdinaryUser, *commands: list[str]) -> tuple[int, str, str]:
    packages = [path for path in sys.path if path.endswith("site-packages")]
    done = user.run(PROGRAM, json.dumps(packages), json.dumps(commands))
    return done.returncode, done.stdout, done.stderr


def shell(script: str, *options: str) -> list[str]:
    return ["transaction", FQRN, "--shell", *options, "--", "sh", "-ec", f"cd {PLACE}; {script}"]


def test_a_user_changes_everything_that_can_be_changed_and_publishes_it(user: OrdinaryUser) -> None:
    status, output, errors = run(
        user,
        ["mkfs", FQRN],
        shell(
            "mkdir -p a/b c; echo 1 > a/b/f; echo 2 > c/g; ln c/g c/h; ln -s g c/l; "
            "touch a/.cvmfscatalog"
        ),
        shell(
            "mv a d; rm c/l; mkdir c/l; echo 3 > c/l/x; chmod 600 c/g; rm -r d/b; mkdir d/b; "
            "echo new > d/b/n; touch -d @1000 c/h"
        ),
        ["tree", FQRN],
        ["stat", FQRN, "/c/g"],
        ["cat", FQRN, "/c/l/x", "/d/b/n"],
        ["verify", FQRN],
    )  # fmt: skip
    assert status == 0, errors
    assert "3\nnew\n" in output
    assert "0600" in output or "-rw-------" in output
    world = Path(user.home / "world")
    assert not (world / "var/spool/cvmfs" / FQRN / "in_transaction.lock").exists()


def test_a_failing_command_of_a_user_drops_its_changes(user: OrdinaryUser) -> None:
    status, _, errors = run(user, ["mkfs", FQRN], shell("echo x > x; exit 7"))
    assert status == 7, errors
    status, output, errors = run(user, ["ls", FQRN], ["transaction", FQRN, "--status"])
    assert status == 0, errors
    assert "x\n" not in output.splitlines()
    assert "no transaction is open" in output


def test_in_place_is_for_root_and_says_so(user: OrdinaryUser) -> None:
    status, _, errors = run(user, ["mkfs", FQRN], ["transaction", FQRN])
    assert status == 8
    assert "--shell" in errors
    status, output, _ = run(user, ["transaction", FQRN, "--status"])
    assert "no transaction is open" in output
