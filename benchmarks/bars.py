"""What the project promises, and whether this run kept it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measuring import Sample
from benchmarks.million import Row
from benchmarks.publishing import DIRECTORY, FAST, INGEST, UNPACK, PublishSample

BASE = "reference"
SUBJECT = "outcrop"
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise: `value` (None: not measured in this run) against its limit."""

    title: str
    unit: str
    limit: float
    value: float | None
    at_least: bool = False

    @property
    def kept(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = {True: "PASS", False: "FAIL", None: "not measured"}[self.kept]
        value = "?" if self.value is None else f"{self.value:.2f}"
        return f"{verdict:12}  {self.title}: {value} {self.unit} (bar {sign} {self.limit:g})"


def cpu(sample: Sample) -> float:
    """The figure most bars are about."""
    return sample.cpu_seconds


def wall(sample: Sample) -> float:
    """Elapsed time."""
    return sample.wall_seconds


def median_of(
    samples: Sequence[Sample],
    candidate: str,
    workload: str,
    state: str,
    figure: Callable[[Sample], float],
) -> float | None:
    """A candidate's median over the rounds."""
    values = _by_round(samples, candidate, workload, state, figure).values()
    return median(values) if values else None


def ratio_of(
    samples: Sequence[Sample],
    candidate: str,
    workload: str,
    state: str,
    figure: Callable[[Sample], float],
) -> float | None:
    """Median over the rounds of the candidate's figure by the reference's of the same round.

    The reference has no network: a cold candidate is compared with the fresh reference.
    """
    own = _by_round(samples, candidate, workload, state, figure)
    base_state = "fresh" if state == "cold" else state
    base = _by_round(samples, BASE, workload, base_state, figure)
    ratios = [value / base[number] for number, value in own.items() if base.get(number)]
    return median(ratios) if ratios else None


def judge(
    samples: Sequence[Sample],
    published: Sequence[PublishSample],
    zlib_ratio: float | None,
    rows: Sequence[Row],
) -> list[Bar]:
    """All bars, in the order of the promises."""
    return [
        *_mount_bars(samples),
        *_publish_bars(published, zlib_ratio),
        *_million_bars({row.name: row for row in rows}),
        _flatness([row.microseconds_per_entry or 0.0 for row in rows if row.name == "new"]),
    ]


def _mount_bars(samples: Sequence[Sample]) -> list[Bar]:
    def ratio(workload: str, state: str, figure: Callable[[Sample], float]) -> float | None:
        return ratio_of(samples, SUBJECT, workload, state, figure)

    find, ls = ratio("find", "fresh", cpu), ratio("ls", "second", cpu)
    read, large = ratio("read", "second", cpu), ratio("sequential", "fresh", wall)
    memory = walked_memory(samples, SUBJECT)
    return [
        Bar("find with attributes, fresh mount, CPU", "of reference", 0.8, find),
        Bar("ls -lR, second pass, CPU", "of reference", 0.3, ls),
        Bar("small files, second pass, CPU", "of reference", 0.4, read),
        Bar("large file, fresh mount, wall", "of reference", 1.1, large),
        Bar("resident memory after the walks", "MiB", 60.0, memory),
    ]


def _publish_bars(published: Sequence[PublishSample], zlib_ratio: float | None) -> list[Bar]:
    def middle(candidate: str, figure: Callable[[PublishSample], float]) -> float | None:
        values = [figure(sample) for sample in published if sample.candidate == candidate]
        return median(values) if values else None

    def seconds(sample: PublishSample) -> float:
        return sample.cpu_seconds

    by_core = middle(DIRECTORY, lambda sample: sample.megabytes_per_core_second)
    by_wall = middle(DIRECTORY, lambda sample: sample.wall_seconds / sample.input_bytes * 1e9)
    stored = middle(DIRECTORY, lambda sample: sample.ratio)
    fast = _ratio(middle(FAST, seconds), middle(DIRECTORY, seconds))
    ingest = _ratio(
        middle(INGEST, lambda sample: sample.wall_seconds),
        middle(UNPACK, lambda sample: sample.wall_seconds),
    )
    return [
        Bar("publish, wall, on all cores", "s/GB", 12.0, by_wall),
        Bar("publish, per core used", "MB/s", 60.0, by_core, at_least=True),
        Bar("published size, each file", "of zlib-6's", 1.0, _ratio(stored, zlib_ratio)),
        Bar("publish with fast compression, CPU", "of balanced", 1 / 1.5, fast),
        Bar("ingest of an archive, wall", "of tar -x and publish", 1.0, ingest),
    ]


def _million_bars(rows: Mapping[str, Row]) -> list[Bar]:
    """`rows` has the largest tree for `new`: it is the last."""

    def seconds(name: str) -> float | None:
        return rows[name].cost.wall_seconds if name in rows else None

    def memory(name: str) -> float | None:
        return rows[name].cost.memory_bytes / _MEBIBYTE if name in rows else None

    unchanged = rows.get("unchanged")
    beyond = None
    if unchanged is not None and unchanged.beside_cost is not None:
        beyond = unchanged.cost.wall_seconds - 1.5 * unchanged.beside_cost.wall_seconds
    return [
        Bar("one file of all by diff list, wall", "s", 1.0, seconds("diff list")),
        Bar("one file of all by diff list, resident", "MiB", 200.0, memory("diff list")),
        Bar("one file of all by transaction, wall", "s", 1.0, seconds("transaction publish")),
        Bar("the same, resident", "MiB", 200.0, memory("transaction publish")),
        Bar("unchanged directory, wall beyond 1.5 x find -ls", "s", 5.0, beyond),
        Bar("all new, resident", "MiB", 600.0, memory("new")),
        Bar("rm of half the entries, wall", "s", 1.0, seconds("rm")),
        Bar("mv of half the entries, wall", "s", 10.0, seconds("mv")),
        Bar("clone of half the entries, wall", "s", 10.0, seconds("clone")),
        Bar("check, wall", "s", 60.0, seconds("check")),
        Bar("gc, wall", "s", 60.0, seconds("gc")),
    ]


def _flatness(per_entry: Sequence[float]) -> Bar:
    value = _ratio(max(per_entry), min(per_entry)) if len(per_entry) > 1 else None
    return Bar("new files, CPU an entry, dearest tree", "of the cheapest", 1.2, value)


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def walked_memory(samples: Sequence[Sample], candidate: str) -> float | None:
    """MiB resident in a candidate's server after `find` and `ls -lR` saw the whole tree."""
    values = [
        sample.server_memory_bytes / _MEBIBYTE
        for sample in samples
        if sample.candidate == candidate
        and sample.workload in ("find", "ls")
        and sample.state == "second"
        and sample.server_memory_bytes
    ]
    return max(values) if values else None


def _by_round(
    samples: Sequence[Sample],
    candidate: str,
    workload: str,
    state: str,
    figure: Callable[[Sample], float],
) -> dict[int, float]:
    return {
        sample.round: figure(sample)
        for sample in samples
        if (sample.candidate, sample.workload, sample.state) == (candidate, workload, state)
    }
