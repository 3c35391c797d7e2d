"""The table of targets: for each parser its one-line invariant, seeds, and what to do with bytes.

A target returns if the invariant held and raises if not. The errors a parser may raise on purpose
are part of the invariant; any other exception is a finding.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.support.keys import repository_keys

from outcrop.errors import FormatError, OutcropError
from outcrop.formats.chunking import ChunkSizes, Cutter, cut_marks
from outcrop.formats.dirtab import Dirtab
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.graft import Graft
from outcrop.formats.hashes import ContentHash
from outcrop.formats.id_map import IdMap
from outcrop.formats.letter import Letter, open_envelope
from outcrop.formats.manifest import Breadcrumb, Manifest
from outcrop.formats.meta_info import parse_meta_info, serialize_meta_info
from outcrop.formats.parameters import parse_parameters
from outcrop.formats.signed import SignedText
from outcrop.formats.timestamps import parse_utc
from outcrop.formats.whitelist import Whitelist, fingerprint_text, parse_fingerprint
from outcrop.formats.xattrs import parse_xattrs, serialize_xattrs
from outcrop.publisher.difflist import parse_diff_list
from outcrop.storage.s3_settings import S3Settings
from outcrop.storage.upstream import parse_upstream
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.keys import Certificate, load_public_keys
from outcrop.trust.signing import public_key_of


class InvariantBroken(Exception):
    """A parser accepted something it contradicts itself about."""


@dataclass(frozen=True)
class Target:
    """One parser under fire."""

    invariant: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes] = (b"",)


def require(holds: bool, what: str) -> None:
    """Raise InvariantBroken unless it holds."""
    if not holds:
        raise InvariantBroken(what)


def text_of(data: bytes) -> str:
    """Any bytes as text, lone surrogates included."""
    return data.decode("utf-8", "surrogateescape")


def hash_text(data: bytes) -> None:
    """Parse a content hash."""
    with suppress(FormatError):
        text = text_of(data)
        require(str(ContentHash.parse(text)) == text, "another text form")


def fqrn(data: bytes) -> None:
    """Check a repository name."""
    with suppress(FormatError):
        name = check_fqrn(text_of(data))
        require(name.isascii() and "/" not in name and name not in (".", ".."), "unsafe name")


def signed_text(data: bytes) -> None:
    """Split a signed text."""
    with suppress(FormatError):
        require(SignedText.parse(data).serialize() == data, "written back differently")


def manifest(data: bytes) -> None:
    """Parse a manifest's body."""
    with suppress(FormatError):
        once = Manifest.parse(data)
        require(Manifest.parse(once.serialize()) == once, "written back differently")


def breadcrumb(data: bytes) -> None:
    """Parse a cache breadcrumb."""
    with suppress(FormatError):
        once = Breadcrumb.parse(data)
        require(Breadcrumb.parse(once.serialize()) == once, "written back differently")


def whitelist(data: bytes) -> None:
    """Parse a whitelist's body."""
    with suppress(FormatError):
        once = Whitelist.parse(data)
        require(Whitelist.parse(once.serialize()) == once, "written back differently")


def fingerprint(data: bytes) -> None:
    """Parse a certificate's fingerprint."""
    with suppress(FormatError):
        once = parse_fingerprint(data)
        require(parse_fingerprint(fingerprint_text(once).encode()) == once, "another text form")


def blacklist(data: bytes) -> None:
    """Parse a blacklist."""
    parsed = Blacklist.parse(data)
    for name, revision in parsed.lowest_revisions.items():
        check_fqrn(name)
        require(revision >= 0, "a negative revision")


def xattrs(data: bytes) -> None:
    """Parse a blob of extended attributes."""
    with suppress(FormatError):
        attributes = parse_xattrs(data)
        blob = serialize_xattrs(attributes)
        require(blob is None or parse_xattrs(blob) == attributes, "written back differently")


def meta_info(data: bytes) -> None:
    """Parse meta info."""
    try:
        parsed = parse_meta_info(data)
    except FormatError:
        return
    with suppress(FormatError):  # it may be larger when written for people
        require(parse_meta_info(serialize_meta_info(parsed)) == parsed, "written back differently")


def parameters(data: bytes) -> None:
    """Parse a parameter file."""
    with suppress(FormatError):
        found = parse_parameters(data, environment={"KNOWN": "value"})
        lines = [assignment.line for assignment in found]
        require(lines == sorted(lines), "lines out of order")
        require(not lines or lines[-1] <= data.count(b"\n") + 1, "a line after the last")


def upstream_storage(data: bytes) -> None:
    """Parse where a repository is stored, and write it again."""
    with suppress(FormatError):
        parsed = parse_upstream(text_of(data))
        require(parse_upstream(str(parsed)) == parsed, "another place")


