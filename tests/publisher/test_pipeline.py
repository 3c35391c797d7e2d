"""Files to objects: whole or in chunks, from several threads, while somebody may be writing."""

import os
import threading
from pathlib import Path

import pytest
from tests.support.privileges import permissions_hold

from outcrop.formats.chunking import ChunkSizes, cut_marks
from outcrop.formats.hashes import Compression, HashAlgorithm, ObjectRef, Suffix
from outcrop.publisher import pipeline as module
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.errors import LimitExceeded, SourceChanged, SourceUnreadable
from outcrop.publisher.pipeline import FileContent, FileJob, Pipeline
from outcrop.repository.object_writer import ObjectWriter
from outcrop.storage.errors import StorageFull
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import read_file, read_object

SIZES = ChunkSizes(1000, 2000, 4000)


class Line:
    """A pipeline into memory and what came out of it."""

    def __init__(self, *, chunk_sizes: ChunkSizes | None = SIZES, workers: int = 3) -> None:
        self.store = MemoryStore()
        self.contents: dict[bytes, FileContent] = {}
        self.pipeline = Pipeline(
            ObjectWriter(self.store, HashAlgorithm.SHA1, CompressionChoice.FAST.compressor),
            workers=workers,
            chunk_sizes=chunk_sizes,
            compression=Compression.ZLIB,
        )

    def store_all(self, *paths: Path) -> dict[bytes, FileContent]:
        with self.pipeline:
            for path in paths:
                self.submit(path)
            self.pipeline.finish()
        return self.contents

    def submit(self, path: Path) -> None:
        name = os.fsencode(path)
        job = FileJob(name, path.lstat(), lambda content: self.contents.update({name: content}))
        self.pipeline.submit(job)

    def read(self, content: FileContent) -> bytes:
        if content.content is not None:
            return read_object(self.store, ObjectRef(content.content), limit=1 << 30)
        refs = [ObjectRef(c.hash, Suffix.CHUNK, size=c.size) for c in content.chunks]
        return b"".join(read_object(self.store, ref, limit=1 << 30) for ref in refs)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_small_files_are_single_objects(tmp_path: Path) -> None:
    files = {write(tmp_path / str(n), b"x" * n): n for n in range(200)}
    line = Line()
    contents = line.store_all(*files)
    assert len(contents) == 200
    for path, size in files.items():
        content = contents[os.fsencode(path)]
        assert content.chunks == ()
        assert line.read(content) == b"x" * size


