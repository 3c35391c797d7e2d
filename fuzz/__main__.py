"""Run the targets for a bounded time each: `python -m fuzz [--seconds N] [TARGET…]`.

Each target runs in a process of its own, guided by coverage of the package. A finding's input is
kept in the directory `--findings` and ends the run with exit code 1; `--replay FILE TARGET` runs a
target on it once more.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris  # type: ignore[import-untyped,unused-ignore]

with atheris.instrument_imports(include=["outcrop"]):
    from fuzz.archive_targets import ARCHIVE_TARGETS
    from fuzz.database_targets import DATABASE_TARGETS
    from fuzz.targets import PURE_TARGETS
    from fuzz.trust_targets import TRUST_TARGETS

TARGETS = PURE_TARGETS | TRUST_TARGETS | DATABASE_TARGETS | ARCHIVE_TARGETS
MAX_INPUT_BYTES = 4096
MAX_DATABASE_BYTES = 64 * 1024
SLOW_INPUT_SECONDS = 10
MEMORY_LIMIT_MB = 1024


def main() -> int:
    """Fuzz, replay, or (in a child process) run one target until its time is over."""
    options = parse_arguments()
    warnings.simplefilter("ignore")
    if options.replay is not None:
        (name,) = options.targets
        TARGETS[name].run(options.replay.read_bytes())
        return 0
    if options.child:
        (name,) = options.targets
        run_child(name, options.seconds, options.findings)
    broken = [
        n for n in options.targets or TARGETS if not fuzz(n, options.seconds, options.findings)
    ]
    for name in broken:
        say(f"{name}: broken; replay with: python -m fuzz --replay FILE {name}")
    return 1 if broken else 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--findings", type=Path, default=Path("fuzz/findings"))
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def fuzz(name: str, seconds: int, findings: Path) -> bool:
    """Run one target in a child process; whether its invariant held."""
    say(f"{name}: {TARGETS[name].invariant}")
    command = [sys.executable, "-m", "fuzz", "--child", "--seconds", str(seconds)]
    child = subprocess.run(
        [*command, "--findings", str(findings), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = child.stdout.decode("utf-8", "replace").splitlines()
    lines = [line for line in said if not line.startswith(("INFO", "WARNING", "#"))]
    if child.returncode == 0:
        say("    " + next((line for line in reversed(lines) if line.startswith("Done")), "done"))
        return True
    say("\n".join(lines[-60:]))
    return False


def run_child(name: str, seconds: int, findings: Path) -> None:
    """Hand over to libFuzzer, which ends the process."""
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outcrop-fuzz-") as corpus:
        for number, seed in enumerate(TARGETS[name].seeds):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        longest = max(map(len, TARGETS[name].seeds))
        limit = MAX_DATABASE_BYTES if longest > MAX_INPUT_BYTES else MAX_INPUT_BYTES
        arguments = [
            f"-max_total_time={seconds}",
            f"-max_len={limit}",
            f"-timeout={SLOW_INPUT_SECONDS}",
            f"-rss_limit_mb={MEMORY_LIMIT_MB}",
            f"-artifact_prefix={findings}/{name}-",
            corpus,
        ]
        atheris.Setup([sys.argv[0], *arguments], TARGETS[name].run)
        atheris.Fuzz()


def say(line: str) -> None:
    """Talk to the person who waits."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
