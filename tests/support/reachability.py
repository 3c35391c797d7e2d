"""What is reachable from a root catalog: a walk that shares no code with the package."""

import sqlite3
import zlib
from pathlib import Path

_ALGORITHMS = ("", "-rmd160", "-shake128")


def reachable(directory: Path, root: str) -> set[str]:
    """All objects a revision needs, as `XX…[suffix]`, the catalogs themselves included."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        text = waiting.pop()
        found.add(text + "C")
        plain = zlib.decompress((directory / "data" / text[:2] / (text[2:] + "C")).read_bytes())
        database = sqlite3.connect(":memory:")
        database.deserialize(plain)
        algorithm = {}
        for first, second, flags, digest in database.execute(
            "SELECT md5path_1, md5path_2, flags, hash FROM catalog"
        ):
            algorithm[first, second] = None if flags & 128 else _ALGORITHMS[(flags >> 8) & 7]
            if digest is not None and not flags & 128:
                found.add(digest.hex() + _ALGORITHMS[(flags >> 8) & 7])
        for first, second, digest in database.execute(
            "SELECT md5path_1, md5path_2, hash FROM chunks"
        ):
            if algorithm[first, second] is not None:
                found.add(f"{digest.hex()}{algorithm[first, second]}P")
        for (nested,) in database.execute("SELECT sha1 FROM nested_catalogs"):
            waiting.append(nested)
        database.close()
    return found


def stored(directory: Path) -> set[str]:
    """All objects that are stored, named the same way."""
    data = directory / "data"
    return {
        place.parent.name + place.name
        for place in data.rglob("*")
        if place.is_file() and place.parent.name != "txn"
    }


def manifest(directory: Path) -> dict[str, str]:
    """The manifest's lines by letter."""
    body = (directory / ".cvmfspublished").read_bytes().split(b"\n--\n")[0]
    return {line[:1].decode(): line[1:].decode() for line in body.splitlines()}


def tags(directory: Path) -> dict[str, str]:
    """Root hashes by tag name."""
    text = manifest(directory)["H"]
    place = directory / "data" / text[:2] / (text[2:] + "H")
    return dict(_query(zlib.decompress(place.read_bytes()), "SELECT name, hash FROM tags"))


def reflog(directory: Path) -> dict[str, tuple[int, int]]:
    """Type and time by hash."""
    data = (directory / ".cvmfsreflog").read_bytes()
    rows = _query(data, "SELECT hash, type, timestamp FROM refs")
    return {text: (kind, at) for text, kind, at in rows}


def predecessor(directory: Path, root: str) -> str | None:
    """The revision before, if it is still stored."""
    plain = zlib.decompress((directory / "data" / root[:2] / (root[2:] + "C")).read_bytes())
    properties = dict(_query(plain, "SELECT key, value FROM properties"))
    text = properties.get("previous_revision", "")
    is_stored = (directory / "data" / text[:2] / (text[2:] + "C")).exists()
    return text if text and is_stored else None


def _query(data: bytes, sql: str) -> list:
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    rows = database.execute(sql).fetchall()
    database.close()
    return rows
