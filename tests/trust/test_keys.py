import base64
import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from tests.support.golden_objects import golden_fields, golden_file, golden_object
from tests.support.hostile import gives_value_or, inputs
from tests.support.keys import other_keys, repository_keys

from outcrop.errors import FormatError, OutcropError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.trust.errors import BadSignature, KeyRefused
from outcrop.trust.keys import (
    MAX_KEY_BITS,
    MAX_PEM_BYTES,
    Certificate,
    PublicKey,
    load_public_keys,
    manifest_payload,
    whitelist_payload,
)

PUBLIC = repository_keys().master_public_pem
CERTIFICATE = repository_keys().certificate_pem
GOLDEN = golden_object("basic", golden_fields("basic")["X"], "X")


def pem(label, der):
    """DER bytes in PEM armour."""
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, base64.encodebytes(der), label)


def test_reads_every_public_key_of_a_file_and_nothing_else():
    together = b"a comment\n" + PUBLIC + CERTIFICATE + other_keys().master_public_pem
    keys = load_public_keys(together)
    assert keys == load_public_keys(PUBLIC) + load_public_keys(other_keys().master_public_pem)


def test_reads_windows_line_ends_and_the_older_label():
    assert load_public_keys(PUBLIC.replace(b"\n", b"\r\n")) == load_public_keys(PUBLIC)
    (key,) = load_public_keys(PUBLIC)
    numbers = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    assert load_public_keys(numbers.public_bytes(Encoding.PEM, PublicFormat.PKCS1)) == (key,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pem",
        CERTIFICATE,
        PUBLIC.replace(b"END PUBLIC", b"END PRIVATE"),
        PUBLIC[:100],
        PUBLIC.replace(b"MII", b"M\xffI"),
        pem(b"PUBLIC KEY", b"not DER"),
        b"-----BEGIN PUBLIC KEY-----\nA===\n-----END PUBLIC KEY-----\n",
        PUBLIC + b" " * MAX_PEM_BYTES,
    ],
    ids=range(9),  # keys are made anew in each run
)
def test_refuses_what_is_no_public_key(data):
    with pytest.raises(FormatError):
        load_public_keys(data)


def test_refuses_keys_that_are_not_rsa():
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeyRefused, match="not an RSA key"):
        load_public_keys(der)


@pytest.mark.parametrize(
    ("bits", "low_bit", "exponent"),
    [
        (511, 1, 65537),
        (MAX_KEY_BITS + 1, 1, 65537),
        (2048, 1, 1),
        (2048, 1, 65536),
        (2048, 1, (1 << 32) + 1),
        (2048, 0, 65537),
        (2048, 1, -3),
    ],
)
def test_refuses_keys_of_impossible_size(bits, low_bit, exponent):
    modulus = 1 << bits - 1 | low_bit
    with pytest.raises(KeyRefused):
        PublicKey(modulus, exponent)
    with pytest.raises(KeyRefused):
        PublicKey(0, exponent)


def test_the_largest_key_can_be_shown():
    assert repr(PublicKey((1 << MAX_KEY_BITS) - 1, 65537)) == "PublicKey(16384 bits)"


