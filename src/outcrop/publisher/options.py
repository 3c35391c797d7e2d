"""How a revision is published, whatever it is made from."""

from collections.abc import Callable
from dataclasses import dataclass

Tell = Callable[[str, int, int | None], None]
"""Takes what is being done, how much of it is done, and how much there is, if that is known."""

OnChange = Callable[[str, bytes], None]
"""Takes what becomes of a path (`add`, `mod` or `rem`) and the path; of a directory that goes only
itself is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOptions:
    """What is the same for a directory, a tar stream and a transaction.

    The new revision gets `tag` with `message`, if given, and the number `revision`, which must be
    larger than the trunk's (`None`: the next one). `compression_choice` is `balanced`, `fast`,
    `zlib` or `none`; without it the repository's own applies. `base` is a revision number, a root
    hash or a tag: publishing is refused unless that is the trunk. With `dry_run` everything is
    worked out, and nothing is stored or signed. `wait_seconds` is for another publisher to finish.
    `external` makes files external data, or not; `None`: as the settings say.
    """

    tag: str | None = None
    message: str = ""
    compression_choice: str | None = None
    workers: int | None = None
    base: str | None = None
    dry_run: bool = False
    revision: int | None = None
    wait_seconds: float = 0.0
    external: bool | None = None
    on_change: OnChange | None = None


def say_nothing(_phase: str, _done: int, _total: int | None) -> None:
    """A `Tell` for those whom nobody listens to."""
