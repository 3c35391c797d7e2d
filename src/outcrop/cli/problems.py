"""How checks show what they found."""

from collections.abc import Sequence

from outcrop.cli.output import printable
from outcrop.repository.check import CheckResult
from outcrop.repository.check_catalog import Problem


def problem_lines(problems: Sequence[Problem], more: int) -> list[str]:
    """One line for each problem; the last one tells how many others there are."""
    lines = [printable(f"{problem}") for problem in problems]
    return [*lines, f"… and {more} more"] if more else lines


def verdict(problems: Sequence[Problem], more: int) -> str:
    """How many problems there are."""
    count = len(problems) + more
    return "1 problem" if count == 1 else f"{count or 'no'} problems"


def check_text(result: CheckResult) -> str:
    """All problems, one per line, and what was checked."""
    return "\n".join(
        (
            *problem_lines(result.problems, result.more_problems),
            f"{result.fqrn} revision {result.revision}: {result.catalogs} catalogs, "
            f"{result.entries} entries, {result.objects} objects, "
            f"{verdict(result.problems, result.more_problems)}",
        )
    )
