"""Client settings: `CVMFS_*` parameters from files, in layers, with the origin of each (spec 30).

Reference for users: docs/reference/parameters.md (a test holds it against `PARAMETERS`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outcrop.client.errors import SettingsError
from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.formats.parameters import expand_templates, is_on, parse_parameters
from outcrop.formats.timestamps import parse_utc
from outcrop.storage.locations import Locations

_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client does, as validated values. Defaults are those of upstream's default.conf.

    Sizes are in bytes, durations in seconds. Lists keep the order of the parameter.
    """

    server_urls: tuple[str, ...] = ()
    http_proxy: str = "DIRECT"
    fallback_proxy: str = ""
    external_urls: tuple[str, ...] = ()
    external_http_proxy: str = "DIRECT"
    external_fallback_proxy: str = ""
    max_servers: int = 0
    public_keys: tuple[Path, ...] = ()
    keys_dir: Path | None = None
    blacklist: Path | None = None
    cache_base: Path | None = None
    cache_dir: Path | None = None
    shared_cache: bool = True
    quota_bytes: int | None = 4000 << 20
    timeout_seconds: float = 5
    timeout_direct_seconds: float = 10
    low_speed_limit: int = 1024
    max_retries: int = 1
    backoff_init_seconds: float = 2
    backoff_max_seconds: float = 10
    proxy_reset_after_seconds: float = 300
    host_reset_after_seconds: float = 1800
    follow_redirects: bool = False
    root_hash: ContentHash | None = None
    tag: str | None = None
    date: int | None = None
    auto_update: bool = True
    max_ttl_seconds: int | None = None
    kernel_cache_seconds: float = 3600
    claim_ownership: bool = True
    uid_map: Path | None = None
    gid_map: Path | None = None
    check_permissions: bool = True
    world_readable: bool = False
    suid: bool = False
    magic_xattrs: str = "rootonly"
    default_domain: str = ""


def _text(value: str) -> str:
    return value


def _paths(value: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in value.split(":") if part)


def _path(value: str) -> Path | None:
    return Path(value) if value else None


def _urls(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(";") if part.strip())


def _count(value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > 12:
        raise ValueError("expected a whole number")
    return int(value)


def _seconds(value: str) -> float:
    return float(_count(value))


def _minutes(value: str) -> int | None:
    return 60 * _count(value) or None


def _quota(value: str) -> int | None:
    return None if value == "-1" else _count(value) << 20


def _hash(value: str) -> ContentHash | None:
    return ContentHash.parse(value.removesuffix("C")) if value else None


def _date(value: str) -> int | None:
    return parse_utc(value) if value else None


def _visibility(value: str) -> str:
    if value not in ("rootonly", "always", "never"):
        raise ValueError("expected rootonly, always or never")
    return value


def _word(value: str) -> str | None:
    return value or None


PARAMETERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "CVMFS_SERVER_URL": ("server_urls", _urls),
    "CVMFS_HTTP_PROXY": ("http_proxy", _text),
    "CVMFS_FALLBACK_PROXY": ("fallback_proxy", _text),
    "CVMFS_EXTERNAL_URL": ("external_urls", _urls),
    "CVMFS_EXTERNAL_HTTP_PROXY": ("external_http_proxy", _text),
    "CVMFS_EXTERNAL_FALLBACK_PROXY": ("external_fallback_proxy", _text),
    "CVMFS_MAX_SERVERS": ("max_servers", _count),
    "CVMFS_PUBLIC_KEY": ("public_keys", _paths),
    "CVMFS_KEYS_DIR": ("keys_dir", _path),
    "CVMFS_BLACKLIST": ("blacklist", _path),
    "CVMFS_CACHE_BASE": ("cache_base", _path),
    "CVMFS_CACHE_DIR": ("cache_dir", _path),
    "CVMFS_SHARED_CACHE": ("shared_cache", is_on),
    "CVMFS_QUOTA_LIMIT": ("quota_bytes", _quota),
    "CVMFS_TIMEOUT": ("timeout_seconds", _seconds),
    "CVMFS_TIMEOUT_DIRECT": ("timeout_direct_seconds", _seconds),
    "CVMFS_LOW_SPEED_LIMIT": ("low_speed_limit", _count),
    "CVMFS_MAX_RETRIES": ("max_retries", _count),
    "CVMFS_BACKOFF_INIT": ("backoff_init_seconds", _seconds),
    "CVMFS_BACKOFF_MAX": ("backoff_max_seconds", _seconds),
    "CVMFS_PROXY_RESET_AFTER": ("proxy_reset_after_seconds", _seconds),
    "CVMFS_HOST_RESET_AFTER": ("host_reset_after_seconds", _seconds),
    "CVMFS_FOLLOW_REDIRECTS": ("follow_redirects", is_on),
    "CVMFS_ROOT_HASH": ("root_hash", _hash),
    "CVMFS_REPOSITORY_TAG": ("tag", _word),
    "CVMFS_REPOSITORY_DATE": ("date", _date),
    "CVMFS_AUTO_UPDATE": ("auto_update", is_on),
    "CVMFS_MAX_TTL": ("max_ttl_seconds", _minutes),
    "CVMFS_KCACHE_TIMEOUT": ("kernel_cache_seconds", _seconds),
    "CVMFS_CLAIM_OWNERSHIP": ("claim_ownership", is_on),
    "CVMFS_UID_MAP": ("uid_map", _path),
    "CVMFS_GID_MAP": ("gid_map", _path),
    "CVMFS_CHECK_PERMISSIONS": ("check_permissions", is_on),
    "CVMFS_WORLD_READABLE": ("world_readable", is_on),
    "CVMFS_SUID": ("suid", is_on),
    "CVMFS_MAGIC_XATTRS_VISIBILITY": ("magic_xattrs", _visibility),
    "CVMFS_DEFAULT_DOMAIN": ("default_domain", _text),
}
"""Every parameter this client acts on: the setting it makes and how its text is read."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter's text and where it was set: `FILE:LINE`, or `command line`."""

    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Parameters:
    """All parameters in force for one repository, known to this client or not."""

    fqrn: str
    values: Mapping[str, Parameter] = field(default_factory=dict)

    def settings(self) -> ClientSettings:
        """The validated settings. Raises SettingsError naming parameter, value and origin."""
        changes: dict[str, Any] = {}
        for name, parameter in self.values.items():
            if name not in PARAMETERS:
                continue
            attribute, parse = PARAMETERS[name]
            try:
                changes[attribute] = parse(expand_templates(parameter.value, self.fqrn))
            except (ValueError, FormatError) as error:
                raise SettingsError(
                    f"{name}={parameter.value!r} ({parameter.origin}): {error}",
                    hint="docs/reference/parameters.md lists what each parameter takes",
                ) from error
        settings = replace(ClientSettings(), **changes)
        _check(settings)
        return settings

    def environment(self) -> dict[str, str]:
        """What variant symlinks are expanded with: all parameters."""
        return {name: parameter.value for name, parameter in self.values.items()}


