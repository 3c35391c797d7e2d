"""The command line: what to measure at which scale, and where the result goes."""

import argparse
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from benchmarks.bars import judge
from benchmarks.candidates import Candidate, LocalObjects, Native, Outcrop, Peer, Reference
from benchmarks.content import Scale, Tree, build_tree
from benchmarks.measuring import Meter, Plan
from benchmarks.million import make_place, measure_million
from benchmarks.origin import Origin, outcrop_program
from benchmarks.plot import draw
from benchmarks.programs import build_client, build_reference
from benchmarks.publishing import measure_publishing, zlib_ratio
from benchmarks.report import Result, to_json, to_markdown
from benchmarks.sandbox import Sandbox, UnavailableError
from benchmarks.workloads import make_workloads

_HERE = Path(__file__).resolve().parent
_MOUNT_WORKLOADS = ("find", "ls", "names", "stat", "read", "sequential")
_SECTIONS = (*_MOUNT_WORKLOADS, "publish", "million")
_CANDIDATES = ("native", "reference", "outcrop")
_MOUNT_MEAN_BYTES = 4 * 1024
_PUBLISH_MEAN_BYTES = 25_000


@dataclass(frozen=True, slots=True)
class Size:
    """What `--quick` and the full run differ in."""

    files: int
    large_bytes: int
    rounds: int
    cold_rounds: int
    publish_rounds: int
    entries: tuple[int, ...]