def test_large_files_are_cut_where_the_format_says(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = write(tmp_path / "large", data)
    line = Line()
    content = line.store_all(path)[os.fsencode(path)]
    marks = cut_marks(data, SIZES)
    assert [chunk.offset for chunk in content.chunks] == [0, *marks]
    assert line.read(content) == data
    assert content.content is None
    assert content.new_bytes > len(data) // 2


def test_a_file_above_the_minimum_without_a_cut_is_a_single_object(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"\0" * 1001)  # zeros are cut at the maximum only
    line = Line()
    content = line.store_all(path)[os.fsencode(path)]
    assert content.chunks == ()
    assert line.read(content) == b"\0" * 1001


def test_a_file_that_ends_at_a_cut_has_no_empty_chunk(tmp_path: Path) -> None:
    path = write(tmp_path / "file", bytes(8000))
    content = Line().store_all(path)[os.fsencode(path)]
    assert [(chunk.offset, chunk.size) for chunk in content.chunks] == [(0, 4000), (4000, 4000)]


def test_tiny_files_do_not_wait_long_for_a_worker_that_is_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, others_done = threading.Event(), threading.Event()
    line = Line(workers=2)
    stored: list[str] = []

    def write_object(name: str, data: bytes) -> None:
        if not first.is_set():
            first.set()
            assert others_done.wait(10)
        stored.append(name)
        if len(stored) == 32:
            others_done.set()

    monkeypatch.setattr(line.store, "write", write_object)
    line.store_all(*(write(tmp_path / str(n), b"%d" % n) for n in range(64)))
    assert len(stored) == 64


def test_without_chunk_sizes_every_file_is_whole(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    path = write(tmp_path / "large", data)
    line = Line(chunk_sizes=None)
    assert line.read(line.store_all(path)[os.fsencode(path)]) == data


def test_a_whole_file_beyond_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WHOLE_BYTES", 100)
    with pytest.raises(LimitExceeded, match="too many"):
        Line(chunk_sizes=None).store_all(write(tmp_path / "file", bytes(101)))


def test_one_worker_and_many_large_files_do_not_block_each_other(tmp_path: Path) -> None:
    files = [write(tmp_path / str(n), os.urandom(50_000)) for n in range(20)]
    assert len(Line(workers=1).store_all(*files)) == 20


def test_more_files_than_may_be_under_way_are_done_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_JOBS_IN_FLIGHT", 40)
    files = [write(tmp_path / str(n), b"%d" % n) for n in range(300)]
    assert len(Line().store_all(*files)) == 300


def test_a_file_that_is_newer_than_its_job_tells_so(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"old")
    seen = path.lstat()
    path.write_bytes(b"newer content")
    line = Line()
    with line.pipeline:
        line.pipeline.submit(
            FileJob(os.fsencode(path), seen, lambda c: line.contents.update({b"": c}))
        )
        line.pipeline.finish()
    content = line.contents[b""]
    assert content.seen.st_size == 13
    assert line.read(content) == b"newer content"


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_file_that_changes_once_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = write(tmp_path / "file", b"a" * size)
    meddle = Meddler(path, b"b" * (size + 5), times=1)
    monkeypatch.setattr(module.os, "read", meddle)
    line = Line()
    content = line.store_all(path)[os.fsencode(path)]
    assert line.read(content) == b"b" * (size + 5)


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_file_that_never_stops_changing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = write(tmp_path / "restless", b"a" * size)
    meddle = Meddler(path, b"b" * size, times=1000)
    monkeypatch.setattr(module.os, "read", meddle)
    with pytest.raises(SourceChanged, match="restless"):
        Line().store_all(path)


class Meddler:
    """Stands in for os.read, and writes to the file just after it was read."""

    def __init__(self, path: Path, data: bytes, *, times: int) -> None:
        self._path = path
        self._data = data
        self._left = times
        self._read = os.read
        self._time = 1

    def __call__(self, fd: int, count: int) -> bytes:
        data = self._read(fd, count)
        if self._left and data:
            self._left -= 1
            self._path.write_bytes(self._data)
            self._time += 1
            os.utime(self._path, (self._time, self._time))
        return data


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "gone", b"")
    line = Line()
    with line.pipeline:
        line.submit(path)
        path.unlink()
        with pytest.raises(SourceChanged, match="gone"):
            line.pipeline.finish()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_took_a_files_place_is_not_read(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "file", b"")
    line = Line()
    with line.pipeline:
        line.submit(path)
        path.unlink()
        if kind == "symlink":
            path.symlink_to(write(tmp_path / "secret", b"secret"))
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
        with pytest.raises(SourceChanged, match="file"):
            line.pipeline.finish()


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "private", b"")
    path.chmod(0)
    with permissions_hold(), pytest.raises(SourceUnreadable, match="private"):
        Line().store_all(path)


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_store_that_fails_ends_the_pipeline_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def full(_name: str, _data: bytes) -> None:
        raise StorageFull("no room")

    line = Line()
    monkeypatch.setattr(line.store, "write", full)
    files = [write(tmp_path / str(n), os.urandom(size)) for n in range(50)]
    with pytest.raises(StorageFull):
        line.store_all(*files)


def test_no_thread_is_left(tmp_path: Path) -> None:
    Line().store_all(write(tmp_path / "file", b""))
    assert not [t for t in threading.enumerate() if t.name.startswith("publish-")]


