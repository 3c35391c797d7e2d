"""Low-level commands that read a repository by its URL or directory: check, list, show, letters."""

import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outcrop.cli.dropin.call import Call
from outcrop.cli.dropin.options import UsageError, outcrop
from outcrop.cli.dropin.storage_actions import required
from outcrop.cli.dropin.targets import key_files, key_options
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.history_text import branch_lines, tag_details, tag_table
from outcrop.cli.output import write_message
from outcrop.cli.problems import check_text
from outcrop.client.connection import Connection, connect, find_target
from outcrop.errors import OutcropError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.letter import MAX_BYTES, Letter
from outcrop.publisher.administration import REPLICA_MARKER
from outcrop.repository.check import CheckOptions, check_repository
from outcrop.repository.file_statistics import write_file_statistics
from outcrop.repository.history import History
from outcrop.repository.open import MAX_MANIFEST_BYTES
from outcrop.repository.reachable import CatalogReader
from outcrop.repository.referenced import iter_referenced
from outcrop.repository.reflog import Reflog
from outcrop.repository.stored import StoredObjects
from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.local import LocalStore
from outcrop.storage.store import ObjectStore, read_file
from outcrop.trust.chain import (
    TrustedManifest,
    read_manifest_unverified_pointer,
    verify_whitelist,
)
from outcrop.trust.errors import CertificateNotListed, WhitelistExpired
from outcrop.trust.keys import load_public_keys
from outcrop.trust.letter import check_sender, sign_letter, verify_letter

VERSION: Final = "2.12.0"
"""The release of CernVM-FS whose commands these are."""

_MAX_AGE_SECONDS: Final = 300
_WHITELIST: Final = ".cvmfswhitelist"
_FLAGS: Final = {True: "true", False: "false"}


@contextlib.contextmanager
def _connected(
    call: Call, *, place: str = "r", name: str = "n", keys: str = "k"
) -> Iterator[Connection]:
    """The repository that the letters name, with nothing kept on disk."""
    fqrn = call.given.last(name)
    proxy = call.given.last("@")
    connection = connect(
        find_target(_path(required(call, place)), call.locations, fqrn=fqrn),
        call.locations,
        overrides=[f"CVMFS_HTTP_PROXY={proxy}"] if proxy is not None else [],
        public_keys=key_files(call.given.last(keys)),
        use_cache=False,
    )
    with contextlib.closing(connection):
        yield connection


def _path(place: str) -> str:
    """A URL, or a directory, which may be a mere name; `file://` is one."""
    if place.startswith(("http://", "https://")):
        return place
    return str(Path(place.removeprefix("file://")).absolute())


def version(call: Call) -> int:
    """Print the version."""
    call.output.line(VERSION)
    return DONE


# --- the whole repository ----------------------------------------------------------------------


def check(call: Call) -> int:
    """Check catalogs, with -c that all objects are there, with -R the reflog."""
    given = call.given
    checksum = given.last("R")
    with _connected(call, name="N") as connection:
        store = connection.store
        wants_objects = given.has("c")

        def open_reflog(trusted: TrustedManifest) -> Reflog:
            fqrn, algorithm = connection.source.fqrn, trusted.manifest.algorithm
            return Reflog(LocalStore(directory), Path(checksum or ""), fqrn, algorithm)

        directory = connection.target.directory or Path()
        is_local = isinstance(store, LocalStore)
        local = LocalStore(directory)
        result = check_repository(
            connection.source,
            CheckOptions(
                tag=given.last("n"),
                subtree=os.fsencode(given.get("s", "")).rstrip(b"/"),
                fetch=wants_objects and not is_local,
            ),
            now=call.session.now,
            list_stored=(
                (lambda: StoredObjects.listed(local, lambda *_: None))
                if wants_objects and is_local
                else None
            ),
            open_reflog=open_reflog if checksum is not None and is_local else None,
        )
    call.output.line(check_text(result))
    return FAILED if result.problems else DONE


