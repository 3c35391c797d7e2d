"""The master key, wherever it is: in the key directory, or on a PKCS #11 token.

A token (a smart card, a hardware module) signs without ever giving the key away. What it is asked
for is the mechanism CKM_RSA_PKCS over the whitelist's hash (spec 5.6), so whitelists are the same
bytes wherever the key is. The PIN comes from the environment or a prompt, never from an argument.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from outcrop.errors import OutcropError
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.session import read_key
from outcrop.storage.locations import Locations
from outcrop.trust.keys import PublicKey
from outcrop.trust.signing import Signer, key_signer, public_key_of

if TYPE_CHECKING:
    import pkcs11

KEY_LABEL: Final = "CernVM-FS master key"
"""What a key that we put on a token is called."""


class TokenError(OutcropError):
    """A PKCS #11 token is not there, refuses the PIN, or does not have the key."""

    exit_code = 7


class MasterKey(Protocol):
    """Something that signs whitelists."""

    def public_key(self) -> PublicKey:
        """The half that readers have."""

    def sign(self, payload: bytes) -> bytes:
        """A PKCS #1 v1.5 block of type 1 around the payload."""


class FileMasterKey:
    """A private key in PEM form."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem
        self._sign: Signer = key_signer(pem)

    @classmethod
    def read(cls, locations: Locations, fqrn: str) -> "FileMasterKey":
        """`FQRN.masterkey` of the key directory. Raises PublisherSettingsError."""
        return cls(read_key(locations, f"{fqrn}.masterkey"))

    def public_key(self) -> PublicKey:
        """The half that readers have. Raises FormatError, KeyRefused."""
        return public_key_of(self._pem)

    def sign(self, payload: bytes) -> bytes:
        """Sign with it."""
        return self._sign(payload)


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Which token: the vendor's PKCS #11 library, and the token's label if there are several."""

    module: Path
    pin: str
    token_label: str | None = None
    key_label: str | None = None

    def __repr__(self) -> str:
        return f"TokenSettings({self.module}, {self.token_label})"


class TokenMasterKey:
    """An RSA key on a token, in an open session."""

    def __init__(self, session: "pkcs11.Session", settings: TokenSettings) -> None:
        self._session = session
        self._settings = settings

    def public_key(self) -> PublicKey:
        """The half that readers have. Raises TokenError."""
        import pkcs11

        key = self._private_key()
        number = [int.from_bytes(key[a], "big") for a in (
            pkcs11.Attribute.MODULUS, pkcs11.Attribute.PUBLIC_EXPONENT)]  # fmt: skip
        return PublicKey(*number)

    def sign(self, payload: bytes) -> bytes:
        """Have the token sign. Raises TokenError."""
        import pkcs11

        key = self._private_key()
        with _token_errors(self._settings):
            return bytes(key.sign(payload, mechanism=pkcs11.Mechanism.RSA_PKCS))

    def store(self, private_key_pem: bytes) -> None:
        """Put a key on the token, where it stays: it can sign, and cannot be read."""
        import pkcs11

        attributes = _private_key_attributes(private_key_pem)
        with _token_errors(self._settings):
            if self._find():
                raise TokenError(
                    f"the token has a key {self._label} already",
                    hint="delete it first, or choose another label",
                )
            self._session.create_object(
                attributes
                | {
                    pkcs11.Attribute.LABEL: self._label,
                    pkcs11.Attribute.TOKEN: True,
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                }
            )

    def delete(self) -> None:
        """Remove the key from the token for good. Raises TokenError."""
        key = self._private_key()
        with _token_errors(self._settings):
            key.destroy()

    @property
    def _label(self) -> str:
        return self._settings.key_label or KEY_LABEL

    def _find(self) -> list[Any]:
        import pkcs11

        query: dict[Any, Any] = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.RSA,
            pkcs11.Attribute.LABEL: self._label,
        }
        return list(self._session.get_objects(query))

    def _private_key(self) -> Any:
        with _token_errors(self._settings):
            found = self._find()
        if len(found) != 1:
            raise TokenError(
                f"the token has {len(found) or 'no'} RSA keys called {self._label!r}",
                hint="name the key with --key-label (pkcs11-tool --list-objects shows them)",
            )
        return found[0]


@contextmanager
def open_token(settings: TokenSettings, *, writable: bool = False) -> Iterator[TokenMasterKey]:
    """A session with a token. Raises TokenError."""
    try:
        import pkcs11
    except ImportError as error:
        raise TokenError(
            "PKCS #11 tokens need the Python package python-pkcs11",
            hint="pip install 'outcrop[token]'",
        ) from error
    with _token_errors(settings):
        library = pkcs11.lib(str(settings.module))
        tokens = list(library.get_tokens(token_label=settings.token_label))
        if len(tokens) != 1:
            names = ", ".join(repr(token.label) for token in library.get_tokens())
            raise TokenError(
                f"{len(tokens) or 'no'} tokens fit; {settings.module} has: {names or 'none'}",
                hint="name one with --token-label",
            )
        session = tokens[0].open(rw=writable, user_pin=settings.pin)
    try:
        yield TokenMasterKey(session, settings)
    finally:
        session.close()


@contextmanager
def _token_errors(settings: TokenSettings) -> Iterator[None]:
    import pkcs11

    try:
        yield
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid) as error:
        raise TokenError(f"{settings.module}: the PIN is wrong", hint="a few wrong PINs lock it"
        ) from error  # fmt: skip
    except pkcs11.PinLocked as error:
        raise TokenError(f"{settings.module}: the PIN is locked after wrong attempts") from error
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        what = str(error) or type(error).__name__
        raise TokenError(f"{settings.module}: {what}") from error


def _private_key_attributes(pem: bytes) -> dict[Any, Any]:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from pkcs11.util.rsa import decode_rsa_private_key

    public_key_of(pem)  # refuses what is no RSA key, with a message
    key = load_pem_private_key(pem, password=None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return dict(decode_rsa_private_key(der))


def check_pair(master: MasterKey, public_keys: tuple[PublicKey, ...], fqrn: str) -> None:
    """Raises PublisherSettingsError if readers could not verify what the master key signs."""
    if master.public_key() not in public_keys:
        raise PublisherSettingsError(
            f"the master key is not one of those in {fqrn}.pub: readers would refuse its signature",
            hint="use the repository's master key, or replace the public key everywhere first",
        )