def s3_settings(data: bytes) -> None:
    """Parse an s3.conf; nobody is told its secret."""
    try:
        parsed = S3Settings.parse(data)
        require("_key" not in repr(parsed), "a secret shown")
    except FormatError as error:
        require("TOP-SECRET" not in str(error), "a secret in a message")


def graft(data: bytes) -> None:
    """Parse a graft file, and write it again."""
    with suppress(FormatError):
        parsed = Graft.parse(data)
        require(Graft.parse(parsed.serialize()) == parsed, "another graft")
        ends = [chunk.offset + chunk.size for chunk in parsed.chunks]
        require(not ends or ends[-1] == parsed.size, "chunks that are not the file")


def letter(data: bytes) -> None:
    """Parse a letter, in its base64 and without; write again what can be."""
    with suppress(FormatError):
        open_envelope(data)
    with suppress(FormatError):
        parsed = Letter.parse(data)
        require(Letter.parse(parsed.serialize()) == parsed, "another letter")


def diff_list(data: bytes) -> None:
    """Parse a diff list, either way."""
    for is_null_separated in (False, True):
        with suppress(FormatError):
            listed = parse_diff_list(io.BytesIO(data), is_null_separated=is_null_separated)
            for path in listed:
                names = path.split(b"/") if path else []
                require(not {b"", b".", b".."} & set(names), "a path that leads elsewhere")


def id_map(data: bytes) -> None:
    """Parse a map of owners."""
    with suppress(FormatError):
        require(0 <= IdMap.parse(text_of(data)).mapped(7) < 1 << 32, "an impossible number")


def dirtab(data: bytes) -> None:
    """Parse rules, and try them on the patterns themselves as paths."""
    with suppress(FormatError):
        parsed = Dirtab.parse(data)
        for rule in parsed.rules[:20]:
            path = b"/" + rule.pattern.strip(b"/")
            if parsed.matches(path):
                parent = path.rpartition(b"/")[0]
                require(parsed.may_match_below(parent), "a walk would miss a match")


def utc_time(data: bytes) -> None:
    """Parse a point in time."""
    with suppress(FormatError):
        require(parse_utc(text_of(data)) >= 0, "a time before 1970")


def public_keys(data: bytes) -> None:
    """Read public keys."""
    with suppress(OutcropError):
        require(len(load_public_keys(data)) > 0, "no key and no error")


def certificate(data: bytes) -> None:
    """Read a certificate."""
    with suppress(OutcropError):
        require(Certificate.parse(data).public_key.signature_bytes >= 64, "a key too small")


def private_key(data: bytes) -> None:
    """Read a private key."""
    with suppress(OutcropError):
        require(public_key_of(data).signature_bytes >= 64, "a key too small")


def chunking(data: bytes) -> None:
    """Cut a file, whole and in blocks."""
    head, content = data[:4].ljust(4, b"\0"), data[4:]
    minimum = 32 + head[0]
    average = minimum + 1 + head[1]
    sizes = ChunkSizes(minimum, average, average + 1 + head[2])
    marks = cut_marks(content, sizes)
    cutter, step = Cutter(sizes), 1 + head[3]
    blocks = [content[at : at + step] for at in range(0, len(content), step)]
    require([m for block in blocks for m in cutter.feed(block)] == marks, "blocks matter")
    for left, right in zip([0, *marks], marks, strict=False):
        require(sizes.minimum <= right - left <= sizes.maximum, "a chunk of impossible size")
    last = len(content) - (marks[-1] if marks else 0)
    require(last <= sizes.maximum and (not marks or last > 0), "an impossible last chunk")


KEYS = repository_keys()
HEX = b"600230b0ba7620426f2e898f1e1f43c5466efe59"
MANIFEST = (
    b"C" + HEX + b"\nB28672\nRd41d8cd98f00b204e9800998ecf8427e\nD240\nS2\nGyes\nAno\n"
    b"Ntest.cern.ch\nX" + HEX + b"\nH" + HEX + b"\nT1700000000\nM" + HEX + b"\nY" + HEX + b"\n"
)
FINGERPRINT = b"00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13"
WHITELIST = (
    b"20240101000000\nE20240131000000\nNtest.cern.ch\nVpkcs7\nWcachain\n" + FINGERPRINT + b" # x\n"
)

