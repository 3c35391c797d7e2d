"""The chain of trust: master key, whitelist, certificate, manifest.

Every function checks bytes as received and either returns a value that proves it, or raises the
one reason why not. There is no switch to turn a check off. Nothing but this module makes a
`TrustedWhitelist` or a `TrustedManifest`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.errors import FormatError
from outcrop.formats import manifest as manifest_format
from outcrop.formats import whitelist as whitelist_format
from outcrop.formats.manifest import Breadcrumb, Manifest
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist, fingerprint_text
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.errors import (
    BadSignature,
    CertificateNotListed,
    NoMasterKey,
    RevisionRolledBack,
    WhitelistExpired,
    WhitelistUnsupported,
    WrongRepository,
)
from outcrop.trust.keys import Certificate, PublicKey, manifest_payload, whitelist_payload


@dataclass(frozen=True, slots=True)
class TrustedWhitelist:
    """A whitelist signed by a master key, of the right repository, and not expired when read.

    `data` is the file as received.
    """

    whitelist: Whitelist
    data: bytes


@dataclass(frozen=True, slots=True)
class TrustedManifest:
    """A manifest whose whole chain was checked.

    `data` is the file as received, `certificate` the PEM file, both fit to be stored or served on.
    """

    manifest: Manifest
    data: bytes
    certificate: bytes
    whitelist: TrustedWhitelist


def verify_whitelist(
    data: bytes, *, master_keys: Sequence[PublicKey], fqrn: str, now: int
) -> TrustedWhitelist:
    """Check a `.cvmfswhitelist` at unix time `now`; any of the master keys may have signed it.

    Raises FormatError, WhitelistUnsupported, NoMasterKey, BadSignature, WrongRepository or
    WhitelistExpired.
    """
    _check_size(data, whitelist_format.MAX_BYTES, f"{fqrn}: the whitelist")
    signed = SignedText.parse(data)
    whitelist = Whitelist.parse(signed.body)
    _check_supported(whitelist, fqrn)
    _check_body(signed, f"{fqrn}: the whitelist")
    _check_signed_by_any(master_keys, signed, fqrn)
    if whitelist.fqrn != fqrn:
        raise WrongRepository(f"the whitelist is for {whitelist.fqrn}, not for {fqrn}")
    if now >= whitelist.expires_at:
        raise WhitelistExpired(
            f"{fqrn}: the whitelist expired {(now - whitelist.expires_at) // 3600} hours ago",
            hint="the repository's owner must sign a new one; also compare this computer's clock",
        )
    return TrustedWhitelist(whitelist, data)


def read_manifest_unverified_pointer(data: bytes) -> Manifest:
    """Read a manifest only to learn which certificate object to fetch. Raises FormatError.

    Nothing else in it may be used, or shown, before `verify_manifest` returned.
    """
    _check_size(data, manifest_format.MAX_BYTES, "the manifest")
    return Manifest.parse(SignedText.parse(data).body)


def verify_manifest(
    data: bytes,
    *,
    certificate: bytes,
    whitelist: TrustedWhitelist,
    fqrn: str,
    blacklist: Blacklist,
    not_before: Breadcrumb | None,
) -> TrustedManifest:
    """Check a `.cvmfspublished`, in upstream's order.

    `certificate` is the PEM file the manifest points at; `not_before` what was believed last.
    Raises FormatError, WrongRepository, RevisionRolledBack, KeyRefused, BadSignature, Blacklisted
    or CertificateNotListed.
    """
    manifest = read_manifest_unverified_pointer(data)
    for name in (manifest.fqrn, whitelist.whitelist.fqrn):
        if name != fqrn:
            raise WrongRepository(f"the manifest or its whitelist is for {name}, not for {fqrn}")
    if not_before is not None:
        _check_not_rolled_back(manifest, not_before, fqrn)
    signer = Certificate.parse(certificate)
    _check_manifest_signature(data, signer, fqrn)
    blacklist.check_certificate(signer)
    check_listed(signer, whitelist.whitelist)
    blacklist.check_revision(fqrn, manifest.revision)
    return TrustedManifest(manifest, data, certificate, whitelist)


def _check_size(data: bytes, limit: int, subject: str) -> None:
    if len(data) > limit:
        raise FormatError(f"{subject} has {len(data)} bytes: the limit is {limit}")


def _check_body(signed: SignedText, subject: str) -> None:
    if not signed.body_hash_matches:
        raise BadSignature(f"{subject} was changed: its content hash is not {signed.hash}")


def _check_supported(whitelist: Whitelist, fqrn: str) -> None:
    if whitelist.wants_pkcs7:
        raise WhitelistUnsupported(
            f"{fqrn}: the whitelist is signed as PKCS #7 (Vpkcs7), which is not supported yet"
        )
    if whitelist.wants_ca_chain:
        raise WhitelistUnsupported(
            f"{fqrn}: the whitelist demands a certificate of a trusted authority (Wcachain), "
            "which is not supported yet"
        )


def _check_signed_by_any(keys: Sequence[PublicKey], signed: SignedText, fqrn: str) -> None:
    if not keys:
        raise NoMasterKey(
            f"{fqrn}: no master key to check the whitelist with",
            hint="give the repository's .pub file (--key, or CVMFS_PUBLIC_KEY)",
        )
    failures = []
    for key in keys:
        try:
            key.verify(signed.signature, whitelist_payload(signed.hash))
        except BadSignature as error:
            failures.append(str(error))
        else:
            return
    raise BadSignature(
        f"{fqrn}: no known master key signed the whitelist: {'; '.join(failures)}",
        hint="is this the right public key, and the right server?",
    )


def _check_manifest_signature(data: bytes, signer: Certificate, fqrn: str) -> None:
    signed = SignedText.parse(data)
    _check_body(signed, f"{fqrn}: the manifest")
    try:
        signer.public_key.verify(signed.signature, manifest_payload(signed.hash))
    except BadSignature as error:
        raise BadSignature(f"{fqrn}: the manifest: {error}") from error


def _check_not_rolled_back(manifest: Manifest, known: Breadcrumb, fqrn: str) -> None:
    is_earlier = manifest.published_at < known.published_at
    if is_earlier or manifest.revision < known.revision:
        raise RevisionRolledBack(
            f"{fqrn}: revision {manifest.revision} of time {manifest.published_at} is offered, "
            f"older than revision {known.revision} of time {known.published_at} known here",
            hint="the server or a proxy is stale; another one may have the current revision"
            if is_earlier
            else f"if the repository was made anew, remove cvmfschecksum.{fqrn} from the cache",
        )


def check_listed(signer: Certificate, whitelist: Whitelist) -> None:
    """See that a certificate may sign for the repository. Raises CertificateNotListed."""
    for listed in whitelist.fingerprints:
        if signer.fingerprint(listed.algorithm) == listed:
            return
    algorithms = {listed.algorithm for listed in whitelist.fingerprints}
    shown = ", ".join(fingerprint_text(signer.fingerprint(a)) for a in algorithms)
    raise CertificateNotListed(
        f"{whitelist.fqrn}: the certificate is not on the whitelist: {shown or 'empty'}"
    )
