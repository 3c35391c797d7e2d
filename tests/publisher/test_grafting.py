"""Graft files that are made here: publishing them gives what the content would have given."""

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.stratum_zero import StratumZero

from outcrop.errors import FormatError
from outcrop.formats.graft import Graft
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.grafting import files_to_graft, make_graft, write_graft

SHA1 = HashAlgorithm.SHA1


def graft(data: bytes, chunk_bytes: int = 1 << 20, **options: object) -> Graft:
    options.setdefault("compression", Compression.NONE)
    return make_graft(io.BytesIO(data), chunk_bytes=chunk_bytes, algorithm=SHA1, **options)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 80), st.booleans())
def test_chunks_cover_the_file_and_hash_to_its_parts(
    data: bytes, chunk_bytes: int, with_bulk: bool
) -> None:
    made = graft(data, chunk_bytes, with_bulk=with_bulk)
    assert made.size == len(data)
    if len(data) <= chunk_bytes:
        assert not made.chunks
        assert made.checksum == ContentHash.of(data, SHA1)
    else:
        assert [c.offset for c in made.chunks] == list(range(0, len(data), chunk_bytes))
        for chunk in made.chunks:
            part = data[chunk.offset : chunk.offset + chunk.size]
            assert chunk.hash == ContentHash.of(part, SHA1)
        assert made.checksum == (ContentHash.of(data, SHA1) if with_bulk else None)
    assert Graft.parse(made.serialize()) == made


def test_with_zlib_the_hashes_are_those_of_objects_as_upstream_stores_them(tmp_path: Path) -> None:
    content = b"the same line again and again\n" * 1000
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(content)
    world = StratumZero(tmp_path / "world", compression="zlib")
    world.create()
    world.publish(source)
    stored = world.checked().entries[b"/file"].row["hash"]
    made = graft(content, compression=Compression.ZLIB)
    assert made.checksum is not None
    assert made.checksum.digest == stored


def test_a_grafted_tree_is_published_like_its_content(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "grafted"
    (source / "below").mkdir(parents=True)
    (source / "below/big").write_bytes(bytes(range(256)) * 10)
    (source / "tool").write_bytes(b"#!/bin/sh\n")
    (source / "tool").chmod(0o750)
    (source / "link").symlink_to("tool")
    target.mkdir()
    pairs = files_to_graft(source, target)
    assert [file.name for file, _ in pairs] == ["tool", "big"]
    for file, place in pairs:
        assert place is not None
        with file.open("rb") as stream:
            made = make_graft(
                stream, chunk_bytes=1000, algorithm=SHA1, compression=Compression.NONE
            )
        write_graft(made, place, mode=file.stat().st_mode & 0o7777)
    world = StratumZero(tmp_path / "world")
    world.create()
    big = (source / "below/big").read_bytes()
    store_plain(world, (source / "tool").read_bytes(), "")
    for begin in range(0, len(big), 1000):
        store_plain(world, big[begin : begin + 1000], "P")
    world.publish(target)
    entries = world.checked().entries
    assert entries[b"/tool"].row["size"] == 10
    assert entries[b"/tool"].row["mode"] == 0o100750
    assert len(entries[b"/below/big"].chunks) == 3
    assert b"/.cvmfsgraft-tool" not in entries


def store_plain(world: StratumZero, data: bytes, suffix: str) -> None:
    name = str(ContentHash.of(data, SHA1))
    file = world.directory / f"data/{name[:2]}/{name[2:]}{suffix}"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)


def test_where_grafts_go(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert files_to_graft(file, None) == [(file, None)]
    assert files_to_graft(file, tmp_path / "new") == [(file, tmp_path / "new")]
    assert files_to_graft(file, tmp_path) == [(file, tmp_path / "file")]
    with pytest.raises(PathRefused):
        files_to_graft(tmp_path, file)
    with pytest.raises(FormatError):
        graft(b"x", 0)
