"""Checking what the manifest names beside catalogs: tags, reflog, meta information."""

import os
import sqlite3

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import SELECT_REFS, Ref, RefType
from outcrop.repository.check_catalog import Problem
from outcrop.repository.databases import open_database
from outcrop.repository.errors import RepositoryError
from outcrop.repository.history import History
from outcrop.repository.open import RepositorySource
from outcrop.repository.reflog import MAX_BYTES as MAX_REFLOG_BYTES
from outcrop.repository.reflog import NAME as REFLOG
from outcrop.repository.reflog import Reflog
from outcrop.repository.stored import StoredObjects
from outcrop.storage.errors import ObjectNotFound, StorageError
from outcrop.storage.store import read_file
from outcrop.trust.chain import TrustedManifest


def check_tags(
    history: History, trusted: TrustedManifest, stored: StoredObjects | None
) -> list[Problem]:
    """All tagged revisions must be there, and none newer than the trunk."""
    problems = []
    for tag in history.tags:
        where = f"tag {tag.name}"
        if stored is not None and not stored.has(tag.hash, Suffix.CATALOG):
            problems.append(Problem(where, f"its root catalog {tag.hash} is missing"))
        if not tag.branch and tag.revision > trusted.manifest.revision:
            problems.append(Problem(where, f"revision {tag.revision} is newer than the trunk"))
    return problems


def check_reflog(
    source: RepositorySource,
    trusted: TrustedManifest,
    history: History,
    reflog: Reflog | None,
) -> list[Problem]:
    """The reflog must be the right one, have all that is in use.

    Whether it is the right one only a stratum 0 can tell: replicas write their own.
    """
    manifest = trusted.manifest
    if reflog is None and manifest.reflog is None:
        return []
    try:
        if reflog is not None:
            refs = reflog.read_complete(manifest.reflog)
        else:
            refs = _read(read_file(source.store, REFLOG, limit=MAX_REFLOG_BYTES))
    except ObjectNotFound as error:
        return [] if reflog is None else [Problem(REFLOG, str(error))]
    except (StorageError, FormatError, RepositoryError, sqlite3.Error) as error:
        return [Problem(REFLOG, str(error))]
    listed = {(ref.hash, ref.type) for ref in refs}
    # What it lists and is missing is what a collection that was cut short has deleted already.
    return [
        Problem(REFLOG, f"does not list {kind.name.lower().replace('_', ' ')} {wanted}")
        for wanted, kind in _wanted(manifest, history)
        if (wanted, kind) not in listed
    ]


def _wanted(manifest: Manifest, history: History) -> list[tuple[ContentHash, RefType]]:
    wanted = [
        (content_hash, kind)
        for content_hash, kind in (
            (manifest.root_catalog, RefType.CATALOG),
            (manifest.certificate, RefType.CERTIFICATE),
            (manifest.history, RefType.HISTORY),
            (manifest.meta_info, RefType.META_INFO),
        )
        if content_hash is not None
    ]
    tagged = dict.fromkeys((tag.hash, RefType.CATALOG) for tag in history.tags)
    return list(dict.fromkeys([*wanted, *tagged]))


def _read(data: bytes) -> list[Ref]:
    fd = os.memfd_create("reflog")
    try:
        os.write(fd, data)
        database = open_database(fd)
        try:
            rows = database.execute(SELECT_REFS).fetchall()
        finally:
            database.close()
    finally:
        os.close(fd)
    return [Ref.from_row(row) for row in rows]


def check_meta_info(source: RepositorySource, trusted: TrustedManifest) -> list[Problem]:
    """The meta information must be there."""
    try:
        source.meta_info(trusted)
    except StorageError as error:
        return [Problem("meta info", str(error))]
    return []
