"""Running the administrator's hooks around what a command does."""

from collections.abc import Iterator
from contextlib import contextmanager

from outcrop.cli.command import Session
from outcrop.cli.output import printable
from outcrop.publisher.hooks import hooks_around


@contextmanager
def hooked(
    session: Session, action: str, fqrn: str, *, is_rehearsal: bool = False
) -> Iterator[None]:
    """Run the hooks before and after `transaction`, `abort` or `publish`; none for a rehearsal.

    Raises HookFailed for those before; what those after complain of is a warning.
    """
    if is_rehearsal:
        yield
        return
    with hooks_around(session.locations, action, fqrn) as problems:
        yield
    for problem in problems:
        session.output.note(f"outcrop: warning: {printable(problem)}")
