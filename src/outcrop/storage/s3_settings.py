"""`s3.conf`: where a bucket is and who may write to it (spec 29), read with every mistake named."""

import enum
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from outcrop.errors import FormatError
from outcrop.formats.parameters import parse_parameters
from outcrop.storage.errors import StorageSettingsError

_MAX_FILE_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)


class Flavor(enum.Enum):
    """Which protocol the service speaks."""

    AWS_V4 = "awsv4"
    AZURE = "azure"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """A bucket (for Azure: a container), its server, and how to talk to it.

    The secrets may be empty: they are looked for in the environment then. `canned_acl` is sent
    with every object; empty: none is. `parallel` is how many requests are made at once.
    """

    bucket: str
    host: str = ""
    port: int = 0
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    use_https: bool = False
    is_bucket_in_host: bool = True
    region: str = ""
    flavor: Flavor = Flavor.AWS_V4
    parallel: int = 16
    max_retries: int = 3
    timeout_seconds: int = 60
    peeks_before_put: bool = True
    canned_acl: str = "public-read"
    proxy: str = ""

    @property
    def endpoint(self) -> str:
        """The server's URL, without the bucket."""
        scheme = "https" if self.use_https else "http"
        port = f":{self.port}" if self.port not in (0, 443 if self.use_https else 80) else ""
        return f"{scheme}://{self.host}{port}"

    @property
    def bucket_url(self) -> str:
        """Where readers find the bucket."""
        if self.flavor is Flavor.AWS_V4 and self.is_bucket_in_host:
            return self.endpoint.replace("://", f"://{self.bucket}.", 1)
        return f"{self.endpoint}/{self.bucket}"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read `s3.conf`; one that others can read is warned of. Raises StorageSettingsError."""
        try:
            with file.open("rb") as opened:
                mode = file.stat().st_mode
                text = opened.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise StorageSettingsError(f"{file}: {error.strerror}") from error
        try:
            settings = cls.parse(text)
        except FormatError as error:
            raise StorageSettingsError(f"{file}: {error}", hint=error.hint) from error
        if settings.secret_key and mode & 0o077:
            _log.warning("%s has a secret in it, and others can read it: chmod 600 it", file)
        return settings

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Settings from the text of a file. Raises FormatError."""
        try:
            values = {item.name: item.value for item in parse_parameters(text, environment={})}
        except FormatError as error:  # it quotes the text, which has a secret in it
            line = _LINE.search(str(error))
            where = f"{line[0]}: " if line is not None else ""
            raise FormatError(f"{where}not NAME=VALUE") from None
        for name in values:
            if name.startswith("CVMFS_S3_") and name not in S3_PARAMETERS:
                raise FormatError(f"unknown parameter {name[:60]}", hint="remove the line")
        return cls(**_attributes(values))


def _attributes(values: Mapping[str, str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for name, (attribute, parse) in S3_PARAMETERS.items():
        value = values.get(name)
        if value is None or (not value and attribute != "canned_acl"):
            continue
        try:
            attributes[attribute] = parse(value)
        except ValueError as error:  # the value is not shown: lines get joined, secrets with them
            raise FormatError(f"{name}: {error}") from None
    for name in ("CVMFS_S3_BUCKET", "CVMFS_S3_HOST"):
        if S3_PARAMETERS[name][0] not in attributes:
            raise FormatError(f"{name} is not set")
    if bool(attributes.get("access_key")) != bool(attributes.get("secret_key")):
        raise FormatError("CVMFS_S3_ACCESS_KEY and CVMFS_S3_SECRET_KEY are set together or not")
    return attributes


def _host(text: str) -> str:
    if _HOST.fullmatch(text) is None:
        raise ValueError("not the name of a host")
    return text


def _bucket(text: str) -> str:
    if _BUCKET.fullmatch(text) is None:
        raise ValueError("not the name of a bucket")
    return text


def _printable(text: str) -> str:
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("characters that it cannot have")
    return text


def _number(text: str, smallest: int, largest: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not smallest <= int(text[:9]) <= largest:
        raise ValueError(f"not a number from {smallest} to {largest}")
    return int(text[:9])


def _flavor(text: str) -> Flavor:
    if text == "awsv2":
        raise ValueError("signatures of version 2 are not made; remove it for version 4")
    try:
        return Flavor(text)
    except ValueError:
        raise ValueError("not awsv4 or azure") from None


def _switch(text: str) -> bool:
    if text.lower() not in (*_ON, *_OFF):
        raise ValueError("not on or off")
    return text.lower() in _ON


def _proxy(text: str) -> str:
    if _PROXY.fullmatch(text) is None:
        raise ValueError("not http://HOST:PORT")
    return text if "://" in text else f"http://{text}"


_ON: Final = ("yes", "on", "1", "true")
_OFF: Final = ("no", "off", "0", "false")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]+\]")
_BUCKET: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._:-]{0,254}")
_LINE: Final = re.compile(r"\bline \d+")
_PROXY: Final = re.compile(r"(https?://)?[A-Za-z0-9._\[\]:-]{1,300}/?")

S3_PARAMETERS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "CVMFS_S3_HOST": ("host", _host),
    "CVMFS_S3_PORT": ("port", lambda text: _number(text, 1, 65535)),
    "CVMFS_S3_BUCKET": ("bucket", _bucket),
    "CVMFS_S3_ACCESS_KEY": ("access_key", _printable),
    "CVMFS_S3_SECRET_KEY": ("secret_key", _printable),
    "CVMFS_S3_USE_HTTPS": ("use_https", _switch),
    # As upstream has it: this very word is off, all else is on.
    "CVMFS_S3_DNS_BUCKETS": ("is_bucket_in_host", lambda text: text != "false"),
    "CVMFS_S3_REGION": ("region", _printable),
    "CVMFS_S3_FLAVOR": ("flavor", _flavor),
    "CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS": (
        "parallel",
        lambda text: min(_number(text, 1, 10_000), 64),
    ),
    "CVMFS_S3_MAX_RETRIES": ("max_retries", lambda text: _number(text, 0, 100)),
    "CVMFS_S3_TIMEOUT": ("timeout_seconds", lambda text: _number(text, 1, 86400)),
    "CVMFS_S3_PEEK_BEFORE_PUT": ("peeks_before_put", _switch),
    "CVMFS_S3_X_AMZ_ACL": ("canned_acl", _printable),
    "CVMFS_S3_PROXY": ("proxy", _proxy),
}
"""Every parameter of `s3.conf`: the attribute it sets, and how its text is read (ValueError)."""
