"""A stratum 0's settings: `server.conf` of one repository (spec 32), read and written.

Reference for users: docs/reference/publishing-parameters.md (a test holds it against `PARAMETERS`).
"""

import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from outcrop.errors import FormatError
from outcrop.formats.chunking import DEFAULT_CHUNK_SIZES, ChunkSizes
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import HashAlgorithm
from outcrop.formats.parameters import is_on, parse_parameters, serialize_parameters
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.repository.errors import RepositoryNotFound
from outcrop.storage.locations import Locations
from outcrop.storage.upstream import Upstream, parse_upstream

CREATOR_VERSION: Final = "143"
"""The layout version of CernVM-FS 2.12 that what we write is compatible with."""

DEFAULT_TTL_SECONDS: Final = 240
_MAX_FILE_BYTES: Final = 1 << 20
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumZeroSettings:
    """How a repository is published here. Defaults are upstream's for a parameter not set.

    Sizes are in bytes, limits of catalogs in entries.
    """

    fqrn: str
    upstream: Upstream
    spool: Path
    algorithm: HashAlgorithm = HashAlgorithm.SHA1
    compression: CompressionChoice = CompressionChoice.BALANCED
    use_chunking: bool = True
    min_chunk_bytes: int = DEFAULT_CHUNK_SIZES.minimum
    average_chunk_bytes: int = DEFAULT_CHUNK_SIZES.average
    max_chunk_bytes: int = DEFAULT_CHUNK_SIZES.maximum
    ttl_seconds: int = DEFAULT_TTL_SECONDS
    garbage_collection: bool = False
    auto_tag: bool = False
    auto_tag_timespan: str = ""
    include_xattrs: bool = False
    mtime_nanoseconds: bool = False
    enforce_limits: bool = False
    max_file_bytes: int = 1024 * _MIB
    max_root_entries: int = 200_000
    max_nested_entries: int = 500_000
    ignore_special_files: bool = False
    ignore_cross_directory_hardlinks: bool = True
    legacy_bulk_chunks: bool = False
    external_data: bool = False
    autocatalogs: bool = False
    autocatalogs_max_weight: int = 100_000
    autocatalogs_min_weight: int = 1000
    virtual_directory: bool = False
    alternative_paths: bool = False
    membership: str = ""
    auto_gc: bool = False
    auto_gc_lapse: str = "1 day ago"
    auto_gc_timespan: str = "3 days ago"
    gc_deletion_log: Path | None = None
    extended_gc_statistics: bool = False
    statistics_database: Path | None = None
    statistics_days: int = 365
    print_statistics: bool = False
    upload_statistics: bool = False
    upload_statistics_plots: bool = False
    union_directory: Path = Path("/cvmfs")
    stratum0_url: str = ""
    user: str = ""

    @property
    def storage(self) -> Path:
        """The directory the repository is stored in. Raises PublisherSettingsError for a bucket."""
        directory = self.upstream.directory
        if directory is None:
            raise PublisherSettingsError(
                f"{self.fqrn} is stored at {self.upstream}: this needs one in a directory"
            )
        return directory

    @property
    def statistics_file(self) -> Path:
        """The statistics database."""
        return self.statistics_database or self.spool / "stats.db"

    @property
    def chunk_sizes(self) -> ChunkSizes | None:
        """Where files are cut; `None` for not at all. Raises FormatError."""
        if not self.use_chunking:
            return None
        return ChunkSizes(self.min_chunk_bytes, self.average_chunk_bytes, self.max_chunk_bytes)

    @classmethod
    def read(cls, locations: Locations, fqrn: str) -> Self:
        """Read `server.conf`; what it does not set, `server.local` of the machine may.

        Raises RepositoryNotFound, PublisherSettingsError.
        """
        file = locations.server_config(fqrn) / "server.conf"
        values = _read_values(locations.config / "server.local") or {}
        own = _read_values(file)
        if own is None:
            raise RepositoryNotFound(
                f"no repository {fqrn} is published here: there is no {file}",
                hint=f"outcrop mkfs {fqrn} makes one",
            )
        return cls._of(values | own, fqrn, file, locations)

    @classmethod
    def _of(cls, values: Mapping[str, str], fqrn: str, file: Path, locations: Locations) -> Self:
        kind = values.get("CVMFS_REPOSITORY_TYPE", "stratum0")
        if kind != "stratum0" or values.get("CVMFS_REPOSITORY_NAME", fqrn) != fqrn:
            raise PublisherSettingsError(
                f"{file} is of {values.get('CVMFS_REPOSITORY_NAME', fqrn)}, a {kind}: "
                f"expected {fqrn}, a stratum0"
            )
        attributes: dict[str, Any] = {}
        for name, parameter in PARAMETERS.items():
            if not values.get(name):
                continue
            try:
                attributes[parameter.attribute] = parameter.parse(values[name])
            except (ValueError, FormatError, PublisherSettingsError) as error:
                # A place may have been given with a secret in it.
                shown = "" if parameter.attribute == "upstream" else f"={values[name]!r}"
                raise PublisherSettingsError(f"{file}: {name}{shown}: {error}") from error
        attributes.setdefault("upstream", Upstream.local(locations.repository(fqrn)))
        attributes.setdefault("spool", locations.spool(fqrn))
        attributes.setdefault("union_directory", Path("/cvmfs", fqrn))
        settings = cls(fqrn=check_fqrn(fqrn), **attributes)
        try:
            _ = settings.chunk_sizes
        except FormatError as error:
            raise PublisherSettingsError(f"{file}: {error}", hint=error.hint) from error
        return settings

    def serialize(self) -> bytes:
        """The file for a new repository, in upstream's order."""
        compression = self.compression
        is_balanced = compression is CompressionChoice.BALANCED
        return serialize_parameters(
            {
                "CVMFS_CREATOR_VERSION": CREATOR_VERSION,
                "CVMFS_REPOSITORY_NAME": self.fqrn,
                "CVMFS_REPOSITORY_TYPE": "stratum0",
                "CVMFS_USER": self.user,
                "CVMFS_UNION_DIR": str(self.union_directory),
                "CVMFS_SPOOL_DIR": str(self.spool),
                "CVMFS_STRATUM0": self.stratum0_url,
                "CVMFS_UPSTREAM_STORAGE": str(self.upstream),
                "CVMFS_USE_FILE_CHUNKING": _switch(self.use_chunking),
                "CVMFS_MIN_CHUNK_SIZE": str(self.min_chunk_bytes),
                "CVMFS_AVG_CHUNK_SIZE": str(self.average_chunk_bytes),
                "CVMFS_MAX_CHUNK_SIZE": str(self.max_chunk_bytes),
                "CVMFS_UNION_FS_TYPE": "overlayfs",
                "CVMFS_HASH_ALGORITHM": self.algorithm.label,
                "CVMFS_COMPRESSION_ALGORITHM": "default" if is_balanced else compression.value,
                "CVMFS_EXTERNAL_DATA": _switch(self.external_data),
                "CVMFS_AUTO_TAG": _switch(self.auto_tag),
                "CVMFS_AUTO_TAG_TIMESPAN": self.auto_tag_timespan,
                "CVMFS_GARBAGE_COLLECTION": _switch(self.garbage_collection),
                "CVMFS_AUTO_REPAIR_MOUNTPOINT": "true",
                "CVMFS_AUTOCATALOGS": _switch(self.autocatalogs),
                "CVMFS_ASYNC_SCRATCH_CLEANUP": "true",
                "CVMFS_PRINT_STATISTICS": _switch(self.print_statistics),
                "CVMFS_UPLOAD_STATS_DB": _switch(self.upload_statistics),
                "CVMFS_UPLOAD_STATS_PLOTS": _switch(self.upload_statistics_plots),
                "CVMFS_IGNORE_XDIR_HARDLINKS": _switch(self.ignore_cross_directory_hardlinks),
                "CVMFS_INCLUDE_XATTRS": _switch(self.include_xattrs),
                "CVMFS_REPOSITORY_TTL": str(self.ttl_seconds),
            }
        )