@given(inputs(PUBLIC, CERTIFICATE))
@settings(deadline=None)
def test_any_bytes_give_keys_or_an_error_of_ours(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gives_value_or(OutcropError, load_public_keys, data)
        gives_value_or(OutcropError, Certificate.parse, data)


@pytest.mark.parametrize(("algorithm", "tail"), [
    (HashAlgorithm.SHA1, ""), (HashAlgorithm.SHAKE128, "-shake128"),
])  # fmt: skip
def test_a_fingerprint_is_the_hash_of_the_der_form(algorithm, tail):
    certificate = Certificate.parse(GOLDEN)
    body = b"".join(GOLDEN.split(b"-----")[2].split())
    assert certificate.der == base64.b64decode(body)
    assert certificate.fingerprint(algorithm) == ContentHash.of(certificate.der, algorithm)
    assert str(certificate.fingerprint(algorithm)).endswith(tail)


def test_the_golden_fingerprint_is_on_the_golden_whitelist():
    fingerprint = Certificate.parse(GOLDEN).fingerprint(HashAlgorithm.SHA1)
    line = golden_file("basic", "repo/.cvmfswhitelist").splitlines()[3]
    assert fingerprint.digest.hex(":").upper().encode() == line


def test_the_first_certificate_of_a_file_counts():
    both = b"Certificate:\n  Data: text\n" + CERTIFICATE + other_keys().certificate_pem
    assert Certificate.parse(both) == Certificate.parse(CERTIFICATE)


@pytest.mark.parametrize(
    "data", [b"", PUBLIC, CERTIFICATE[:300], pem(b"CERTIFICATE", b"\x30\x00"),
             pem(b"CERTIFICATE", Certificate.parse(CERTIFICATE).der + b"x")],
)  # fmt: skip
def test_refuses_what_is_no_certificate(data):
    with pytest.raises(FormatError):
        Certificate.parse(data)


def small_key():
    """An RSA key whose private half is at hand: (public key, modulus, private exponent)."""
    key = rsa.generate_private_key(public_exponent=3, key_size=2048)
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    return PublicKey(modulus, 3), modulus, numbers.d


KEY, MODULUS, PRIVATE = small_key()
PAYLOAD = b"0123456789abcdef0123456789abcdef01234567"
BLOCK = b"\0\1" + b"\xff" * (256 - 3 - len(PAYLOAD)) + b"\0" + PAYLOAD


def signed(block):
    """What the owner of the key signs as a whole block."""
    return pow(int.from_bytes(block, "big"), PRIVATE, MODULUS).to_bytes(256, "big")


def test_accepts_exactly_the_block_of_pkcs1():
    KEY.verify(signed(BLOCK), PAYLOAD)


@pytest.mark.parametrize(
    "block",
    [
        b"\0\1" + b"\xff" * (256 - 3 - len(PAYLOAD) - 1) + b"\0" + PAYLOAD + b"x",
        b"\0\1" + b"\xff" * 8 + b"\0" + PAYLOAD + bytes(256 - 11 - len(PAYLOAD)),
        b"\0\2" + BLOCK[2:],
        b"\0\0" + BLOCK[2:],
        b"\1" + BLOCK[1:-1][:255],
        BLOCK.replace(b"\xff\0", b"\xff\1"),
        BLOCK[:100] + b"\xfe" + BLOCK[101:],
        BLOCK[:-1] + b"8",
        BLOCK[:-40] + PAYLOAD.upper(),
        bytes(256),
    ],
)
def test_refuses_every_other_block_though_the_owner_signed_it(block):
    with pytest.raises(BadSignature):
        KEY.verify(signed(block), PAYLOAD)


def test_refuses_a_cube_root_forged_for_a_checker_that_stops_after_the_payload():
    """Bleichenbacher 2006: exponent 3, a short padding, and garbage that absorbs the rounding."""
    head = b"\0\1" + b"\xff" * 8 + b"\0" + PAYLOAD
    lowest = int.from_bytes(head + bytes(256 - len(head)), "big")
    highest = int.from_bytes(head + b"\xff" * (256 - len(head)), "big")
    root = cube_root(highest)
    assert lowest <= root**3 <= highest, "the forgery itself must be right"
    with pytest.raises(BadSignature):
        KEY.verify(root.to_bytes(256, "big"), PAYLOAD)


def cube_root(number):
    """The largest integer whose cube is not above the number."""
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


def test_refuses_the_same_signature_with_the_modulus_added_or_of_another_length():
    genuine = signed(BLOCK)
    number = int.from_bytes(genuine, "big")
    forms = [genuine[:-1], b"\0" + genuine, genuine + b"\0", b"", genuine * 100]
    if number + MODULUS < 1 << 2048:
        forms.append((number + MODULUS).to_bytes(256, "big"))
    for form in forms:
        with pytest.raises(BadSignature):
            KEY.verify(form, PAYLOAD)


def test_numbers_not_below_the_modulus_are_refused():
    with pytest.raises(BadSignature, match="modulus"):
        KEY.verify(b"\xff" * 256, PAYLOAD)


def test_a_key_too_short_for_the_payload_is_refused():
    short = PublicKey((1 << 511) + 1, 3)
    with pytest.raises(KeyRefused, match="too short"):
        short.verify(bytes(64), b"x" * 60)


def test_payloads_of_manifest_and_whitelist_differ():
    content_hash = ContentHash(HashAlgorithm.SHAKE128, bytes(20))
    assert whitelist_payload(content_hash) == b"0" * 40 + b"-shake128"
    sha1 = ContentHash.of(b"0" * 40 + b"-shake128", HashAlgorithm.SHA1).digest
    assert manifest_payload(content_hash).hex() == "3021300906052b0e03021a05000414" + sha1.hex()
