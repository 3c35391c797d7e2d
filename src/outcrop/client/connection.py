"""From a target a user names and settings to a repository that can be opened: the wiring."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from outcrop.client.errors import SettingsError
from outcrop.client.settings import ClientSettings, Parameters, read_parameters
from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.parameters import MAX_FILE_BYTES, expand_templates, parse_parameters
from outcrop.repository.open import MAX_MANIFEST_BYTES, RepositorySource
from outcrop.repository.tree import Revision
from outcrop.storage.cache import Cache
from outcrop.storage.errors import StorageSettingsError
from outcrop.storage.external import WithExternal
from outcrop.storage.http import HttpSettings, HttpStore
from outcrop.storage.local import LocalStore
from outcrop.storage.locations import Locations
from outcrop.storage.store import ObjectStore, read_file
from outcrop.storage.temporary import TransientOpener
from outcrop.storage.upstream import Upstream, open_store, parse_upstream
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import read_manifest_unverified_pointer
from outcrop.trust.keys import PublicKey, load_public_keys

_MAX_KEY_BYTES = 64 << 10
_MAX_BLACKLIST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """What a user named: a URL, a directory with a stored repository, or an FQRN.

    `upstream` is the bucket where a repository is that is published on this machine.
    """

    text: str
    fqrn: str
    urls: tuple[str, ...] = ()
    directory: Path | None = None
    upstream: Upstream | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A repository within reach: its source, and what it was made of (for status reports)."""

    target: Target
    parameters: Parameters
    settings: ClientSettings
    source: RepositorySource
    store: ObjectStore
    public_keys_pem: bytes
    cache: Cache | None = None

    def open(self, *, now: int) -> Revision:
        """Open the revision the settings ask for: fixed by hash, tag or date, else the trunk."""
        settings = self.settings
        if settings.root_hash is not None:
            return self.source.open_root_hash(settings.root_hash)
        if settings.tag is not None:
            return self.source.open_tag(settings.tag, now=now)
        if settings.date is not None:
            return self.source.open_date(settings.date, now=now)
        return self.source.open_trunk(now=now)

    @property
    def is_fixed(self) -> bool:
        """Whether the revision was chosen and so never changes."""
        settings = self.settings
        chosen = (settings.root_hash, settings.tag, settings.date)
        return any(value is not None for value in chosen) or not settings.auto_update

    def close(self) -> None:
        """Let go of connections, and of the cache directory."""
        self.store.close()
        if self.cache is not None:
            self.cache.close()


def find_target(text: str, locations: Locations, *, fqrn: str | None = None) -> Target:
    """Understand what a user named. Raises SettingsError, FormatError.

    An FQRN that is stored below `locations`, or published from here to some other place, is read
    from there, any other through `CVMFS_SERVER_URL` of its configuration.
    """
    if text.startswith(("http://", "https://")):
        url = text.rstrip("/")
        return Target(text, check_fqrn(fqrn or url.rpartition("/")[2]), urls=(url,))
    if "/" in text or text in (".", ".."):
        directory = Path(text).absolute()
        return Target(text, check_fqrn(fqrn or _fqrn_of(directory)), directory=directory)
    name = check_fqrn(text)
    stored = locations.repository(name)
    if (stored / ".cvmfspublished").exists():
        return Target(text, name, directory=stored)
    upstream = _find_upstream(locations.server_config(name) / "server.conf")
    if upstream is None:
        return Target(text, name)
    if upstream.directory is None:
        return Target(text, name, upstream=upstream)
    is_there = (upstream.directory / ".cvmfspublished").exists()
    return Target(text, name, directory=upstream.directory if is_there else None)


