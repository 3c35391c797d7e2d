"""What some commands of `cvmfs_server` need beyond a translation: making, publishing, showing."""

import grp
import pwd
from collections.abc import Iterator

from outcrop.cli.dropin.call import Call
from outcrop.cli.dropin.options import Names, UsageError, is_confirmed, outcrop
from outcrop.cli.dropin.repositories import choose, complete
from outcrop.cli.dropin.targets import key_options, published_target, target_of
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.publisher.administration import (
    REPLICA_MARKER,
    LocalRepository,
    list_repositories,
)
from outcrop.publisher.create_options import find_owner, give_away
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.settings import CREATOR_VERSION, StratumZeroSettings
from outcrop.publisher.upkeep import StratumZeroSource
from outcrop.storage.errors import StorageError
from outcrop.trust.errors import TrustError, WhitelistExpired

_DAY_SECONDS = 86400


def mkfs(call: Call) -> int:
    """Create a repository. Automatic tags are on unless -g says otherwise."""
    (fqrn,) = call.fqrns
    if call.given.has("V"):
        raise PublisherSettingsError(
            "-V: a repository is secured after it is made",
            hint="set CVMFS_VOMS_AUTHZ in its server.conf, and publish",
        )
    if call.given.has("R"):
        raise PublisherSettingsError(
            "-R: a master key gets onto a smart card when it is there",
            hint="cvmfs_server mkfs, then masterkeycard -s and masterkeycard -c",
        )
    tagging = [] if call.given.has("g") else ["--auto-tag"]
    return outcrop("mkfs", fqrn, *tagging, *call.options())


def import_stored(call: Call) -> int:
    """Import a repository; then its owner gets it, and it is made replicable, if so asked."""
    given = call.given
    (fqrn,) = call.fqrns
    if given.has("l"):
        raise PublisherSettingsError(
            "-l: repositories of CernVM-FS 2.0 cannot be imported",
            hint="import it with cvmfs_server of CernVM-FS 2.12 first",
        )
    if given.has("R"):
        raise PublisherSettingsError(
            "-R: import it with its master key", hint="then masterkeycard -s and masterkeycard -c"
        )
    renewal = []
    if given.has("t"):
        if not given.has("r"):
            raise UsageError("using -t implies whitelist recreation (use -r maybe?)")
        renewal = ["--renew", "repository-key"]
    elif given.has("r"):
        renewal = ["--renew", "whitelist"]
    owner = find_owner(given.last("o"))
    code = outcrop("import", fqrn, *renewal, *call.options())
    if code != DONE:
        return code
    if owner is not None:
        give_away(call.locations, StratumZeroSettings.read(call.locations, fqrn), owner)
    return outcrop("alterfs", fqrn, "--replicable", "on") if given.has("m") else DONE


def publish(call: Call) -> int:
    """Publish open transactions."""
    if call.given.has("X") and call.given.has("N"):
        raise UsageError("-N and -X are mutually exclusive")
    return call.for_each(lambda fqrn: outcrop("publish", fqrn, *call.options()))


def abort(call: Call) -> int:
    """Abort transactions, once it is confirmed."""

    def abort_one(fqrn: str) -> int:
        question = (
            f"You are about to DISCARD ALL CHANGES OF THE CURRENT TRANSACTION for {fqrn}!  "
            "Are you sure"
        )
        if not call.given.has("f") and not is_confirmed(question):
            return FAILED
        return outcrop("abort", fqrn, "--force")

    return call.for_each(abort_one)


def ingest(call: Call) -> int:
    """Ingest a tarball. Paths below /cvmfs/FQRN name the repository, too."""
    given = call.given
    named = set()
    options = []
    for letter, values in given.letters.items():
        for value in values:
            if letter in "bd" and value.startswith("/cvmfs/"):
                _, _, name, *rest = value.split("/")
                named.add(name)
                value = "/".join(rest) or "/"
            options += _ingest_option(call, letter, value)
    words = [word.partition("/")[0] for word in given.words[:1]] or sorted(named)
    if len(named) > 1 or len(given.words) > 1 or not words:
        raise UsageError("Please provide one repository name")
    return outcrop("ingest", complete(call.locations, words[0]), *options)


def _ingest_option(call: Call, letter: str, value: str) -> list[str]:
    """One letter as an option; users and groups by number. Raises UsageError."""
    found = call.verb.letters[letter]
    if not found.argument:
        return [found.to]
    try:
        if letter == "u" and not value.isdecimal():
            value = str(pwd.getpwnam(value).pw_uid)
        if letter == "g" and not value.isdecimal():
            value = str(grp.getgrnam(value).gr_gid)
    except KeyError as error:
        raise UsageError(f"there is no user or group {value}") from error
    return [found.to, value]


def enter(call: Call) -> int:
    """A shell in which the repository can be changed; with -t what is changed can be published."""
    if not call.given.words:
        raise UsageError("Please provide a repository name")
    name, *words = call.given.words
    command = ["--", *words[words[:1] == ["--"] :]] if words else []
    if call.given.has("t"):
        options = ["--shell", "--on-exit", "ask"]
        return outcrop("transaction", complete(call.locations, name), *options, *command)
    url = call.given.last("w")
    if url is not None:
        return outcrop("enter", url, "--fqrn", complete(call.locations, name), *command)
    fqrn = complete(call.locations, name)
    return outcrop("enter", *published_target(call.locations, fqrn), *command)


