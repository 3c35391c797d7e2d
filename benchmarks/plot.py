"""A run's ratios as a picture; needs matplotlib (`pip install outcrop[bench]`)."""

from pathlib import Path

from benchmarks.bars import BASE, cpu, ratio_of
from benchmarks.report import Result

_COLOURS = ("#1b6e5a", "#b8b2a7", "#d98841", "#5b7db1", "#9b5b8f")
_STATES = {"fresh": "fresh mount", "second": "second pass"}


def draw(result: Result, path: Path) -> None:
    """Bars of client + server CPU by the reference's, for each workload; the reference is 1."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "outcrop"
    import matplotlib.pyplot as plt

    names = [name for name in ("outcrop", *result.candidates) if name in result.candidates]
    names = [name for name in dict.fromkeys(names) if name != BASE]
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    height = 0.8 / max(len(names), 1)
    for axis, (state, title) in zip(axes, _STATES.items(), strict=True):
        for position, name in enumerate(names):
            found = [
                (row, ratio_of(result.samples, name, workload.name, state, cpu))
                for row, workload in enumerate(result.workloads)
            ]
            rows = [row + position * height for row, ratio in found if ratio is not None]
            ratios = [ratio for _, ratio in found if ratio is not None]
            drawn = axis.barh(rows, ratios, height, label=name, color=_COLOURS[position % 5])
            axis.bar_label(drawn, fmt="%.2f", padding=2, fontsize=8)
        axis.axvline(1, color="#444444", linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("CPU of client + server, reference = 1", fontsize=9)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    middle = (len(names) - 1) * height / 2
    labels = [workload.title.replace(", ", "\n", 1) for workload in result.workloads]
    axes[0].set_yticks([row + middle for row in range(len(labels))], labels, fontsize=9)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
