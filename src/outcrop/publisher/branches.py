"""Branches: revisions that are tagged beside the trunk. What is checked out is a file in the spool.

While a branch is checked out, publishing starts from its newest revision and ends with a tag on
it; the trunk stays what it is (spec 13). The file is upstream's: tag, root hash, branch and the
branch it came from, on one line.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.catalog import NestedCatalog
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import Branch, Tag, check_branch_name
from outcrop.publisher.errors import PublishError
from outcrop.repository.commit import Commit, NewTag, open_history
from outcrop.repository.tag_database import TagDatabase
from outcrop.trust.chain import TrustedManifest

CHECKOUT_FILE = "checkout"
_MAX_FILE_BYTES = 4096


class TagRequired(PublishError):
    """A revision of a branch is only kept by its tag, so it needs one."""


class BranchCheckedOut(PublishError):
    """Something that is about the trunk was asked for while a branch is checked out."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """The branch that is worked on; `root` is the revision it starts from, with the name `tag`.

    `parent` is the branch that revision is on (empty: the trunk).
    """

    tag: str
    root: ContentHash
    branch: str
    parent: str = ""


def read_checkout(spool: Path) -> Checkout | None:
    """What is checked out; `None` for the trunk. Raises FormatError."""
    file = spool / CHECKOUT_FILE
    try:
        with file.open("rb") as opened:
            words = opened.read(_MAX_FILE_BYTES).decode("utf-8", "replace").split()
    except FileNotFoundError:
        return None
    if len(words) not in (3, 4):
        raise FormatError(
            f"{file} does not tell what is checked out",
            hint="outcrop checkout FQRN goes back to the trunk",
        )
    parent = words[3] if len(words) == 4 else ""
    return Checkout(words[0], ContentHash.parse(words[1]), check_branch_name(words[2]), parent)


def write_checkout(spool: Path, checkout: Checkout | None) -> None:
    """Remember what is checked out; `None`: the trunk."""
    file = spool / CHECKOUT_FILE
    if checkout is None:
        with suppress(FileNotFoundError):
            file.unlink()
        return
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as out:
        words = (checkout.tag, str(checkout.root), checkout.branch, checkout.parent)
        out.write(" ".join(words).rstrip() + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def current_checkout(spool: Path, commit: Commit) -> Checkout | None:
    """What is checked out, at the newest revision of its branch.

    That may be newer than the file: whoever published it was interrupted before writing that.
    """
    checkout = read_checkout(spool)
    history = commit.base.manifest.history if commit.base is not None else None
    if checkout is None or history is None:
        return checkout
    with open_history(commit.writer, history) as tags:
        head = find_head(tags, checkout.branch)
    if head is None:
        return checkout
    return replace(checkout, tag=head.name, root=head.hash)


def find_head(history: TagDatabase, branch: str) -> Tag | None:
    """The newest revision tagged on a branch."""
    on_branch = [tag for tag in history.tags() if tag.branch == branch]
    return max(on_branch, key=lambda tag: tag.revision, default=None)


def refuse_checked_out(spool: Path, fqrn: str) -> None:
    """Raises BranchCheckedOut unless it is the trunk that is worked on."""
    checkout = read_checkout(spool)
    if checkout is not None:
        raise BranchCheckedOut(
            f"{fqrn}: the branch {checkout.branch} is checked out",
            hint=f"outcrop checkout {fqrn} goes back to the trunk",
        )


def publish_on_branch(
    commit: Commit, checkout: Checkout, root: NestedCatalog, revision: int, tag: NewTag
) -> TrustedManifest:
    """Tag a stored root catalog on the branch; the trunk is signed again with that history."""
    if commit.base is None:
        raise RuntimeError("a repository without a trunk has no branches")

    def edit(history: TagDatabase) -> None:
        history.put_branch(Branch(checkout.branch, checkout.parent, revision))
        history.put(
            Tag(
                tag.name,
                root.hash,
                root.size,
                revision,
                commit.now,
                description=tag.description,
                branch=checkout.branch,
            )
        )

    return commit.sign_edited(commit.base.manifest, edit, other_roots=[root.hash])
