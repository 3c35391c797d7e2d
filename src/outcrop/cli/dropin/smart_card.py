"""`cvmfs_server masterkeycard`: the master key on a smart card, through any PKCS #11 library."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from outcrop.cli.dropin.call import Call
from outcrop.cli.dropin.options import Names, is_confirmed, outcrop
from outcrop.cli.dropin.repositories import choose
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.master_keys import PIN_VARIABLE, token_settings
from outcrop.publisher.master_key import TokenError, TokenMasterKey, open_token
from outcrop.storage.locations import Locations
from outcrop.trust.signing import public_key_pem

LIBRARY_VARIABLE: Final = "CVMFS_MASTERKEYCARD_LIBRARY"
"""Where the PKCS #11 library is, if it is not where OpenSC puts it."""

LABEL_VARIABLE: Final = "CVMFS_MASTERKEYCARD_LABEL"
"""Which card it is, if the library knows several."""

_LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib64/opensc-pkcs11.so",
    "/usr/lib64/pkcs11/opensc-pkcs11.so",
    "/usr/lib/opensc-pkcs11.so",
)
_DEFAULT_PIN: Final = "123456"


def find_library() -> Path | None:
    """The library that knows the card, if there is one."""
    named = os.environ.get(LIBRARY_VARIABLE)
    candidates = [named] if named else _LIBRARIES
    return next((Path(name) for name in candidates if Path(name).is_file()), None)


def card_options(locations: Locations, fqrn: str) -> list[str]:
    """Options to sign with the card, if the master key is not on this disk and there is a card."""
    library = find_library()
    if library is None or (locations.keys / f"{fqrn}.masterkey").exists():
        return []
    return _token(library)


def _token(library: Path) -> list[str]:
    os.environ.setdefault(PIN_VARIABLE, _DEFAULT_PIN)
    label = os.environ.get(LABEL_VARIABLE)
    return ["--token", str(library), *(["--token-label", label] if label else [])]


def _required() -> list[str]:
    library = find_library()
    if library is None:
        raise TokenError(
            "there is no PKCS #11 library for a smart card",
            hint=f"install opensc, or name one in {LIBRARY_VARIABLE}",
        )
    return _token(library)


def _with_card(action: Callable[[TokenMasterKey], int]) -> int:
    _, library, *_ = _required()
    label = os.environ.get(LABEL_VARIABLE)
    with open_token(token_settings(Path(library), label, None)) as card:
        return action(card)


def _is_there(call: Call) -> int:
    return _with_card(lambda _: _say(call, "masterkeycard is available"))


def _has_key(call: Call) -> int:
    def look(card: TokenMasterKey) -> int:
        card.public_key()
        return _say(call, "masterkeycard key is available")

    return _with_card(look)


def _print_public_key(call: Call) -> int:
    def show(card: TokenMasterKey) -> int:
        return _say(call, public_key_pem(card.public_key()).decode().rstrip("\n"))

    return _with_card(show)


def _store(call: Call) -> int:
    (fqrn,) = choose(call.locations, Names.ONE, call.given.words)
    return outcrop("masterkey", "store", fqrn, *_required())


def _delete(call: Call) -> int:
    question = "You are about to delete a card's stored certificate!  Are you sure"
    if not call.given.has("f") and not is_confirmed(question):
        return FAILED
    # The key is found by its label; which repository it is of does not matter.
    fqrns = choose(call.locations, Names.MANY, call.given.words or ["*"])
    return outcrop("masterkey", "delete", fqrns[0], "--yes", *_required())


def _convert(call: Call) -> int:
    """Use the card from now on: only a repository whose master key is on it."""
    fqrns = choose(call.locations, Names.MANY, call.given.words)
    question = (
        f"The following repositories will be converted to use the masterkeycard: "
        f"{' '.join(fqrns)}\nThis will remove the masterkey and cannot be undone!  Are you sure"
    )
    if not call.given.has("f") and not is_confirmed(question):
        return FAILED
    code = DONE
    for fqrn in fqrns:
        if outcrop("masterkey", "check", fqrn, *_required()) != DONE:
            code = FAILED
            continue
        key = call.locations.keys / f"{fqrn}.masterkey"
        call.output.line(f"Removing {key}")
        key.unlink(missing_ok=True)
        code = outcrop("resign", fqrn, "--days", "7", *_required()) or code
    return code


def _say(call: Call, text: str) -> int:
    call.output.line(text)
    return DONE


ACTIONS: Final[Mapping[str, Callable[[Call], int]]] = {
    "a": _is_there,
    "k": _has_key,
    "r": _print_public_key,
    "s": _store,
    "d": _delete,
    "c": _convert,
}
"""What each of its letters does."""
