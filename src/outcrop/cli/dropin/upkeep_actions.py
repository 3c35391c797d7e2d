"""What some commands of `cvmfs_server` need beyond a translation: cron jobs and maintenance."""

from pathlib import Path
from typing import Final

from outcrop.cli.dropin import smart_card
from outcrop.cli.dropin.call import Call, log_file, logged
from outcrop.cli.dropin.options import UsageError, is_confirmed, outcrop
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.transactions import PinnedMounts
from outcrop.errors import OutcropError
from outcrop.formats.parameters import parse_parameters
from outcrop.publisher.administration import list_repositories
from outcrop.publisher.check_due import find_due, note_check
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.inspection import list_reflog
from outcrop.publisher.repository_info import sign_trunk_again
from outcrop.publisher.settings import CREATOR_VERSION, StratumZeroSettings
from outcrop.publisher.statistics import merge
from outcrop.publisher.transaction import find_transaction, transaction_area
from outcrop.publisher.union import Union
from outcrop.publisher.upkeep import StratumZeroSource
from outcrop.publisher.whitelist_file import resign_file
from outcrop.storage.locations import Locations

_CARD_DAYS: Final = "7"
_LONG_DAYS: Final = 30
_MAX_CONFIG_BYTES: Final = 1 << 20


# --- garbage -----------------------------------------------------------------------------------


def collect(call: Call) -> int:
    """Collect garbage, once it is confirmed; of all repositories into a log, as cron wants it."""
    if call.given.has("r") and call.given.has("t"):
        raise UsageError("-r and -t are mutually exclusive")
    is_all = call.given.has("a")
    fqrns = [fqrn for fqrn in call.fqrns if not is_all or _is_collectable(call.locations, fqrn)]
    if not fqrns:
        raise PublisherSettingsError("there are no active garbage-collectable repositories")
    is_dry = call.given.has("d")
    if not call.given.has("f"):
        call.output.line(f"Affected Repositories:         {' '.join(fqrns)}")
        call.output.line(f"Dry Run (no actual deletion):  {'yes' if is_dry else 'no'}")
        if not is_dry and not is_confirmed("Please confirm this action"):
            return FAILED
    options = ["--yes", *call.options()]
    if not is_all:
        return call.for_each(lambda fqrn: outcrop("gc", fqrn, *options))
    file = log_file(call.locations, "gc.log")
    for fqrn in fqrns:
        with logged(file, fqrn, call.session.now):
            if outcrop("gc", fqrn, *options) != DONE:
                call.output.line("ERROR from cvmfs_server gc!")
    return DONE


def _is_collectable(locations: Locations, fqrn: str) -> bool:
    try:
        return StratumZeroSettings.read(locations, fqrn).garbage_collection
    except OutcropError:
        return False


# --- checking ----------------------------------------------------------------------------------


def check(call: Call) -> int:
    """Check a repository; all that are due into a log, as cron wants it: that never fails."""
    if not call.given.has("a"):
        return call.for_each(lambda fqrn: _check(call, fqrn))
    if call.given.words:
        raise UsageError("no non-option parameters expected with -a")
    file = log_file(call.locations, "checks.log")
    now = call.session.now
    for due in find_due(call.locations, now=now):
        fqrn = due.fqrn
        if due.problem is not None:
            error = due.problem
            call.output.error(str(error), kind=type(error).__name__, hint=error.hint)
            continue
        with logged(file, fqrn, now):
            is_sound = _check(call, fqrn) == DONE
            if not is_sound:
                call.output.line("ERROR from cvmfs_server check!")
        note_check(call.locations, fqrn, is_sound=is_sound, now=now)
    return DONE


def _check(call: Call, fqrn: str) -> int:
    if call.given.has("i"):
        call.output.line(f"Checking storage integrity of {fqrn} ... (may take a while)")
        code = outcrop("scrub", fqrn)
        if code != DONE:
            return code
    call.output.line(f"Verifying integrity of {fqrn}...")
    if call.given.has("r"):
        try:
            list_reflog(call.locations, fqrn, now=call.session.now)
        except OutcropError as error:
            call.output.line(f"Warning: {error}; re-creating the reflog")
            code = outcrop("reflog", fqrn, "rebuild")
            if code != DONE:
                return code
    return outcrop("check", fqrn, *call.options())


def health_check(call: Call) -> int:
    """See whether it can be published to: settings, trust chain; -r mounts an open transaction."""

    def check_one(fqrn: str) -> int:
        opened = StratumZeroSource.open(call.locations, fqrn)
        opened.source.fetch_manifest(now=call.session.now)
        transaction = find_transaction(call.locations, fqrn)
        if call.given.has("r") and transaction is not None and not transaction.is_shell:
            return outcrop("transaction", fqrn, "--resume")
        if not call.given.has("q"):
            call.output.line(f"{fqrn} is healthy")
        return DONE

    return call.for_each(check_one)


# --- keys --------------------------------------------------------------------------------------