def list_catalogs(call: Call) -> int:
    """List the catalogs."""
    given = call.given
    options = ["--no-cache", *key_options(given.last("k"))]
    for letter, option in (("n", "--fqrn"), ("h", "--hash"), ("@", "--proxy")):
        value = given.last(letter)
        options += [option, value] if value is not None else []
    switches = {"d": "--hashes", "s": "--sizes", "e": "--entries"}
    options += [option for letter, option in switches.items() if given.has(letter)]
    options += [] if given.has("t") else ["--flat"]
    return outcrop("list-catalogs", _path(required(call, "r")), *options)


def list_reflog(call: Call) -> int:
    """The hashes of everything that any revision in the reflog refers to, one a line."""
    required(call, "n")
    with _connected(call) as connection, tempfile.TemporaryDirectory() as scratch:
        trusted = connection.source.fetch_manifest(now=call.session.now)
        wanted = trusted.manifest.reflog
        checksum = call.given.last("R")
        if checksum is not None:
            wanted = ContentHash.parse(Path(checksum).read_text().strip())
        found = iter_referenced(connection.store, connection.source.fqrn, wanted, Path(scratch))
        place = call.given.last("o")
        count = 0
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(Path(place).open("w")) if place is not None else sys.stdout
            for content_hash in found:
                out.write(f"{content_hash}\n")
                count += 1
    write_message(f"Number of objects: {count}")
    return DONE


def file_statistics(call: Call) -> int:
    """Make the database of file statistics, beside the place and then there."""
    place = Path(required(call, "o"))
    text = call.given.last("h")
    with _connected(call) as connection, tempfile.TemporaryDirectory() as scratch:
        trusted = connection.source.fetch_manifest(now=call.session.now)
        root = ContentHash.parse(text) if text is not None else trusted.manifest.root_catalog
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        reader = CatalogReader(connection.store, Path(scratch))
        try:
            write_file_statistics(
                reader, root, temporary, progress=lambda _phase, _done, _total: None
            )
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    return DONE


# --- tags --------------------------------------------------------------------------------------


def list_tags(call: Call) -> int:
    """List tags or branches."""
    history, is_machine = _history(call), call.given.has("x")
    if call.given.has("B"):
        call.output.lines(branch_lines(history, is_machine=is_machine))
    elif is_machine:
        call.output.lines(tag.machine_line() for tag in history.tags)
    else:
        call.output.lines(tag_table(history.tags))
    return DONE


def show_tag(call: Call) -> int:
    """Show one tag."""
    tag = _history(call).get(required(call, "n"))
    call.output.lines([tag.machine_line()] if call.given.has("x") else tag_details(tag))
    return DONE


def _history(call: Call) -> History:
    required(call, "f")
    with _connected(call, place="w", name="f", keys="p") as connection:
        source = connection.source
        return source.history(source.fetch_manifest(now=call.session.now))


# --- the manifest ------------------------------------------------------------------------------


def info(call: Call) -> int:
    """Show parts of the manifest, in the original's order."""
    given = call.given
    if (given.has("C") or given.has("X")) and not given.has("u"):
        raise UsageError("need a CernVM-FS mountpoint (-u) for -C and -X")
    with _manifest_store(call) as store:
        try:
            data = read_file(store, ".cvmfspublished", limit=MAX_MANIFEST_BYTES)
        except ObjectNotFound:
            if given.has("e"):
                _show(call, "Empty Repository", "yes")
                return DONE
            raise
        manifest = read_manifest_unverified_pointer(data)
        facts = {
            "e": ("Empty Repository", "no"),
            "C": ("Mounted Root Hash", _mounted(given.get("u", ""), "user.root_hash")),
            "X": ("External data enabled", _mounted(given.get("u", ""), "user.external_data")),
            "c": ("Root Catalog Hash", str(manifest.root_catalog)),
            "n": ("Fully Qualified Repository Name", str(manifest.fqrn or "")),
            "t": ("Time Stamp", str(manifest.published_at)),
            "m": ("Replication Master Copy", _FLAGS[_is_there(store, REPLICA_MARKER)]),
            "v": ("Revision", str(manifest.revision)),
            "g": ("Garbage Collectable", "yes" if manifest.garbage_collectable else "no"),
            "o": ("Maintains Reference Log", _FLAGS[_is_there(store, ".cvmfsreflog")]),
        }
    for letter, (title, value) in facts.items():
        if given.has(letter):
            _show(call, title, value)
    if given.has("M"):
        _show_meta_info(call)
    if given.has("R"):
        call.output.line(manifest.serialize().decode("utf-8", "surrogateescape").rstrip("\n"))
    return DONE


