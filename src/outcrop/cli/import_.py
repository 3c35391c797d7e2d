"""`outcrop import`: become the stratum 0 of a repository that is stored already."""

from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.takeover import Renewal, import_repository
from outcrop.storage.upstream import parse_upstream

_RENEWALS = {
    "nothing": Renewal.NOTHING,
    "whitelist": Renewal.WHITELIST,
    "repository-key": Renewal.REPOSITORY_KEY,
    "master-key": Renewal.MASTER_KEY,
}


@click.command(
    "import",
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop import software.example.org --keys /root/keys
outcrop import software.example.org --keys /root/keys --renew whitelist
outcrop import software.example.org --storage s3://bucket/software.example.org --renew master-key
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-u", "--storage", metavar="URL", callback=checked(parse_upstream),
              help="Where it is stored.  [default: srv/cvmfs/FQRN]")  # fmt: skip
@click.option(
    "-k",
    "--keys",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Copy FQRN.pub, .crt, .key and .masterkey from here, as far as they are there.",
)
@click.option(
    "--renew",
    type=click.Choice(list(_RENEWALS)),
    default="nothing",
    show_default=True,
    help="What to make anew; each includes those before it.",
)
@click.option("-w", "--stratum0-url", metavar="URL", default="", help="Where it will be served.")
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    storage: str | None,
    keys: Path | None,
    renew: str,
    stratum0_url: str,
) -> None:
    """Become the stratum 0 of the repository FQRN, which is stored already.

    It is verified by its public key first. An expired whitelist takes --renew whitelist and the
    master key; a lost repository key --renew repository-key and the master key. With --renew
    master-key nothing but your word vouches for what is stored, and all readers need the new
    public key: run `outcrop check -i` on it first.
    """
    imported = import_repository(
        session.locations,
        fqrn,
        now=session.now,
        upstream=parse_upstream(storage) if storage is not None else None,
        keys_from=keys,
        renew=_RENEWALS[renew],
        stratum0_url=stratum0_url,
    )
    session.output.result(
        {
            "fqrn": fqrn,
            "revision": imported.revision,
            "root_hash": str(imported.root_hash),
            "public_key": str(imported.public_key),
            "renewed": renew,
        },
        f"{fqrn} is published from here now, at revision {imported.revision}\n"
        f"  public key, for its readers: {imported.public_key}",
    )
