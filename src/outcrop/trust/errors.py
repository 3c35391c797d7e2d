"""Bytes that are well-formed and must not be believed: one class for each reason."""

from outcrop.errors import OutcropError


class TrustError(OutcropError):
    """The trust family: nothing of what was refused may be shown, cached or served."""

    exit_code = 4


class BadSignature(TrustError):
    """The text was changed, or whoever signed it has another key."""


class NoMasterKey(TrustError):
    """No master key to check a whitelist with."""


class KeyRefused(TrustError):
    """The key or certificate is readable, but not of a kind or size to rely on."""


class WhitelistExpired(TrustError):
    """The whitelist's time is over."""


class WhitelistUnsupported(TrustError):
    """The whitelist asks for a kind of proof that is not built yet."""


class WrongRepository(TrustError):
    """Genuine, but of another repository."""


class CertificateNotListed(TrustError):
    """The whitelist does not have the certificate that signed the manifest."""


class Blacklisted(TrustError):
    """The certificate or the revision was revoked."""


class RevisionRolledBack(TrustError):
    """Genuine, but older than what was seen before: somebody replays the past."""