def rollback(call: Call) -> int:
    """Roll back, once it is confirmed."""
    (fqrn,) = call.fqrns
    tag = call.given.last("t")
    what = (
        f"ROLLBACK to {tag} AS THE LATEST REVISION" if tag else "UNDO your last published revision"
    )
    if not call.given.has("f") and not is_confirmed(f"You are about to {what}!  Are you sure"):
        return FAILED
    return outcrop("rollback", fqrn, "--yes", *call.options())


def tag(call: Call) -> int:
    """List, inspect, add or remove tags: one of these."""
    given = call.given
    (fqrn,) = call.fqrns
    if sum(given.has(letter) for letter in "airlb") > 1:
        raise UsageError("Ambiguous parameters: either add, remove, inspect or list tags")
    condemned = [name for value in given.letters.get("r", ()) for name in value.split()]
    if condemned and not given.has("f"):
        call.output.line(f"You are about to remove these tags from {fqrn}:")
        call.output.lines(f"* {name}" for name in condemned)
        if not is_confirmed("Are you sure"):
            return FAILED
    removals = [word for name in condemned for word in ("--remove", name)]
    return outcrop("tag", fqrn, "--yes", *removals, *call.options())


def diff(call: Call) -> int:
    """Compare two revisions; -w: the trunk with the open transaction."""
    if call.given.has("w"):
        (fqrn,) = choose(call.locations, Names.GUESSED, call.given.words)
        return outcrop("publish", fqrn, "--dry-run", "--print-changes")
    options = call.options()
    for letter, option in (("s", "--from"), ("d", "--to")):
        revision = call.given.last(letter)
        if revision is not None:
            options += [option, revision.removeprefix("@")]
    return outcrop("diff", *target_of(call), *options)


def list_catalogs(call: Call) -> int:
    """List the catalogs of the trunk."""
    (fqrn,) = call.fqrns
    shown = [f"-{letter}" for letter in "sehx" if call.given.has(letter)]
    return outcrop("list-catalogs", *published_target(call.locations, fqrn), *shown)


def remove(call: Call) -> int:
    """Remove repositories, once it is confirmed."""

    def remove_one(fqrn: str) -> int:
        question = f"You are about to WIPE OUT THE CERNVM-FS REPOSITORY {fqrn}!  Are you sure"
        if not call.given.has("f") and not is_confirmed(question):
            return FAILED
        return outcrop("rmfs", fqrn, "--yes", *call.options())

    return call.for_each(remove_one)


def update_info(call: Call) -> int:
    """Write the lists of what is served here."""
    return outcrop("server-info", *([] if call.given.has("e") else ["--edit"]))


def update_repoinfo(call: Call) -> int:
    """Replace the meta information, or have it edited."""
    (fqrn,) = call.fqrns
    return outcrop("repoinfo", fqrn, *(call.options() or ["--edit"]))


# --- what is here ------------------------------------------------------------------------------


def list_all(call: Call) -> int:
    """All repositories of this machine, one a line, as the original prints them."""
    for one in list_repositories(call.locations):
        if one.problem:
            call.output.line(f"{one.fqrn} ({one.problem})")
            continue
        storage = one.upstream.partition(",")[0] or "local"
        states = [storage, *_states(call, one)]
        call.output.line(f"{one.fqrn} ({one.kind} / {' - '.join(states)})  ")
    return DONE


def _states(call: Call, one: LocalRepository) -> Iterator[str]:
    if one.kind != "stratum0":
        return
    if one.is_in_transaction:
        yield "in transaction"
    try:
        StratumZeroSource.open(call.locations, one.fqrn).source.fetch_manifest(now=call.session.now)
    except WhitelistExpired:
        yield "whitelist expired"
    except StorageError:
        yield "whitelist unreachable"
    except (TrustError, PublisherSettingsError):
        yield "unhealthy"


def info(call: Call) -> int:
    """The summary of a repository, and how clients are set up for it."""
    words = call.given.words
    if len(words) == 1 and "/" in words[0]:
        return outcrop("info", words[0], "--no-cache", *key_options(call.given.last("k")))
    (fqrn,) = choose(call.locations, Names.GUESSED, words)
    opened = StratumZeroSource.open(call.locations, fqrn)
    replicable = opened.store.exists(REPLICA_MARKER)
    call.output.line(f"Repository name: {fqrn}")
    call.output.line(f"Created by CernVM-FS {CREATOR_VERSION}")
    call.output.line(f"Stratum1 replication allowed: {'yes' if replicable else 'no'}")
    call.output.line(_validity(call, opened))
    key = call.locations.keys / f"{fqrn}.pub"
    call.output.line(
        f"\nClient configuration:\n"
        f"Add {fqrn} to CVMFS_REPOSITORIES in /etc/cvmfs/default.local\n"
        f"Create /etc/cvmfs/config.d/{fqrn}.conf and set\n"
        f"  CVMFS_SERVER_URL={opened.settings.stratum0_url}\n"
        f"  CVMFS_PUBLIC_KEY={key}\n"
        f"Copy {key} to the client"
    )
    if call.given.has("m"):
        trusted = opened.source.fetch_manifest(now=call.session.now)
        call.output.line((opened.source.meta_info(trusted) or b"").decode("utf-8", "replace"))
    return DONE


def _validity(call: Call, opened: StratumZeroSource) -> str:
    try:
        trusted = opened.source.fetch_manifest(now=call.session.now)
    except WhitelistExpired:
        return "Whitelist is expired"
    left = trusted.whitelist.whitelist.expires_at - call.session.now
    return f"Whitelist is valid for another {left // _DAY_SECONDS} days"