@contextlib.contextmanager
def _manifest_store(call: Call) -> Iterator[ObjectStore]:
    """Where the manifest is; no key is needed, for nothing is verified."""
    place = _path(required(call, "r"))
    if not place.startswith("http"):
        yield LocalStore(Path(place))
        return
    with _connected(call) as connection:
        yield connection.store


def _show(call: Call, title: str, value: str) -> None:
    call.output.line(f"{title + ':':<33}{value}" if call.given.has("h") else value)


def _show_meta_info(call: Call) -> None:
    with _connected(call) as connection:
        source = connection.source
        data = source.meta_info(source.fetch_manifest(now=call.session.now))
    if data is not None:
        call.output.line(data.decode("utf-8", "replace").rstrip("\n"))
    elif call.given.has("h"):
        write_message("no meta info available")


def _mounted(mountpoint: str, name: str) -> str:
    return os.getxattr(mountpoint, name).decode("utf-8", "replace") if mountpoint else ""


def _is_there(store: ObjectStore, name: str) -> bool:
    try:
        read_file(store, name)
    except ObjectNotFound:
        return False
    return True


# --- letters -----------------------------------------------------------------------------------


def letter(call: Call) -> int:
    """Sign or verify a letter. 2: no key or whitelist, 3: bad letter, 4: expired, 5: not listed."""
    given = call.given
    if given.has("s") == given.has("v"):
        raise UsageError("invalid option combination (sign or verify)")
    if given.has("e") or given.has("p"):
        raise UsageError("-e and -p are not there: run it once a letter, keep keys unencrypted")
    fqrn, key = required(call, "f"), Path(required(call, "k"))
    text = given.last("t")
    words = text.encode() if text is not None else sys.stdin.buffer.readline(MAX_BYTES + 1)
    if given.has("v"):
        return _verify_letter(call, fqrn, words)
    certificate = Path(required(call, "c")).read_bytes()
    algorithm = HashAlgorithm.from_label(given.get("a", "sha1"))
    written = Letter(words.removesuffix(b"\n"), fqrn, call.session.now, certificate)
    call.output.line(sign_letter(written, key.read_bytes(), algorithm).decode())
    return DONE


def _verify_letter(call: Call, fqrn: str, words: bytes) -> int:
    age = call.given.get("m", str(_MAX_AGE_SECONDS))
    if not age.isdecimal() or len(age) > 18:
        raise UsageError(f"-m: {age} is no number of seconds")
    now = call.session.now
    required(call, "r")
    try:
        with _connected(call, name="f") as connection:
            data = read_file(connection.store, _WHITELIST)
            keys = load_public_keys(connection.public_keys_pem)
    except OutcropError as error:
        return _told(error, 2)
    try:
        found = verify_letter(words, fqrn=fqrn, now=now, max_age_seconds=int(age))
    except OutcropError as error:
        return _told(error, 3)
    try:
        check_sender(found, verify_whitelist(data, master_keys=keys, fqrn=fqrn, now=now))
    except WhitelistExpired as error:
        return _told(error, 4)
    except CertificateNotListed as error:
        return _told(error, 5)
    except OutcropError as error:
        return _told(error, 2)
    sys.stdout.flush()
    sys.stdout.buffer.write(found.text)
    return DONE


def _told(error: OutcropError, code: int) -> int:
    write_message(f"cvmfs_swissknife letter: {error}")
    return code
