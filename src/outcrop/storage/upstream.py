"""Where a publisher puts a repository: `CVMFS_UPSTREAM_STORAGE` (spec 29) or a URL, as a value.

    local,/srv/cvmfs/a.test/data/txn,/srv/cvmfs/a.test     a directory, as CernVM-FS writes it
    S3,/var/spool/cvmfs/a.test/tmp,a.test@/etc/cvmfs/s3.conf
    file:///srv/cvmfs/a.test     s3://bucket/a.test     gs://bucket/a.test     az://container/a.test

There are no credentials in it: they are in `s3.conf`, or the environment has them.
"""

import enum
import importlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from outcrop.errors import FormatError
from outcrop.storage.errors import StorageSettingsError
from outcrop.storage.local import LocalStore
from outcrop.storage.s3_settings import S3Settings
from outcrop.storage.store import WritableStore


class UpstreamKind(enum.Enum):
    """What sort of place it is; the value is the scheme of its URLs."""

    LOCAL = "file"
    S3 = "s3"
    GOOGLE = "gs"
    AZURE = "az"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One repository's place.

    `place` is a directory or the name of a bucket, `prefix` what its keys begin with there. With a
    `settings_file` (`s3.conf`), that one names the bucket. `temporary` is written for CernVM-FS.
    """

    kind: UpstreamKind
    place: str = ""
    prefix: str = ""
    settings_file: Path | None = None
    temporary: str = ""

    @classmethod
    def local(cls, directory: Path) -> Self:
        """A directory of this machine."""
        return cls(kind=UpstreamKind.LOCAL, place=str(directory), temporary=f"{directory}/data/txn")

    @classmethod
    def by_settings_file(cls, file: Path, alias: str, temporary: Path) -> Self:
        """What `cvmfs_server mkfs -s s3.conf` makes: keys begin with `alias`."""
        return cls(kind=UpstreamKind.S3, prefix=alias, settings_file=file, temporary=str(temporary))

    @property
    def directory(self) -> Path | None:
        """The directory, where it is one."""
        return Path(self.place) if self.kind is UpstreamKind.LOCAL else None

    def for_repository(self, fqrn: str) -> Self:
        """For a new repository: a URL that names no more than a bucket gets the repository's name.

        So does one that ends with a slash.
        """
        if self.kind is UpstreamKind.LOCAL or (self.prefix and not self.prefix.endswith("/")):
            return self
        return replace(self, prefix=self.prefix + fqrn)

    def __str__(self) -> str:
        """The text of the parameter; `parse_upstream` reads it."""
        if self.kind is UpstreamKind.LOCAL:
            if "," in self.place:
                return f"file://{quote(self.place)}"
            return f"local,{self.temporary},{self.place}"
        if self.settings_file is not None:
            return f"S3,{self.temporary},{self.prefix}@{self.settings_file}"
        return f"{self.kind.value}://{self.place}/{quote(self.prefix)}"


def parse_upstream(text: str) -> Upstream:
    """Read `CVMFS_UPSTREAM_STORAGE` or a URL. Raises FormatError; opens nothing."""
    if "\0" in text or "\n" in text:
        raise FormatError("not a place to store a repository at: it has more than one line")
    if "://" in text.partition(",")[0]:
        return _parse_url(text)
    kind, _, rest = text.partition(",")
    temporary, separator, place = rest.partition(",")
    if kind.lower() in ("gw", "http", "https"):
        raise FormatError(f"{kind}: publishing through a gateway is not supported yet")
    if kind not in ("local", "S3") or not separator:
        raise FormatError(
            f"{text[:200]!r} is not local,TEMPORARY,DIRECTORY or S3,TEMPORARY,ALIAS@FILE or a URL",
            hint="s3://BUCKET/PREFIX, gs://, az:// and file:///DIRECTORY are understood",
        )
    if kind == "local":
        if "," in _check_absolute(place):
            raise FormatError(f"{place[:200]!r} has a comma in it", hint="give it as file:///PATH")
        return Upstream(kind=UpstreamKind.LOCAL, place=place, temporary=temporary)
    alias, separator, file = place.partition("@")
    if not separator:
        raise FormatError(f"{text[:200]!r}: ALIAS@FILE is expected after the second comma")
    _check_absolute(file)
    return Upstream.by_settings_file(Path(file), _check_prefix(alias), Path(temporary))


def _parse_url(text: str) -> Upstream:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise FormatError(f"not a URL: {error}") from error
    if "@" in parts.netloc:
        raise FormatError(
            f"{parts.scheme}://…: no credentials in a URL",
            hint="put them in s3.conf or the environment (AWS_ACCESS_KEY_ID, …)",
        )
    if parts.query or parts.fragment:
        raise FormatError(f"{text[:200]!r}: a URL without ? and # is expected")
    if parts.scheme == UpstreamKind.LOCAL.value:
        if parts.netloc not in ("", "localhost"):
            raise FormatError(f"{text[:200]!r}: a directory of this machine is file:///PATH")
        return Upstream.local(Path(_check_absolute(unquote(parts.path))))
    kinds = {kind.value: kind for kind in UpstreamKind}
    kind = kinds.get(parts.scheme)
    if kind is None:
        known = ", ".join(f"{scheme}://" for scheme in kinds)
        raise FormatError(f"{parts.scheme}:// cannot be published to", hint=f"one of {known}")
    if _BUCKET.fullmatch(parts.netloc) is None:
        raise FormatError(f"{text[:200]!r}: {parts.scheme}://BUCKET/PREFIX is expected")
    prefix = unquote(parts.path[1:])
    return Upstream(kind=kind, place=parts.netloc, prefix=_check_prefix(prefix))


def _check_absolute(path: str) -> str:
    if not path.startswith("/") or not _is_encodable(path):
        raise FormatError(f"{path[:200]!r} is not an absolute path")
    return path


def _check_prefix(prefix: str) -> str:
    names = prefix.removesuffix("/").split("/") if prefix else []
    if any(name in ("", ".", "..") for name in names) or "\0" in prefix:
        raise FormatError(f"{prefix[:200]!r} cannot be what keys begin with")
    if not prefix.isprintable() or "," in prefix or "@" in prefix:
        raise FormatError(f"{prefix[:200]!r} has characters in it that keys should not have")
    return prefix


def _is_encodable(path: str) -> bool:
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return path.isprintable()


_BUCKET: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{0,254}")


def open_store(upstream: Upstream) -> WritableStore:
    """The store at that place; the caller closes it. Nothing is asked of it yet.

    Raises StorageSettingsError.
    """
    if upstream.kind is UpstreamKind.LOCAL:
        return LocalStore(Path(upstream.place))
    clients = _import_clients(upstream)
    prefix = upstream.prefix.removesuffix("/")
    store: WritableStore
    if upstream.settings_file is not None:
        store = clients.open_by_settings(S3Settings.read(upstream.settings_file), prefix)
    else:
        store = clients.open_bucket(upstream.kind.value, upstream.place, prefix)
    return store


def prepare_store(upstream: Upstream) -> None:
    """Make the bucket of a settings file where it is missing. Raises StorageError."""
    if upstream.settings_file is not None:
        _import_clients(upstream).create_bucket(S3Settings.read(upstream.settings_file))


def _import_clients(upstream: Upstream) -> ModuleType:
    """Only who publishes to a bucket needs the package that does the talking."""
    try:
        return importlib.import_module("outcrop.storage.cloud_clients")
    except ModuleNotFoundError as error:
        raise StorageSettingsError(
            f"{upstream}: needs the Python package {error.name}",
            hint="pip install 'outcrop[cloud]'",
        ) from error


def parallel_requests(upstream: Upstream) -> int:
    """How many requests at once such a place wants to be kept busy: 1 for a directory."""
    if upstream.kind is UpstreamKind.LOCAL:
        return 1
    if upstream.settings_file is not None:
        return S3Settings.read(upstream.settings_file).parallel
    return _DEFAULT_PARALLEL


_DEFAULT_PARALLEL: Final = 16
