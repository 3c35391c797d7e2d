"""What obstore's exceptions mean: it tells everything in one long text, we need the fact of it."""

import re
from typing import Final

from obstore.exceptions import NotSupportedError, PermissionDeniedError, UnauthenticatedError

from outcrop.storage.errors import (
    AccessDenied,
    BucketMissing,
    ObjectNotFound,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

_CODE: Final = re.compile(r"<Code>\s*([A-Za-z]{1,60})\s*</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_KIND: Final = re.compile(r"\bkind: ([A-Z][a-z]{1,20}),")
_RETRIES: Final = re.compile(r"after \d+ retries")
_FULL: Final = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "AccountQuotaExceeded"}
_NO_BUCKET: Final = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_DENIED: Final = {"401", "403"}


def cloud_error(error: Exception, place: str) -> StorageError:
    """The storage error for what obstore raised at `place`; raise it `from` the original.

    No more than the service's code is taken over: the rest of its answer may quote the request.
    """
    text = str(error)
    code = _find(_CODE, text)
    status = _find(_STATUS, text)
    told = " ".join(part for part in (status, code) if part)
    if code in _NO_BUCKET:
        return BucketMissing(
            f"{place}: there is no such bucket ({code})",
            hint="make the bucket, or correct its name in s3.conf",
        )
    if code in _FULL or status == "507":
        return StorageFull(f"{place}: {told}", hint="the bucket or its owner has a quota")
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(f"{place}: not found")
    is_denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if is_denied or status in _DENIED or code in _HINTS:
        return AccessDenied(f"{place}: access denied ({told})", hint=_HINTS.get(code, _KEYS))
    return StorageUnavailable(
        f"{place}: {told or _reason(text)}", hint="see whether the service is up, and try again"
    )


def is_not_partial(error: BaseException | None) -> bool:
    """Whether a server was asked for a range and answered as if for the whole file."""
    return error is not None and "NotPartial" in str(error)


def is_not_supported(error: BaseException | None) -> bool:
    """Whether a server says that it does not know conditions on puts."""
    return isinstance(error, NotSupportedError) or _find(_STATUS, str(error)) == "501"


_KEYS: Final = "check the access key, the secret key and what its owner may do in the bucket"
_HINTS: Final = {
    "SignatureDoesNotMatch": "check the secret key and, if the server has one, the region",
    "InvalidAccessKeyId": "check the access key",
    "RequestTimeTooSkewed": "set this computer's clock",
    "AccessControlListNotSupported": "set CVMFS_S3_X_AMZ_ACL= and give the bucket a policy",
}


def _find(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match is not None else ""


def _reason(text: str) -> str:
    """What is worth telling of a failure without an answer."""
    kind = _find(_KIND, text)
    reason = _KINDS.get(kind, f"no usable answer ({kind})" if kind else "no usable answer")
    retries = _RETRIES.search(text)
    return f"{reason} {retries[0]}" if retries is not None else reason


_KINDS: Final = {
    "Connect": "no connection",
    "Timeout": "no answer in time",
    "Interrupted": "the connection was cut",
}
