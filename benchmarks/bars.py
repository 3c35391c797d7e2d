"""What the project promises, and whether this run kept it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measuring import Sample
from benchmarks.publishing import PublishSample

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
        verdict = {True: "pass", False: "FAIL", None: "not measured"}[self.kept]
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
) -> list[Bar]:
    """All bars, in the order of the promise."""

    def ratio(workload: str, state: str, figure: Callable[[Sample], float]) -> float | None:
        return ratio_of(samples, SUBJECT, workload, state, figure)

    by_core = [p.megabytes_per_core_second for p in published if p.candidate == SUBJECT]
    stored = [p.ratio for p in published if p.candidate == SUBJECT]
    compression = median(stored) / zlib_ratio if stored and zlib_ratio else None
    memory = walked_memory(samples, SUBJECT)
    return [
        Bar(
            "find with attributes, fresh mount, CPU",
            "of reference",
            0.8,
            ratio("find", "fresh", cpu),
        ),
        Bar("ls -lR, second pass, CPU", "of reference", 0.3, ratio("ls", "second", cpu)),
        Bar("small files, second pass, CPU", "of reference", 0.4, ratio("read", "second", cpu)),
        Bar(
            "large file, fresh mount, wall", "of reference", 1.1, ratio("sequential", "fresh", wall)
        ),
        Bar("resident memory after the walks", "MiB", 60.0, memory),
        Bar(
            "publish, per core used",
            "MB/s",
            60.0,
            median(by_core) if by_core else None,
            at_least=True,
        ),
        Bar("published size, each file", "of zlib-6's", 1.0, compression),
    ]


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
