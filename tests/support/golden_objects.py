"""Files and objects of the golden repositories, read with nothing but the standard library."""

import sqlite3
import zlib
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent.parent / "golden" / "data"
NAMES = ("basic", "shake128", "uncompressed", "gc", "external")


@cache
def golden_file(name: str, path: str) -> bytes:
    """A file of the folder of a golden repository: `repo/.cvmfspublished`, `tags.txt`."""
    return (DATA / f"golden-{name}" / path).read_bytes()


@cache
def golden_object(name: str, hash_text: str, suffix: str) -> bytes:
    """An object's plain bytes; those with a suffix letter but P are always compressed."""
    stored = golden_file(name, f"repo/data/{hash_text[:2]}/{hash_text[2:]}{suffix}")
    return zlib.decompress(stored) if name != "uncompressed" or suffix in "CHMX" else stored


@cache
def golden_fields(name: str) -> dict[str, str]:
    """The manifest's fields by letter."""
    lines = golden_file(name, "published.txt").decode().splitlines()
    return {line[0]: line[1:] for line in lines}


def golden_database(name: str, letter: str) -> sqlite3.Connection:
    """The root catalog (`C`) or history (`H`) of the trunk, text as bytes."""
    return open_database(golden_object(name, golden_fields(name)[letter], letter))


def open_database(data: bytes) -> sqlite3.Connection:
    """A database file in memory, text as bytes."""
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    database.text_factory = bytes
    return database
