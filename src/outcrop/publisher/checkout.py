"""Choosing the branch that is published to: an existing one, a new one, or the trunk again."""

from outcrop.formats.history import check_branch_name
from outcrop.publisher.branches import Checkout, write_checkout
from outcrop.publisher.errors import PublishError
from outcrop.publisher.session import open_session
from outcrop.repository.history import read_history
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore
from outcrop.storage.temporary import TransientOpener


class BranchNotFound(PublishError):
    """There is no such branch, and nothing to begin it from."""


class BranchExists(PublishError):
    """There is a branch of that name, which begins somewhere already."""


def check_out(
    locations: Locations,
    fqrn: str,
    *,
    branch: str | None = None,
    tag: str | None = None,
    now: int,
    store: WritableStore | None = None,
    wait_seconds: float = 0.0,
) -> Checkout | None:
    """Publish to a branch from now on; without one, to the trunk again (returns `None` then).

    With `tag` a new branch begins at that revision; without, publishing goes on at the newest
    revision of the branch. Nothing is stored until the first publish. Raises BranchNotFound,
    BranchExists, TagNotFound, FormatError.
    """
    if branch is None and tag is not None:
        raise BranchNotFound(
            f"{fqrn}: the tag {tag} alone cannot be checked out",
            hint="name the new branch that begins there with --branch",
        )
    if branch is not None:
        check_branch_name(branch)
    opened = open_session(
        locations,
        fqrn,
        now=now,
        workers=1,
        store=store,
        wait_seconds=wait_seconds,
        with_checkout=False,
    )
    with opened as session:
        history = read_history(TransientOpener(session.store), session.base.manifest.history)
        checkout = None
        if branch is not None:
            head = history.find_head(branch)
            if head is not None and tag is not None:
                raise BranchExists(
                    f"{fqrn}: the branch {branch} is there already, at the tag {head.name}",
                    hint="check it out without a tag, or choose another name",
                )
            if head is None and tag is None:
                raise BranchNotFound(
                    f"{fqrn}: there is no branch {branch}",
                    hint="say with --tag where a new one is to begin",
                )
            start = head if head is not None else history.get(tag or "")
            parent = start.branch
            if head is not None:
                parents = {known.name: known.parent for known in history.branches}
                parent = parents.get(branch) or ""
            checkout = Checkout(start.name, start.hash, branch, parent)
        write_checkout(session.settings.spool, checkout)
    return checkout
