"""A run's result as markdown and JSON."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.bars import Bar, cpu, median_of, ratio_of, walked_memory, wall
from benchmarks.measuring import STATES, Sample
from benchmarks.million import Row
from benchmarks.publishing import PublishSample
from benchmarks.workloads import Workload

_STATE_TITLES = {
    "cold": "cold (network, nothing local)",
    "fresh": "fresh mount, data local",
    "second": "second pass, same mount",
}


@dataclass(slots=True)
class Result:
    """Everything one run found."""

    title: str
    workloads: Sequence[Workload]
    candidates: Sequence[str]
    samples: list[Sample] = field(default_factory=list)
    published: list[PublishSample] = field(default_factory=list)
    zlib_ratio: float | None = None
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    @property
    def is_something(self) -> bool:
        """Whether anything was measured."""
        return bool(self.samples or self.published or self.rows)


def machine() -> str:
    """One line on what this ran on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def to_markdown(result: Result) -> str:
    """Bars, tables, notes."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    bars = [bar for bar in result.bars if bar.kept is not None]
    parts = [f"{result.title}\n\n{machine()}; {today}."]
    parts.append("\n".join(f"- **{bar}**" if bar.kept is False else f"- {bar}" for bar in bars))
    if result.samples:
        parts.append(_mount_table(result))
    if result.published:
        parts.append(_publish_table(result))
    if result.rows:
        parts.append(_million_table(result.rows))
    if result.notes:
        parts.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join(parts) + "\n"


def to_json(result: Result) -> str:
    """Every sample, for other tools."""
    return json.dumps(
        {
            "title": result.title,
            "machine": machine(),
            "finished_at": int(time.time()),
            "bars": [asdict(bar) | {"kept": bar.kept} for bar in result.bars],
            "samples": [asdict(sample) for sample in result.samples],
            "published": [asdict(sample) for sample in result.published],
            "zlib_ratio": result.zlib_ratio,
            "rows": [
                asdict(row) | {"microseconds_per_entry": row.microseconds_per_entry}
                for row in result.rows
            ],
            "notes": result.notes,
        },
        indent=1,
    )


def _mount_table(result: Result) -> str:
    rows = [["workload", "state", *result.candidates]]
    for workload in result.workloads:
        for state in STATES:
            cells = [_cell(result, name, workload.name, state) for name in result.candidates]
            if any(cells):
                rows.append([workload.title, _STATE_TITLES[state], *cells])
    memory = [walked_memory(result.samples, name) for name in result.candidates]
    cells = [f"{value:.0f} MiB" if value is not None else "" for value in memory]
    rows.append(["resident memory after the walks", "", *cells])
    return _table(rows)


def _cell(result: Result, candidate: str, workload: str, state: str) -> str:
    """`wall s / CPU s (wall ratio / CPU ratio to the reference)`."""
    key = (result.samples, candidate, workload, state)
    walls, cpus = median_of(*key, wall), median_of(*key, cpu)
    if walls is None or cpus is None:
        return ""
    ratios = (ratio_of(*key, wall), ratio_of(*key, cpu))
    text = f"{walls:.3f} / {cpus:.3f}"
    if None not in ratios and candidate != "reference":
        text += f" ({ratios[0]:.2f} / {ratios[1]:.2f})"
    return text


def _publish_table(result: Result) -> str:
    titles = ("publish", "wall s", "CPU s", "cores", "MB/s by wall", "MB/s per core", "MiB")
    rows = [[*titles, "ratio", "metadata MB"]]
    for name in dict.fromkeys(sample.candidate for sample in result.published):
        own = sorted(
            (sample for sample in result.published if sample.candidate == name),
            key=lambda sample: sample.cpu_seconds,
        )
        middle = own[len(own) // 2]
        rows.append(
            [
                name,
                f"{middle.wall_seconds:.1f}",
                f"{middle.cpu_seconds:.1f}",
                f"{middle.cpu_seconds / middle.wall_seconds:.1f}",
                f"{middle.input_bytes / 1e6 / middle.wall_seconds:.0f}",
                f"{middle.megabytes_per_core_second:.0f}",
                f"{middle.memory_bytes / 1024**2:.0f}",
                f"{middle.ratio:.4f}",
                f"{middle.metadata_bytes / 1e6:.1f}",
            ]
        )
    if result.zlib_ratio is not None:
        rows.append(["zlib-6, each file by itself", *[""] * 6, f"{result.zlib_ratio:.4f}", ""])
    return _table(rows)


def _million_table(rows: Sequence[Row]) -> str:
    titles = ("many entries", "wall s", "CPU s", "µs of CPU an entry (user)", "MiB", "beside it")
    table = [[*titles, "wall s", "wall ratio"]]
    for row in rows:
        cost, other = row.cost, row.beside_cost
        each, user = row.microseconds_per_entry, row.user_microseconds_per_entry
        table.append(
            [
                row.title,
                f"{cost.wall_seconds:.2f}",
                f"{cost.cpu_seconds:.2f}",
                "" if each is None else f"{each:.0f} ({user:.0f})",
                f"{cost.memory_bytes / 1024**2:.0f}",
                row.beside,
                f"{other.wall_seconds:.2f}" if other else "",
                f"{cost.wall_seconds / other.wall_seconds:.2f}" if other else "",
            ]
        )
    return _table(table)


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
