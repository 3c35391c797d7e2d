"""`outcrop mkfs`: make a new, empty repository."""

from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.output import printable
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import HashAlgorithm
from outcrop.publisher.create import CreatedRepository, create_repository
from outcrop.publisher.create_options import CreateOptions, read_keys
from outcrop.publisher.server_info import update_server_info
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.upstream import parse_upstream


@click.command(
    cls=Command,
    exits=(5, 6, 7, 9),
    examples="""
outcrop mkfs software.example.org
outcrop mkfs software.example.org --hash shake128 --gc --ttl 60
outcrop mkfs software.example.org -s /etc/cvmfs/s3.conf
outcrop mkfs software.example.org --storage s3://bucket/ --url https://cdn.example.org/software
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-a", "--hash", "algorithm", type=click.Choice(["sha1", "rmd160", "shake128"]),
              default="sha1", show_default=True,
              help="Names of objects are made with it.")  # fmt: skip
@click.option("-Z", "--compression", type=click.Choice(["balanced", "fast", "zlib", "none"]),
              default="balanced", show_default=True,
              help="All but none are one format; zlib makes CernVM-FS's very bytes.")  # fmt: skip
@click.option("-z", "--gc/--no-gc", "collectable", default=False, show_default=True,
              help="Whether unused objects may be deleted later.")  # fmt: skip
@click.option("--ttl", type=click.IntRange(min=1), default=240, show_default=True,
              metavar="SECONDS", help="How soon clients look for a new revision.")  # fmt: skip
@click.option("--auto-tag/--no-auto-tag", " /-g", "auto_tag", default=None,
              help="Name every revision generic-TIME.  [default: only with -G]")  # fmt: skip
@click.option("-G", "--auto-tag-timespan", "timespan", metavar="TIME",
              help="Drop such names when they are older, for example '4 weeks ago'.")  # fmt: skip
@click.option("-u", "--storage", "upstream", metavar="PLACE", callback=checked(parse_upstream),
              help="Store it there: s3://BUCKET, gs://, az://, file:///DIRECTORY, or as "
              "CVMFS_UPSTREAM_STORAGE has it.  [default: srv/cvmfs/FQRN]")  # fmt: skip
@click.option("-s", "--s3-settings", "settings_file", metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Store it in the bucket of this s3.conf.")  # fmt: skip
@click.option("-w", "--url", "stratum0_url", metavar="URL", default="",
              help="Where it will be served.")  # fmt: skip
@click.option("-k", "--keys", metavar="DIR",
              type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Take FQRN.masterkey, .pub, .key and .crt from there.")  # fmt: skip
@click.option("-o", "--owner", metavar="USER", help="Who will publish.  [default: you]")
@click.option("-v", "--volatile", is_flag=True, help="Clients evict its files before others.")
@click.option("-X", "--external", is_flag=True,
              help="Record files, but leave their data where clients find it.")  # fmt: skip
@click.option("-m", "--replicable/--not-replicable", "replicable", default=True,
              help="Whether stratum 1 servers may replicate it.  [default: yes]")  # fmt: skip
@click.option("-p", "--no-web-server", is_flag=True, hidden=True,
              help="For CernVM-FS's scripts: no web server is ever configured.")  # fmt: skip
@click.pass_obj
def command(session: Session, /, fqrn: str, **chosen: Any) -> None:
    """Make a new, empty repository named FQRN, for example software.example.org.

    Makes its keys, its signed whitelist (good for 30 days) and a first revision, below
    $OUTCROP_ROOT. Keep the master key FQRN.masterkey safe: whoever has it owns the repository.
    """
    upstream, keys = chosen["upstream"], chosen["keys"]
    auto_tag = chosen["auto_tag"]
    created = create_repository(
        session.locations,
        fqrn,
        algorithm=HashAlgorithm[chosen["algorithm"].upper()],
        compression=chosen["compression"],
        garbage_collectable=chosen["collectable"],
        ttl=chosen["ttl"],
        auto_tag=bool(chosen["timespan"]) if auto_tag is None else auto_tag,
        keys=read_keys(keys, fqrn) if keys is not None else None,
        now=session.now,
        options=CreateOptions(
            upstream=parse_upstream(upstream) if upstream is not None else None,
            settings_file=chosen["settings_file"],
            stratum0_url=chosen["stratum0_url"],
            owner=chosen["owner"],
            auto_tag_timespan=chosen["timespan"] or "",
            external_data=chosen["external"],
            is_volatile=chosen["volatile"],
            is_replicable=chosen["replicable"],
        ),
    )
    update_server_info(session.locations)
    _report(session, created)


def _report(session: Session, created: CreatedRepository) -> None:
    settings = StratumZeroSettings.read(session.locations, created.fqrn)
    directory = settings.upstream.directory
    place = str(directory or settings.upstream)
    session.output.result(
        {
            "fqrn": created.fqrn,
            "public_key": str(created.public_key),
            "root_hash": str(created.root_hash),
            "directory": str(directory) if directory is not None else None,
            "storage": place,
            "url": settings.stratum0_url,
        },
        f"{created.fqrn} is ready\n"
        f"  public key, for its readers: {created.public_key}\n"
        f"  stored in: {printable(place)}\n"
        f"next: outcrop publish {created.fqrn} --from DIR",
    )