PURE_TARGETS = {
    "hash_text": Target(
        "text gives a hash with that very text form, or FormatError",
        hash_text,
        (HEX, HEX + b"-shake128", HEX + b"-rmd160", HEX[:32]),
    ),
    "fqrn": Target("text gives a name safe in a path, or FormatError", fqrn, (b"atlas.cern.ch",)),
    "signed_text": Target(
        "bytes give a text that is written back byte for byte, or FormatError",
        signed_text,
        (MANIFEST + b"--\n" + HEX + b"\n\0\1\2", WHITELIST + b"--\n" + HEX + b"-rmd160\nx"),
    ),
    "manifest": Target(
        "bytes give a manifest that reads back equal once written, or FormatError",
        manifest,
        (MANIFEST, MANIFEST + b"L" + HEX + b"\nZtip\n"),
    ),
    "breadcrumb": Target(
        "bytes give a breadcrumb that reads back equal once written, or FormatError",
        breadcrumb,
        (HEX + b"T1700000000R2", HEX + b"-shake128T1", HEX),
    ),
    "whitelist": Target(
        "bytes give a whitelist that reads back equal once written, or FormatError",
        whitelist,
        (WHITELIST,),
    ),
    "fingerprint": Target(
        "bytes give a fingerprint that reads back equal once written, or FormatError",
        fingerprint,
        (FINGERPRINT, FINGERPRINT + b"-SHAKE128 # comment"),
    ),
    "blacklist": Target(
        "bytes of bounded size give a blacklist of valid names, and never an error",
        blacklist,
        (b"# x\n<test.cern.ch 7\n" + FINGERPRINT + b" # stolen\n",),
    ),
    "xattrs": Target(
        "bytes give attributes that read back equal once written, or FormatError",
        xattrs,
        (bytes.fromhex("01020601757365722e61620a03757365722e636f6c6f72726564"),),
    ),
    "meta_info": Target(
        "bytes give an object that reads back equal once written, or FormatError",
        meta_info,
        (b'{"administrator": "x", "recommended-stratum1s": [], "custom": {"a": [1.5, null]}}',),
    ),
    "parameters": Target(
        "bytes give assignments in the order of their lines, or FormatError",
        parameters,
        (
            b"# x\nA=1\nexport B=\"x $A ${KNOWN:-d}\" ; C='y'\\ z\nreadonly D=${E-$KNOWN}\n",
            b"A=${B:-${C:-'x'}}\nif [ x ]; then A=$(x); fi\n",
        ),
    ),
    "upstream storage": Target(
        "text gives a place that is written and read back alike, or FormatError",
        upstream_storage,
        (
            b"local,/srv/a/data/txn,/srv/a",
            b"S3,/tmp,a.test@/etc/cvmfs/s3.conf",
            b"s3://bucket/a%20b/c",
            b"file:///srv/a",
        ),
    ),
    "s3 settings": Target(
        "bytes give settings, or FormatError; no message has the secret in it",
        s3_settings,
        (
            b"CVMFS_S3_HOST=h\nCVMFS_S3_BUCKET=b\nCVMFS_S3_ACCESS_KEY=a\n"
            b"CVMFS_S3_SECRET_KEY=TOP-SECRET\nCVMFS_S3_PORT=80\nCVMFS_S3_PROXY=p:1\n",
            b"CVMFS_S3_HOST=h\nCVMFS_S3_BUCKET=b\nCVMFS_S3_SECRET_KEY=`TOP-SECRET`\n",
        ),
    ),
    "dirtab": Target(
        "bytes give rules whose matches a pruned walk finds, or FormatError",
        dirtab,
        (b"# x\n/sw/*/*\n! /sw/noarch/*\n! *.git\n/data/[a-c]?\\*\n",),
    ),
    "graft": Target(
        "bytes give a graft that writes as itself, or FormatError",
        graft,
        (
            b"#\nsize=9\nchecksum="
            + b"0" * 40
            + b"\nchunk_offsets=0,5\nchunk_checksums="
            + b"1" * 40
            + b","
            + b"2" * 40
            + b"-shake128\ncompression=none\n",
        ),
    ),
    "diff_list": Target(
        "bytes give paths below the source, or FormatError",
        diff_list,
        (b"A a/b\nM /c/\nD ./d\n. \nplain path\0A x\0",),
    ),
    "letter": Target(
        "bytes give a letter that writes as itself, or FormatError",
        letter,
        (b"text\n##\nV1\nNa.example.org\nT1500000000\nXLS0tLS0=\n", b"dGV4dA=="),
    ),
    "id_map": Target(
        "text gives numbers of 32 bits, or FormatError", id_map, (b"# x\n0 1\n* 65534\n",)
    ),
    "utc_time": Target(
        "text gives a time not before 1970, or FormatError", utc_time, (b"2026-11-22T07:43:54Z",)
    ),
    "public_keys": Target(
        "bytes give at least one RSA key, or an OutcropError",
        public_keys,
        (KEYS.master_public_pem,),
    ),
    "certificate": Target(
        "bytes give a certificate with an RSA key, or an OutcropError",
        certificate,
        (KEYS.certificate_pem,),
    ),
    "private_key": Target(
        "bytes give an RSA key, or an OutcropError",
        private_key,
        (KEYS.repository_key_pem,),
    ),
    "chunking": Target(
        "chunks are of the sizes asked for, however the file comes in blocks",
        chunking,
        (b"\0\0\0\0" + bytes(range(256)) * 2, b"\x05\x20\x40\x07" + b"\xff" * 300),
    ),
}
