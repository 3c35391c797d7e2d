"""Low-level commands on files and stores: compress, hash, graft, peek, upload, remove, scrub."""

import hashlib
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from outcrop.cli.dropin.call import Call
from outcrop.cli.dropin.options import UsageError, outcrop
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.output import write_message
from outcrop.errors import FormatError
from outcrop.formats.hashes import Compression, HashAlgorithm, new_hasher
from outcrop.formats.whitelist import fingerprint_text
from outcrop.publisher.grafting import (
    DEFAULT_CHUNK_MEBIBYTES,
    files_to_graft,
    make_graft,
    write_graft,
)
from outcrop.storage.store import WritableStore, check_name
from outcrop.storage.upstream import open_store, parse_upstream

_BLOCK_BYTES: Final = 1 << 20
_MAX_UPLOAD_BYTES: Final = 1 << 30


def required(call: Call, letter: str) -> str:
    """The argument of an option that has to be there. Raises UsageError."""
    value = call.given.last(letter)
    if value is None:
        raise UsageError(f"parameter -{letter} missing")
    return value


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_BLOCK_BYTES):
        yield block


# --- streams -----------------------------------------------------------------------------------


def zpipe(call: Call) -> int:
    """A filter: zlib, as objects are stored."""
    out = sys.stdout.buffer
    if not call.given.has("d"):
        deflater = zlib.compressobj()
        for block in _blocks(sys.stdin.buffer):
            out.write(deflater.compress(block))
        out.write(deflater.flush())
        return DONE
    inflater = zlib.decompressobj()
    try:
        for block in _blocks(sys.stdin.buffer):
            while block:
                # A small input may stand for very much: take it in portions.
                out.write(inflater.decompress(block, _BLOCK_BYTES))
                block = inflater.unconsumed_tail
        out.write(inflater.flush())
    except zlib.error as error:
        write_message(f"zpipe: invalid or incomplete deflate data: {error}")
        return FAILED
    if not inflater.eof:
        write_message("zpipe: invalid or incomplete deflate data")
        return FAILED
    return DONE


def hash_stdin(call: Call) -> int:
    """The hash of stdin or of a text, as the repository writes it."""
    name, text = required(call, "a"), call.given.last("i")
    blocks = _blocks(sys.stdin.buffer) if text is None else iter([text.encode()])
    if name == "md5":
        return _hash_md5(call, blocks)
    if call.given.has("s"):
        raise UsageError("split int representation only supported for MD5")
    hasher = new_hasher(HashAlgorithm.from_label(name))
    for block in blocks:
        hasher.update(block)
    found = hasher.hash()
    call.output.line(fingerprint_text(found) if call.given.has("f") else str(found))
    return DONE


def _hash_md5(call: Call, blocks: Iterator[bytes]) -> int:
    """MD5 names paths, not content; `-s` is the pair of numbers that catalogs have."""
    found = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        found.update(block)
    digest = found.digest()
    line = digest.hex(":").upper() if call.given.has("f") else digest.hex()
    if call.given.has("s"):
        high, low = (
            int.from_bytes(half, "little", signed=True) for half in (digest[:8], digest[8:])
        )
        line += f" [{high} {low}]"
    call.output.line(line)
    return DONE


def graft(call: Call) -> int:
    """Make graft files, or print one."""
    given = call.given
    source, target = required(call, "i"), given.last("o")
    megabytes = given.get("c", str(DEFAULT_CHUNK_MEBIBYTES))
    if not megabytes.isdecimal() or not 0 < int(megabytes) < 1 << 20:
        raise UsageError(f"-c: {megabytes} is no number of megabytes")
    is_stdin = source == "-"
    pairs = files_to_graft(Path(source), Path(target) if target is not None else None)
    if is_stdin and target is not None and Path(target).is_dir():
        raise UsageError(f"Output file ({target}): Is a directory")
    for file, place in pairs:
        if given.has("v"):
            call.output.line(f"Grafting {file}" + (f" to {place}" if place else ""))
        with sys.stdin.buffer if is_stdin else file.open("rb") as stream:
            made = make_graft(
                stream,
                chunk_bytes=int(megabytes) << 20,
                algorithm=HashAlgorithm.from_label(given.get("a", "sha1")),
                compression=_compression(given.get("Z", "none")),
                with_bulk=given.has("b"),
            )
        if place is None:
            call.output.line(made.serialize().decode("ascii").rstrip("\n"))
        else:
            mode = 0o644 if is_stdin else stat.S_IMODE(file.stat().st_mode)
            write_graft(made, place, mode=mode)
    return DONE


def _compression(name: str) -> Compression:
    if name in ("zlib", "default"):
        return Compression.ZLIB
    if name == "none":
        return Compression.NONE
    raise FormatError(f"unknown compression {name!r}", hint="zlib or none")


# --- stores ------------------------------------------------------------------------------------


def scrub(call: Call) -> int:
    """Hash every file of a data directory."""
    required(call, "r")
    return outcrop("scrub", *call.options())


def peek(call: Call) -> int:
    """Whether a file is stored: 0 or 1."""
    store, name = _store(call), check_name(required(call, "d"))
    is_there = store.exists(name)
    call.output.line("available" if is_there else "not available")
    return DONE if is_there else FAILED


def upload(call: Call) -> int:
    """Store a file under a name; what is there is replaced."""
    store, name = _store(call), check_name(required(call, "o"))
    with Path(required(call, "i")).open("rb") as opened:
        data = opened.read(_MAX_UPLOAD_BYTES + 1)
    if len(data) > _MAX_UPLOAD_BYTES:
        raise FormatError(f"-i: over {_MAX_UPLOAD_BYTES} bytes")
    store.write(name, data)
    store.sync()
    return DONE


def remove(call: Call) -> int:
    """Delete a stored file; one that is not there is fine."""
    store = _store(call)
    store.remove(check_name(required(call, "o")))
    store.sync()
    return DONE


def _store(call: Call) -> WritableStore:
    return open_store(parse_upstream(required(call, "r")))