def _read_values(file: Path) -> dict[str, str] | None:
    """The parameters in a file; `None` where it is missing. Raises PublisherSettingsError."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_FILE_BYTES)
        assignments = parse_parameters(text, environment={})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PublisherSettingsError(f"{file}: {error.strerror}") from error
    except FormatError as error:
        raise PublisherSettingsError(f"{file}: {error}", hint=error.hint) from error
    return {assignment.name: assignment.value for assignment in assignments}


def serialize_client_settings(locations: Locations, fqrn: str, *, stratum0_url: str) -> bytes:
    """`client.conf`: how the stratum 0 itself mounts the repository."""
    spool = locations.spool(fqrn)
    return serialize_parameters(
        {
            "CVMFS_CACHE_BASE": str(spool / "cache"),
            "CVMFS_RELOAD_SOCKETS": str(spool / "cache"),
            "CVMFS_QUOTA_LIMIT": "4000",
            "CVMFS_MOUNT_DIR": "/cvmfs",
            "CVMFS_SERVER_URL": stratum0_url,
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_PUBLIC_KEY": str(locations.keys / f"{fqrn}.pub"),
            "CVMFS_CHECK_PERMISSIONS": "yes",
            "CVMFS_IGNORE_SIGNATURE": "no",
            "CVMFS_AUTO_UPDATE": "no",
            "CVMFS_NFS_SOURCE": "no",
            "CVMFS_MAGIC_XATTRS_VISIBILITY": "never",
            "CVMFS_FOLLOW_REDIRECTS": "yes",
            "CVMFS_SERVER_CACHE_MODE": "yes",
            "CVMFS_NFILES": "65536",
            "CVMFS_TALK_SOCKET": str(spool / "cvmfs_io"),
            "CVMFS_TALK_OWNER": user_name(),
            "CVMFS_USE_SSL_SYSTEM_CA": "true",
        }
    )


@dataclass(frozen=True, slots=True)
class PublisherParameter:
    """The setting a parameter makes, and how its text is read (raising ValueError, FormatError)."""

    attribute: str
    parse: Callable[[str], object] = field(repr=False)


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("not an absolute path")
    return Path(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise ValueError("not a number")
    return int(text)


def _mebibytes(text: str) -> int:
    return _number(text) * _MIB


def _thousands(text: str) -> int:
    return _number(text) * 1000


PARAMETERS: Final[Mapping[str, PublisherParameter]] = {
    "CVMFS_UPSTREAM_STORAGE": PublisherParameter("upstream", parse_upstream),
    "CVMFS_SPOOL_DIR": PublisherParameter("spool", _absolute),
    "CVMFS_HASH_ALGORITHM": PublisherParameter("algorithm", HashAlgorithm.from_label),
    "CVMFS_COMPRESSION_ALGORITHM": PublisherParameter("compression", CompressionChoice.from_label),
    "CVMFS_USE_FILE_CHUNKING": PublisherParameter("use_chunking", is_on),
    "CVMFS_MIN_CHUNK_SIZE": PublisherParameter("min_chunk_bytes", _number),
    "CVMFS_AVG_CHUNK_SIZE": PublisherParameter("average_chunk_bytes", _number),
    "CVMFS_MAX_CHUNK_SIZE": PublisherParameter("max_chunk_bytes", _number),
    "CVMFS_REPOSITORY_TTL": PublisherParameter("ttl_seconds", _number),
    "CVMFS_GARBAGE_COLLECTION": PublisherParameter("garbage_collection", is_on),
    "CVMFS_AUTO_TAG": PublisherParameter("auto_tag", is_on),
    "CVMFS_AUTO_TAG_TIMESPAN": PublisherParameter("auto_tag_timespan", str),
    "CVMFS_INCLUDE_XATTRS": PublisherParameter("include_xattrs", is_on),
    "CVMFS_ENABLE_MTIME_NS": PublisherParameter("mtime_nanoseconds", is_on),
    "CVMFS_ENFORCE_LIMITS": PublisherParameter("enforce_limits", is_on),
    "CVMFS_FILE_MBYTE_LIMIT": PublisherParameter("max_file_bytes", _mebibytes),
    "CVMFS_ROOT_KCATALOG_LIMIT": PublisherParameter("max_root_entries", _thousands),
    "CVMFS_NESTED_KCATALOG_LIMIT": PublisherParameter("max_nested_entries", _thousands),
    "CVMFS_IGNORE_SPECIAL_FILES": PublisherParameter("ignore_special_files", is_on),
    "CVMFS_IGNORE_XDIR_HARDLINKS": PublisherParameter("ignore_cross_directory_hardlinks", is_on),
    "CVMFS_GENERATE_LEGACY_BULK_CHUNKS": PublisherParameter("legacy_bulk_chunks", is_on),
    "CVMFS_EXTERNAL_DATA": PublisherParameter("external_data", is_on),
    "CVMFS_AUTOCATALOGS": PublisherParameter("autocatalogs", is_on),
    "CVMFS_AUTOCATALOGS_MAX_WEIGHT": PublisherParameter("autocatalogs_max_weight", _number),
    "CVMFS_AUTOCATALOGS_MIN_WEIGHT": PublisherParameter("autocatalogs_min_weight", _number),
    "CVMFS_VIRTUAL_DIR": PublisherParameter("virtual_directory", is_on),
    "CVMFS_CATALOG_ALT_PATHS": PublisherParameter("alternative_paths", is_on),
    "CVMFS_VOMS_AUTHZ": PublisherParameter("membership", str),
    "CVMFS_AUTO_GC": PublisherParameter("auto_gc", is_on),
    "CVMFS_AUTO_GC_LAPSE": PublisherParameter("auto_gc_lapse", str),
    "CVMFS_AUTO_GC_TIMESPAN": PublisherParameter("auto_gc_timespan", str),
    "CVMFS_GC_DELETION_LOG": PublisherParameter("gc_deletion_log", _absolute),
    "CVMFS_EXTENDED_GC_STATS": PublisherParameter("extended_gc_statistics", is_on),
    "CVMFS_STATISTICS_DB": PublisherParameter("statistics_database", _absolute),
    "CVMFS_STATS_DB_DAYS_TO_KEEP": PublisherParameter("statistics_days", _number),
    "CVMFS_PRINT_STATISTICS": PublisherParameter("print_statistics", is_on),
    "CVMFS_UPLOAD_STATS_DB": PublisherParameter("upload_statistics", is_on),
    "CVMFS_UPLOAD_STATS_PLOTS": PublisherParameter("upload_statistics_plots", is_on),
    "CVMFS_UNION_DIR": PublisherParameter("union_directory", _absolute),
    "CVMFS_STRATUM0": PublisherParameter("stratum0_url", str),
    "CVMFS_USER": PublisherParameter("user", str),
}
"""Every parameter of `server.conf` that publishing here acts on."""


def _switch(value: bool) -> str:
    return "true" if value else "false"


def user_name() -> str:
    """Who runs this, as `CVMFS_USER` has it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
