"""`outcrop mkfs`: make a new, empty repository."""

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import HashAlgorithm
from outcrop.publisher.create import create_repository


@click.command(
    cls=Command,
    exits=(5, 6, 7, 9),
    examples="""
outcrop mkfs software.example.org
outcrop mkfs software.example.org --hash shake128 --no-gc --ttl 60
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option(
    "-a",
    "--hash",
    "algorithm",
    type=click.Choice(["sha1", "rmd160", "shake128"]),
    default="sha1",
    show_default=True,
    help="Names of objects are made with it.",
)
@click.option(
    "-Z",
    "--compression",
    type=click.Choice(["balanced", "fast", "zlib", "none"]),
    default="balanced",
    show_default=True,
    help="All but none are one format; zlib makes CernVM-FS's very bytes.",
)
@click.option(
    "--gc/--no-gc",
    "collectable",
    default=False,
    show_default=True,
    help="Whether unused objects may be deleted later.",
)
@click.option("--ttl", type=click.IntRange(min=1), default=240, show_default=True,
              metavar="SECONDS", help="How soon clients look for a new revision.")  # fmt: skip
@click.pass_obj
def command(
    session: Session, fqrn: str, algorithm: str, compression: str, collectable: bool, ttl: int
) -> None:
    """Make a new, empty repository named FQRN, for example software.example.org.

    Makes its keys, its signed whitelist (good for 30 days) and a first revision, below
    $OUTCROP_ROOT. Keep the master key FQRN.masterkey safe: whoever has it owns the repository.
    """
    created = create_repository(
        session.locations,
        fqrn,
        algorithm=HashAlgorithm[algorithm.upper()],
        compression=compression,
        garbage_collectable=collectable,
        ttl=ttl,
        now=session.now,
    )
    session.output.result(
        {
            "fqrn": created.fqrn,
            "public_key": str(created.public_key),
            "root_hash": str(created.root_hash),
            "directory": str(session.locations.repository(fqrn)),
        },
        f"{created.fqrn} is ready\n"
        f"  public key, for its readers: {created.public_key}\n"
        f"  stored in: {session.locations.repository(fqrn)}\n"
        f"next: outcrop publish {created.fqrn} --from DIR",
    )