def _check(settings: ClientSettings) -> None:
    if settings.cache_dir is not None and settings.cache_base is not None:
        raise SettingsError("CVMFS_CACHE_DIR and CVMFS_CACHE_BASE exclude each other")
    fixed = [settings.root_hash, settings.tag, settings.date]
    if sum(value is not None for value in fixed) > 1:
        raise SettingsError(
            "CVMFS_ROOT_HASH, CVMFS_REPOSITORY_TAG and CVMFS_REPOSITORY_DATE exclude each other"
        )


def read_parameters(locations: Locations, fqrn: str, overrides: Sequence[str] = ()) -> Parameters:
    """Read the layers of `etc/cvmfs` for a repository; `overrides` are `CVMFS_X=Y` texts.

    Raises SettingsError for a file that cannot be read or understood, and for an override whose
    name this client does not know.
    """
    values: dict[str, Parameter] = {}
    for path in _layers(locations.config, fqrn):
        _read_layer(path, values)
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator or name not in PARAMETERS:
            raise SettingsError(
                f"-o {override}: expected CVMFS_NAME=VALUE with a known name",
                hint="docs/reference/parameters.md lists them",
            )
        values[name] = Parameter(value, "command line")
    return Parameters(fqrn, values)


def _layers(config: Path, fqrn: str) -> Iterator[Path]:
    domain = fqrn.partition(".")[2]
    yield config / "default.conf"
    yield from sorted((config / "default.d").glob("*.conf"))
    yield config / "default.local"
    yield config / "domain.d" / f"{domain}.conf"
    yield config / "domain.d" / f"{domain}.local"
    yield config / "config.d" / f"{fqrn}.conf"
    yield config / "config.d" / f"{fqrn}.local"


def _read_layer(path: Path, values: dict[str, Parameter]) -> None:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES)
        known = {name: parameter.value for name, parameter in values.items()}
        assignments = parse_parameters(text, environment=known)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except FormatError as error:
        raise SettingsError(f"{path}: {error}", hint=error.hint) from error
    for assignment in assignments:
        origin = f"{path}:{assignment.line}"
        values[assignment.name] = Parameter(assignment.value, origin)