def given(line: Line, name: bytes, plain: bytes, **options: object) -> FileJob:
    seen = os.stat_result((0o100644, 0, 0, 1, 0, 0, len(plain), 0, 0, 0))
    return FileJob(name, seen, lambda content: line.contents.update({name: content}), **options)


def test_content_that_is_given_is_stored_as_that_of_a_file(tmp_path: Path) -> None:
    small, large = b"small", os.urandom(50_000)
    files, memory = Line(), Line()
    paths = [write(tmp_path / "a", small), write(tmp_path / "b", large)]
    expected = list(files.store_all(*paths).values())
    with memory.pipeline:
        memory.pipeline.submit(given(memory, b"a", small, data=small))
        memory.pipeline.submit(given(memory, b"b", large, data=large))
        memory.pipeline.finish()
    for old, name in zip(expected, (b"a", b"b"), strict=True):
        new = memory.contents[name]
        assert (new.content, new.chunks) == (old.content, old.chunks)
    assert memory.read(memory.contents[b"b"]) == large


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 50_000])
@pytest.mark.parametrize("chunk_sizes", [SIZES, None])
def test_content_in_blocks_is_cut_the_same_way(size: int, chunk_sizes: ChunkSizes | None) -> None:
    data = os.urandom(size)
    whole, blocks = Line(chunk_sizes=chunk_sizes), Line(chunk_sizes=chunk_sizes)
    with whole.pipeline:
        whole.pipeline.submit(given(whole, b"f", data, data=data))
        whole.pipeline.finish()
    with blocks.pipeline:
        pieces = (data[n : n + 777] for n in range(0, size, 777))
        blocks.pipeline.submit_blocks(given(blocks, b"f", data), pieces)
        blocks.pipeline.finish()
    old, new = whole.contents[b"f"], blocks.contents[b"f"]
    assert (new.content, new.chunks) == (old.content, old.chunks)
    assert blocks.read(new) == data


def test_given_content_that_waits_is_bounded_in_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_BYTES", 10_000)
    line = Line(chunk_sizes=None, workers=1)
    held = []
    with line.pipeline:
        for n in range(200):
            data = bytes([n]) * 900
            line.pipeline.submit(given(line, b"%d" % n, data, data=data))
            held.append(line.pipeline._held_bytes)
        line.pipeline.finish()
        assert line.pipeline._held_bytes == 0
    assert max(held) <= 10_000 + 32 * 900
    assert len(line.contents) == 200


def test_external_files_have_their_hashes_and_nothing_is_stored(tmp_path: Path) -> None:
    data = os.urandom(50_000)
    line, other = Line(), Line()
    expected = other.store_all(write(tmp_path / "f", data))[os.fsencode(tmp_path / "f")]
    with line.pipeline:
        line.pipeline.submit(given(line, b"f", data, data=data, is_external=True))
        line.pipeline.submit(given(line, b"s", b"small", data=b"small", is_external=True))
        line.pipeline.finish()
    assert line.contents[b"f"].chunks == expected.chunks
    assert line.contents[b"f"].new_bytes == line.contents[b"s"].new_bytes == 0
    assert list(line.store.iter_names()) == []


def test_a_bulk_object_beside_the_chunks_if_asked_for(tmp_path: Path) -> None:
    large, small = os.urandom(50_000), b"x" * 1000
    line = Line()
    line.pipeline = Pipeline(
        ObjectWriter(line.store, HashAlgorithm.SHA1, CompressionChoice.FAST.compressor),
        workers=2,
        chunk_sizes=SIZES,
        compression=Compression.ZLIB,
        with_bulk=True,
    )
    paths = [write(tmp_path / "l", large), write(tmp_path / "s", small)]
    found = line.store_all(*paths)
    contents = [found[os.fsencode(path)] for path in paths]
    assert len(contents[0].chunks) > 1 and contents[0].content is not None
    assert line.read(contents[0]) == large
    stored = sum(
        len(read_file(line.store, name, limit=1 << 20)) for name in line.store.iter_names()
    )
    assert contents[0].new_bytes + contents[1].new_bytes == stored
    assert contents[1].chunks == ()
