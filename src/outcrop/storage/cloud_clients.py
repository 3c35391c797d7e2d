"""obstore clients for a bucket, from `s3.conf` or from what the environment says."""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from outcrop.storage.cloud import CloudClients, CloudStore
from outcrop.storage.cloud_errors import cloud_error
from outcrop.storage.errors import BucketMissing, StorageSettingsError, StorageUnavailable
from outcrop.storage.s3_settings import Flavor, S3Settings

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig, S3Config

DEFAULT_REGION: Final = "us-east-1"
_MAX_RETRY_SECONDS: Final = 280
"""A repeated request keeps its signature, which is good for five minutes."""

_TIMEOUT_SECONDS: Final = 60
_MAX_RETRIES: Final = 5


def open_by_settings(settings: S3Settings, prefix: str) -> CloudStore:
    """The store that `s3.conf` describes, below `prefix`. Raises StorageSettingsError."""
    _check_credentials(settings)
    is_azure = settings.flavor is Flavor.AZURE
    clients = _azure_clients(settings) if is_azure else _s3_clients(settings)
    return CloudStore(
        clients, prefix=prefix, place=settings.bucket_url, peeks=settings.peeks_before_put
    )


def open_bucket(scheme: str, bucket: str, prefix: str) -> CloudStore:
    """The store at a URL; server and credentials are in the environment, as its own tools have it.

    `scheme` is `s3`, `gs` or `az`. Raises StorageSettingsError.
    """
    options = _client_options(_TIMEOUT_SECONDS)
    retry = _retry(_MAX_RETRIES, _TIMEOUT_SECONDS)
    client: S3Store | GCSStore | AzureStore
    try:
        if scheme == "s3":
            client = S3Store(bucket, client_options=options, retry_config=retry)
        elif scheme == "gs":
            client = GCSStore(bucket, client_options=options, retry_config=retry)
        else:
            client = AzureStore(bucket, client_options=options, retry_config=retry)
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StorageSettingsError(
            f"{scheme}://{bucket}: {reason[:300]}",
            hint="credentials and, for an own server, its URL are taken from the environment",
        ) from error
    return CloudStore(
        CloudClients(reader=client, writer=client), prefix=prefix, place=f"{scheme}://{bucket}"
    )


def create_bucket(settings: S3Settings) -> bool:
    """Make the bucket where it is missing; whether it was. Raises StorageError."""
    if settings.flavor is Flavor.AZURE:
        return False
    client = _s3_client(settings)
    try:
        next(iter(obstore.list(client)), None)
    except (BaseError, OSError, ValueError) as error:
        problem = cloud_error(error, settings.bucket_url)
        if not isinstance(problem, BucketMissing):
            raise problem from error
    else:
        return False
    url = obstore.sign(client, "PUT", "", expires_in=timedelta(seconds=60))
    request = urllib.request.Request(url, data=_location(settings.region), method="PUT")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=settings.timeout_seconds):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        raise BucketMissing(
            f"{settings.bucket_url}: there is no such bucket, and making it failed: {error.code}",
            hint="make the bucket, or correct its name in s3.conf",
        ) from error
    except OSError as error:
        raise StorageUnavailable(f"{settings.bucket_url}: cannot be reached: {error}") from error


def _location(region: str) -> bytes:
    if region in ("", DEFAULT_REGION, "none"):
        return b""
    return (
        b'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<LocationConstraint>" + region.encode() + b"</LocationConstraint>"
        b"</CreateBucketConfiguration>"
    )


def _check_credentials(settings: S3Settings) -> None:
    """Without any, obstore would ask the machine's cloud for them, for a long time."""
    if settings.secret_key or any(os.environ.get(name) for name in _CREDENTIALS):
        return
    raise StorageSettingsError(
        f"no access key for {settings.bucket_url}",
        hint="set CVMFS_S3_ACCESS_KEY and CVMFS_S3_SECRET_KEY in s3.conf, or AWS_ACCESS_KEY_ID "
        "and AWS_SECRET_ACCESS_KEY in the environment",
    )


_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
)


def _s3_clients(settings: S3Settings) -> CloudClients:
    # Not every service deletes many at once; the one who deletes does so in parallel.
    headers = {"x-amz-acl": settings.canned_acl} if settings.canned_acl else {}
    writer = _s3_client(settings, headers=headers, deletes_singly=True)
    return CloudClients(reader=_s3_client(settings), writer=writer)


def _s3_client(
    settings: S3Settings,
    *,
    headers: Mapping[str, str] | None = None,
    deletes_singly: bool = False,
) -> S3Store:
    config: S3Config = {
        "endpoint": settings.bucket_url if settings.is_bucket_in_host else settings.endpoint,
        "virtual_hosted_style_request": settings.is_bucket_in_host,
        "region": settings.region or DEFAULT_REGION,
        "disable_bulk_delete": deletes_singly,
    }
    if settings.secret_key:
        config["access_key_id"] = settings.access_key
        config["secret_access_key"] = settings.secret_key
    return S3Store(
        settings.bucket,
        config=config,
        client_options=_client_options(settings.timeout_seconds, settings.proxy, headers),
        retry_config=_retry(settings.max_retries, settings.timeout_seconds),
    )


def _azure_clients(settings: S3Settings) -> CloudClients:
    config: AzureConfig = {
        "account_name": settings.access_key or settings.host.partition(".")[0],
        "endpoint": settings.endpoint,
    }
    if settings.secret_key:
        config["account_key"] = settings.secret_key
    client = AzureStore(
        settings.bucket,
        config=config,
        client_options=_client_options(settings.timeout_seconds, settings.proxy),
        retry_config=_retry(settings.max_retries, settings.timeout_seconds),
    )
    return CloudClients(reader=client, writer=client)


def _client_options(
    timeout_seconds: int, proxy: str = "", headers: Mapping[str, str] | None = None
) -> "ClientConfig":
    options: ClientConfig = {
        "allow_http": True,  # the endpoint says whether it is
        "connect_timeout": timedelta(seconds=timeout_seconds),
        "read_timeout": timedelta(seconds=timeout_seconds),
        "timeout": timedelta(seconds=10 * timeout_seconds),
        "user_agent": "cvmfs outcrop",
    }
    if proxy:
        options["proxy_url"] = proxy
    if headers:
        options["default_headers"] = dict(headers)
    return options


def _retry(max_retries: int, timeout_seconds: int) -> "RetryConfig":
    return {
        "max_retries": max_retries,
        "retry_timeout": timedelta(
            seconds=min((max_retries + 1) * timeout_seconds, _MAX_RETRY_SECONDS)
        ),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=10),
            "base": 2,
        },
    }
