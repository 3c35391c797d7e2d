"""cvmfs_server masterkeycard on a software token: the master key goes there, and cron goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

FQRN = "card.example.org"
LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"


class Machine:
    """A stratum 0 with a card reader; each command is a process: a library knows its card once."""

    def __init__(self, place: Path) -> None:
        self.keys = place / "world/etc/cvmfs/keys"
        settings = place / "softhsm2.conf"
        (place / "tokens").mkdir()
        settings.write_text(f"directories.tokendir = {place}/tokens\nobjectstore.backend = file\n")
        self._environment = {
            **os.environ,
            "OUTCROP_ROOT": str(place / "world"),
            "SOFTHSM2_CONF": str(settings),
            "CVMFS_MASTERKEYCARD_LIBRARY": LIBRARY,
            "CVMFS_MASTERKEYCARD_LABEL": "card",
        }

    def insert_card(self) -> None:
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "card", "--pin", "123456",
             "--so-pin", "123456"],
            env=self._environment, check=True, capture_output=True,
        )  # fmt: skip

    def run(self, *words: str, answer: str = "", code: int = 0) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", "from outcrop.cli.dropin.server import main; main()", *words],
            env=self._environment, input=answer, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.run("mkfs", FQRN)
    return made


def test_the_master_key_moves_to_a_card_and_whitelists_are_signed_by_it(machine: Machine) -> None:
    machine.run("masterkeycard", "-a", code=1)
    machine.insert_card()
    assert "is available" in machine.run("masterkeycard", "-a")
    machine.run("masterkeycard", "-k", code=1)
    machine.run("masterkeycard", "-c", "-f", FQRN, code=1)
    machine.run("masterkeycard", "-s", FQRN)
    assert "key is available" in machine.run("masterkeycard", "-k")
    public = (machine.keys / f"{FQRN}.pub").read_text()
    assert machine.run("masterkeycard", "-r").strip() == public.strip()
    key = machine.keys / f"{FQRN}.masterkey"
    machine.run("masterkeycard", "-c", FQRN, answer="n\n", code=1)
    assert key.exists()
    machine.run("masterkeycard", "-c", FQRN, answer="y\n")
    assert not key.exists()
    assert "Whitelist is valid for another 6 days" in machine.run("info")
    machine.run("resign", "-d", "20", "*")
    assert "Whitelist is valid for another 19 days" in machine.run("info")
    machine.run("check")
    machine.run("masterkeycard", "-d", answer="y\n")
    machine.run("resign", code=1)


def test_one_action_at_a_time(machine: Machine) -> None:
    machine.run("masterkeycard", "-a", "-k", code=3)
    machine.run("masterkeycard", code=3)