_FULL = Size(
    files=40_000,
    large_bytes=500_000_000,
    rounds=5,
    cold_rounds=1,
    publish_rounds=3,
    entries=(10_000, 100_000, 1_000_000),
)
_QUICK = Size(
    files=8_000,
    large_bytes=100_000_000,
    rounds=2,
    cold_rounds=1,
    publish_rounds=1,
    entries=(10_000, 100_000),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured, whatever came out; 1: nothing was, or with `--strict` a bar broken."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    status = _Status()
    try:
        with Sandbox(options.workdir.resolve()) as sandbox:
            result = _run(options, sandbox, status)
            status.end()
            _write(result, options.save)
            status("removing what was written")
    except KeyboardInterrupt:
        status.end()
        print("interrupted; everything is unmounted and removed", file=sys.stderr)
        return 130
    status.end()
    missed = any(bar.kept is False for bar in result.bars)
    return 1 if (options.strict and missed) or not result.is_something else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the size or less, under 4 minutes"
    )
    parser.add_argument("--rounds", type=int, help="measure each this often (5; quick: 2)")
    parser.add_argument("--files", type=int, help="files in the trees (40,000; quick: 8,000)")
    parser.add_argument("--dirs", type=int, help="directories (a twentieth of the files)")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(_SECTIONS),
        help=f"comma-separated out of {','.join(_SECTIONS)}",
    )
    parser.add_argument(
        "--candidates",
        type=lambda text: text.split(","),
        default=list(_CANDIDATES),
        help=f"comma-separated out of {','.join(_CANDIDATES)}",
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="[NAME=]COMMAND",
        help="another command that mounts at {mountpoint}; also {url} {fqrn} {key} {cache} "
        "{config} (a CVMFS parameter file) {listing} {objects}; may be given again",
    )
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds, for each run")
    parser.add_argument(
        "--workdir", type=Path, default=Path("/var/tmp"), help="a local disk with 12 GB free"
    )
    parser.add_argument("--save", action="store_true", help="keep the result as RESULTS.md")
    parser.add_argument("--strict", action="store_true", help="fail when a bar is not kept")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Status:
    """One line that says what is measured now; on a terminal it is overwritten."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._overwrites = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        line = f"{minutes:2}:{seconds:02}  {text}"
        print(
            f"\r\x1b[K{line}" if self._overwrites else line,
            end="" if self._overwrites else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if self._overwrites:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _run(options: argparse.Namespace, sandbox: Sandbox, status: _Status) -> Result:
    size = _QUICK if options.quick else _FULL
    files = options.files or size.files
    directories = options.dirs or max(files // 20, 1)
    rounds = options.rounds or size.rounds
    notes = [] if os.geteuid() == 0 else ["not root: usual priority, native is no fresh mount"]
    result = Result(_title(files, directories, rounds), [], [], notes=notes)
    if set(options.only) & set(_MOUNT_WORKLOADS):
        scale = Scale(
            files,
            directories,
            _MOUNT_MEAN_BYTES,
            files // 80,
            size.large_bytes if "sequential" in options.only else 0,
        )
        plan = Plan(rounds, min(size.cold_rounds, rounds), options.timeout)
        _measure_mounts(options, sandbox, scale, plan, result, status)
    if "publish" in options.only:
        scale = Scale(files, directories, _PUBLISH_MEAN_BYTES, files // 80)
        _measure_publishing(sandbox, scale, min(size.publish_rounds, rounds), result, status)
    if "million" in options.only:
        _measure_million(sandbox, size.entries, result, status)
    result.bars = judge(result.samples, result.published, result.zlib_ratio, result.rows)
    return result


def _title(files: int, directories: int, rounds: int) -> str:
    return (
        f"Trees of {files:,} files in {directories:,} directories; medians of {rounds} rounds. "
        "Mounts: client and server on one CPU; cells: wall s / CPU s of client + server (ratios "
        "to the reference)"
    )


def _measure_mounts(
    options: argparse.Namespace,
    sandbox: Sandbox,
    scale: Scale,
    plan: Plan,
    result: Result,
    status: _Status,
) -> None:
    status("writing the tree")
    tree = build_tree(sandbox.directory / "tree", scale)
    client = build_client()
    candidates = list(_prepare(options, sandbox, tree, client, result.notes, status))
    workloads = make_workloads(tree, client, sandbox.directory)
    result.workloads = [workload for workload in workloads if workload.name in options.only]
    result.candidates = [candidate.name for candidate in candidates]
    sandbox.keep_off_measured_cpu()
    meter = Meter(sandbox, client, plan)
    result.samples.extend(meter.measure(candidates, result.workloads, status))
    result.notes += [f"{name} failed at {why}" for name, why in meter.failures.items()]
    sandbox.use_every_cpu()


def _prepare(
    options: argparse.Namespace,
    sandbox: Sandbox,
    tree: Tree,
    client: Path,
    notes: list[str],
    status: _Status,
) -> Iterator[Candidate]:
    """Candidates that can be measured here; why others cannot goes into the notes."""
    objects = LocalObjects(tree, sandbox.directory)
    origin = Origin(sandbox, outcrop_program())
    if "outcrop" in options.candidates or options.peer:
        status("publishing the tree")
        origin.start(tree)
    makers: dict[str, Callable[[], Candidate]] = {
        "native": lambda: Native(sandbox, tree),
        "reference": lambda: Reference(sandbox, build_reference(), objects),
        "outcrop": lambda: Outcrop(sandbox, origin, client),
    }
    wanted = [(name, make) for name, make in makers.items() if name in options.candidates]
    wanted += [
        (text, partial(Peer, sandbox, text, origin, objects, client)) for text in options.peer
    ]
    for name, make in wanted:
        status(f"preparing {name}")
        try:
            candidate = make()
            candidate.prepare()
        except (UnavailableError, RuntimeError) as error:
            notes.append(f"{name} is not measured: {error}")
        else:
            yield candidate


def _measure_publishing(
    sandbox: Sandbox, scale: Scale, rounds: int, result: Result, status: _Status
) -> None:
    status("writing the tree to publish")
    tree = build_tree(sandbox.directory / "source", scale)
    try:
        result.zlib_ratio = zlib_ratio(tree)
        for sample in measure_publishing(sandbox, outcrop_program(), tree, rounds, status):
            result.published.append(sample)
    except UnavailableError as error:
        result.notes.append(f"publish is not measured: {error}")


def _measure_million(
    sandbox: Sandbox, sizes: tuple[int, ...], result: Result, status: _Status
) -> None:
    place, note = make_place(sandbox, sizes[-1])
    result.notes.append(note)
    try:
        for row in measure_million(sandbox, outcrop_program(), place, sizes, status):
            result.rows.append(row)
    except (UnavailableError, RuntimeError, OSError) as error:
        said = str(error).splitlines()[-1]
        result.notes.append(f"many entries: not measured to the end: {said}")


def _write(result: Result, save: bool) -> None:
    """Print; keep in results/; with `save` also where the repository keeps the last full run."""
    text = to_markdown(result)
    print(text)
    directory = _HERE / "results"
    directory.mkdir(exist_ok=True)
    (directory / "latest.md").write_text(text)
    (directory / "latest.json").write_text(to_json(result))
    plots = [directory / "latest.svg"]
    if save:
        picture = "![CPU against the reference](results.svg)"
        (_HERE / "RESULTS.md").write_text(f"# Last full run\n\n{picture}\n\n{text}")
        plots.append(_HERE / "results.svg")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: pip install matplotlib", file=sys.stderr)
    elif result.samples:
        for path in plots:
            draw(result, path)