def _find_upstream(file: Path) -> Upstream | None:
    """Where `server.conf` says a repository is; `None` for whoever can make nothing of it."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE_BYTES)
        found = {one.name: one.value for one in parse_parameters(text, environment={})}
        return parse_upstream(found.get("CVMFS_UPSTREAM_STORAGE", ""))
    except (OSError, FormatError):
        return None


def _fqrn_of(directory: Path) -> str:
    """The name a stored repository claims; the trust chain checks it later."""
    if not (directory / ".cvmfspublished").exists():
        raise SettingsError(
            f"{directory}: not a stored repository (it has no .cvmfspublished)",
            hint="name a URL, an FQRN, or the directory that holds .cvmfspublished and data/",
        )
    data = read_file(LocalStore(directory), ".cvmfspublished", limit=MAX_MANIFEST_BYTES)
    return read_manifest_unverified_pointer(data).fqrn or directory.name


def connect(
    target: Target,
    locations: Locations,
    *,
    overrides: Sequence[str] = (),
    public_keys: Sequence[Path | bytes] = (),
    cache_dir: Path | None = None,
    use_cache: bool = True,
) -> Connection:
    """Make a connection; nothing is fetched yet. Raises SettingsError, StorageError.

    `public_keys` (files or PEM text) replace the configured ones; `cache_dir` replaces the
    configured cache; without `use_cache` objects live in temporary files only.
    """
    parameters = read_parameters(locations, target.fqrn, overrides)
    settings = parameters.settings()
    pem = _read_keys(target.fqrn, settings, locations, public_keys)
    store = _make_store(target, settings)
    cache = None
    if use_cache:
        directory = cache_dir or _cache_directory(target.fqrn, settings, locations)
        cache = Cache(directory.absolute(), quota_bytes=settings.quota_bytes)
    source = RepositorySource(
        target.fqrn,
        store,
        cache.opener(store) if cache is not None else TransientOpener(store),
        _parse_keys(target.fqrn, pem),
        _read_blacklist(settings.blacklist or locations.config / "blacklist"),
        cache,
    )
    if isinstance(store, HttpStore):
        source = replace(source, switch_host=store.switch_host)
    return Connection(target, parameters, settings, source, store, b"".join(pem), cache)


def _cache_directory(fqrn: str, settings: ClientSettings, locations: Locations) -> Path:
    if settings.cache_dir is not None:
        return settings.cache_dir
    base = settings.cache_base or locations.cache.parent
    return base / ("shared" if settings.shared_cache else fqrn)


def _make_store(target: Target, settings: ClientSettings) -> ObjectStore:
    near = _near_store(target, has_other=bool(settings.server_urls))
    if near is not None:
        if not settings.external_urls:
            return near
        return WithExternal(near, _http_store(target, settings, ()))
    urls = target.urls or tuple(expand_templates(u, target.fqrn) for u in settings.server_urls)
    if not urls:
        raise SettingsError(
            f"{target.fqrn}: nothing says where this repository is",
            hint="give its URL, or set CVMFS_SERVER_URL in etc/cvmfs/config.d or domain.d",
        )
    return _http_store(target, settings, urls[: settings.max_servers or None])


def _near_store(target: Target, *, has_other: bool) -> ObjectStore | None:
    """The store itself, where it can be had without HTTP; `has_other`: no need to insist."""
    if target.directory is not None:
        return LocalStore(target.directory)
    if target.upstream is None:
        return None
    try:
        return open_store(target.upstream)
    except StorageSettingsError:
        if not has_other:
            raise
        return None


def _http_store(target: Target, settings: ClientSettings, urls: Sequence[str]) -> HttpStore:
    return HttpStore(
        urls,
        proxies=settings.http_proxy,
        fallback_proxies=settings.fallback_proxy,
        settings=http_settings(settings),
        external_hosts=tuple(expand_templates(u, target.fqrn) for u in settings.external_urls),
        external_proxies=settings.external_http_proxy,
        external_fallback_proxies=settings.external_fallback_proxy,
    )


def http_settings(settings: ClientSettings) -> HttpSettings:
    """The part of the settings that is about HTTP."""
    return HttpSettings(
        timeout_seconds=settings.timeout_seconds,
        timeout_direct_seconds=settings.timeout_direct_seconds,
        low_speed_limit=settings.low_speed_limit,
        max_retries=settings.max_retries,
        backoff_init_seconds=settings.backoff_init_seconds,
        backoff_max_seconds=settings.backoff_max_seconds,
        follow_redirects=settings.follow_redirects,
    )


def _read_keys(
    fqrn: str, settings: ClientSettings, locations: Locations, given: Sequence[Path | bytes]
) -> list[bytes]:
    sources: list[Path | bytes] = list(given)
    if not sources and settings.keys_dir is not None:
        sources += sorted(settings.keys_dir.glob("*.pub"))
    if not sources:
        sources += settings.public_keys
    if not sources:
        sources += _default_keys(fqrn, locations.keys)
    if not sources:
        raise SettingsError(
            f"{fqrn}: no public key to verify it with",
            hint=f"give --key FILE, or put the key at {locations.keys / (fqrn + '.pub')}",
        )
    return [source if isinstance(source, bytes) else _read_key(source) for source in sources]


def _default_keys(fqrn: str, keys: Path) -> list[Path]:
    """The repository's own key, else those of its domain (`keys/DOMAIN/*.pub`)."""
    own = keys / f"{fqrn}.pub"
    if own.exists():
        return [own]
    return sorted((keys / fqrn.partition(".")[2]).glob("*.pub"))


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SettingsError(f"public key {path}: {error.strerror}") from error


def _parse_keys(fqrn: str, pem: Sequence[bytes]) -> list[PublicKey]:
    keys = [key for text in pem for key in load_public_keys(text)]
    if not keys:
        raise SettingsError(f"{fqrn}: the given files hold no public key")
    return keys


def _read_blacklist(path: Path) -> Blacklist:
    try:
        with path.open("rb") as file:
            return Blacklist.parse(file.read(_MAX_BLACKLIST_BYTES))
    except FileNotFoundError:
        return Blacklist.parse(b"")
    except OSError as error:
        raise SettingsError(f"blacklist {path}: {error.strerror}") from error
