"""`outcrop checkout`: choose the branch that is published to."""

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.history import check_branch_name
from outcrop.publisher.checkout import check_out


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop checkout software.example.org --branch fixes-1.x --tag v1.0
outcrop publish software.example.org --from build/ --tag v1.0.1
outcrop checkout software.example.org
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-b", "--branch", metavar="NAME", callback=checked(check_branch_name),
              help="Publish to this branch from now on.")  # fmt: skip
@click.option("-t", "--tag", metavar="NAME", help="Where a new branch begins.")
@click.pass_obj
def command(session: Session, fqrn: str, branch: str | None, tag: str | None) -> None:
    """Publish to a branch of FQRN from now on; without options, to the trunk again.

    A revision of a branch is on top of the branch's newest one, needs a tag and is reached by that
    tag only: clients that follow the repository stay on the trunk.
    """
    checkout = check_out(session.locations, fqrn, branch=branch, tag=tag, now=session.now)
    if checkout is None:
        session.output.result({"fqrn": fqrn, "branch": None}, f"{fqrn} is on the trunk")
        return
    fields = {
        "fqrn": fqrn,
        "branch": checkout.branch,
        "tag": checkout.tag,
        "root_hash": str(checkout.root),
        "parent": checkout.parent,
    }
    text = f"{fqrn} is on the branch {checkout.branch}, at {checkout.tag} ({checkout.root})"
    session.output.result(fields, text)
