"""Progress bars: drawn on a terminal, silent anywhere else."""

import contextlib
from collections.abc import Callable, Iterator

from outcrop.cli.output import Output, is_terminal, uses_color

Update = Callable[[str, int, int | None], None]
"""Takes what is being done, how much of it is done, and how much there is, where that is known."""


@contextlib.contextmanager
def progress_bar(output: Output) -> Iterator[Update]:
    """A function that shows how far the work is; one bar for each thing being done."""
    if output.is_json or not is_terminal():
        yield lambda phase, done, total: None
        return
    # Imported here because it takes as long as a small command, and is for terminals only.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, no_color=not uses_color())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = {}

        def update(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield update