def resign(call: Call) -> int:
    """Sign whitelists anew; with the smart card where the master key is not on this disk."""
    given = call.given
    days = given.last("d")
    if given.has("p") and (given.has("d") or given.has("w")):
        raise UsageError("Cannot use -d or -w with -p")
    if days is not None and (not days.isdecimal() or len(days) > 6):
        raise UsageError(f"-d: {days} is no number of days")
    if given.has("p"):
        return call.for_each(lambda fqrn: _sign_manifest(call, fqrn))
    if days is not None and int(days) > _LONG_DAYS:
        call.output.line("Warning: whitelist expiration is more than 30 days.")
        call.output.line("Long expirations increase risk from repository key compromises!")
        if not given.has("f") and not is_confirmed("Are you sure you want to do this"):
            return FAILED
    return call.for_each(lambda fqrn: _resign(call, fqrn, days))


def _sign_manifest(call: Call, fqrn: str) -> int:
    sign_trunk_again(call.locations, fqrn, now=call.session.now)
    call.output.line("Signing .cvmfspublished... done")
    return DONE


def _resign(call: Call, fqrn: str, days: str | None) -> int:
    file = call.given.last("w")
    if file is not None:
        number = int(days or _LONG_DAYS)
        resign_file(call.locations, fqrn, Path(file), now=call.session.now, days=number)
        call.output.line(f"Signing {number} day whitelist {file}... done")
        return DONE
    options = smart_card.card_options(call.locations, fqrn)
    days = days or (_CARD_DAYS if options else None)
    return outcrop("resign", fqrn, *(["--days", days] if days else []), *options)


def masterkeycard(call: Call) -> int:
    """Keep master keys on a smart card: one action at a time."""
    actions = [letter for letter in call.given.letters if letter in smart_card.ACTIONS]
    if len(actions) != 1:
        raise UsageError("Only one masterkeycard action option allowed, and one needed")
    return smart_card.ACTIONS[actions[0]](call)


# --- catalogs ----------------------------------------------------------------------------------


def eliminate_hardlinks(call: Call) -> int:
    """Break hard links up, once it is confirmed."""
    return _irreversible(call, "break up all hard links", "eliminate-hardlinks")


def eliminate_bulk_hashes(call: Call) -> int:
    """Remove hashes of whole files, once it is confirmed."""
    what = "remove bulk hashes of chunked files"
    return _irreversible(call, what, "eliminate-bulk-hashes")


def _irreversible(call: Call, what: str, command: str) -> int:
    (fqrn,) = call.fqrns
    question = f"This will {what} in '{fqrn}'. It cannot be undone. Are you sure?"
    if not call.given.has("f") and not is_confirmed(question):
        return FAILED
    return outcrop(command, fqrn)


def migrate(call: Call) -> int:
    """Every repository that can be published to is of the current layout."""

    def migrate_one(fqrn: str) -> int:
        StratumZeroSettings.read(call.locations, fqrn)
        file = call.locations.server_config(fqrn) / "server.conf"
        found = {a.name: a.value for a in parse_parameters(file.read_bytes(), environment={})}
        version = found.get("CVMFS_CREATOR_VERSION", "")
        if version != CREATOR_VERSION:
            raise PublisherSettingsError(
                f"{fqrn} has the layout {version or '(unknown)'}, not {CREATOR_VERSION}",
                hint="cvmfs_server migrate of CernVM-FS 2.12 brings it there",
            )
        call.output.line(f"{fqrn} is up to date")
        return DONE

    return call.for_each(migrate_one)


# --- mounts and statistics ---------------------------------------------------------------------


def mount(call: Call) -> int:
    """Mount what is published here, for reading, or where a transaction is open go on with it."""
    stratum_zeros = {
        one.fqrn for one in list_repositories(call.locations) if one.kind == "stratum0"
    }

    def mount_one(fqrn: str) -> int:
        if call.given.has("a") and fqrn not in stratum_zeros:
            return DONE
        if find_transaction(call.locations, fqrn) is not None:
            return outcrop("transaction", fqrn, "--resume")
        opened = StratumZeroSource.open(call.locations, fqrn)
        trusted = opened.source.fetch_manifest(now=call.session.now)
        area = transaction_area(call.locations, fqrn)
        area.lower.mkdir(parents=True, exist_ok=True)
        union = Union(area, opened.settings.union_directory, PinnedMounts(call.session, fqrn))
        union.show(trusted.manifest.root_catalog)
        return DONE

    return call.for_each(mount_one)


def print_statistics(call: Call) -> int:
    """Print a table; that there is none yet is no error."""
    (fqrn,) = call.fqrns
    if not StratumZeroSettings.read(call.locations, fqrn).statistics_file.exists():
        call.output.line(f"No statistics database file for {fqrn} repository.")
        return DONE
    separator = [] if call.given.has("s") else ["--separator", "|"]
    return outcrop("statistics", fqrn, *separator, *call.options())


def merge_statistics(call: Call) -> int:
    """Merge two databases into a new one; one of that name is replaced."""
    if len(call.given.words) != 2:
        raise UsageError("two databases are needed")
    merged = Path(call.given.get("o", "output.db"))
    temporary = merged.with_name(f".{merged.name}.new")
    temporary.unlink(missing_ok=True)
    merge([Path(word) for word in call.given.words], temporary)
    temporary.replace(merged)
    call.output.line(f"Success: {' and '.join(call.given.words)} were merged in {merged}")
    return DONE
