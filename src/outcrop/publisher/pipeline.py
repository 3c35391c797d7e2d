"""From files to objects: open, read, cut, compress, hash, store; on all cores.

Worker threads take small files by the batch and large ones one at a time; what takes long (system
calls, cutting, compressing, hashing) lets other threads run. A large file is read by one worker,
its chunks are compressed by whichever worker is free. Memory is bounded: a worker holds one small
file or one chunk, and no more chunks wait than there are workers.

Files may change while they are read. A worker looks at a file after reading it, and reads again if
it is not as it was seen before; after a few attempts the file is named in an error.

Content that is no file (a member of an archive) comes in memory, bounded in sum, or in blocks that
are cut as they come.
"""

import errno
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from outcrop.errors import OutcropError
from outcrop.formats.catalog import Chunk
from outcrop.formats.chunking import ChunkSizes, Cutter
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, Suffix
from outcrop.publisher.errors import LimitExceeded, SourceChanged, SourceUnreadable
from outcrop.publisher.markers import DIRTAB
from outcrop.repository.object_writer import ObjectWriter, StoredObject

_ATTEMPTS: Final = 4
_BATCH_FILES: Final = 32
_BATCH_BYTES: Final = 1 << 20
_TINY_BATCH_BYTES: Final = _BATCH_FILES * 2048
_TURN_SECONDS: Final = 0.02  # no longer: a disk or store that is slow is better asked by several
_JOBS_IN_FLIGHT: Final = 2048
_HELD_BYTES: Final = 32 << 20
_READ_BYTES: Final = 1 << 20
_MAX_WHOLE_BYTES: Final = 1 << 30
_REPLACED: Final = (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO)
"""What opening or reading a file says when a symlink, directory or socket took its place."""
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True)
class FileJob:
    """A regular file to be stored: where it is, and how `lstat` saw it.

    `done` is called in the thread that runs the pipeline when the file is stored. With `data`, all
    that the file holds, nothing is read and `path` only names it. An external file is hashed, chunk
    by chunk as any other, but nothing of it is stored.
    """

    path: bytes
    seen: os.stat_result
    done: Callable[["FileContent"], None]
    data: bytes | None = None
    is_external: bool = False


@dataclass(slots=True)
class FileContent:
    """What became of a file. `content` is `None` for a chunked one that has no bulk object.

    `seen` is how the file was when it was read, which may be later than the job says. `size` is
    the content's where that is not of the file: a grafted one.
    """

    seen: os.stat_result
    compression: Compression
    content: ContentHash | None = None
    chunks: tuple[Chunk, ...] = ()
    new_bytes: int = 0
    size: int | None = None

    @property
    def algorithm(self) -> HashAlgorithm:
        """What its objects' hashes are made with."""
        return (self.content or self.chunks[0].hash).algorithm


@dataclass(slots=True)
class _LargeFile:
    """A file whose chunks are under way in several threads."""

    job: FileJob
    content: FileContent
    missing: int = 1  # the reader itself, until it has seen the end
    chunks: list[Chunk] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _ChunkTask:
    file: _LargeFile
    offset: int
    data: bytes


_Outcome = list[tuple[FileJob, FileContent]] | BaseException


class Pipeline:
    """Stores files with worker threads. Use as a context manager, from one thread.

    `chunk_sizes` of `None` stores every file in one piece. `with_bulk` stores chunked files a
    second time in one piece, for clients that know no chunks.
    """

    def __init__(
        self,
        writer: ObjectWriter,
        *,
        workers: int,
        chunk_sizes: ChunkSizes | None,
        compression: Compression,
        with_bulk: bool = False,
    ) -> None:
        self.writer = writer
        self._with_bulk = with_bulk
        self._chunk_sizes = chunk_sizes
        self.compression = compression
        self._batch: list[FileJob] = []
        self._batch_bytes = 0
        self._in_flight = 0
        self._held_bytes = 0
        self._tasks: queue.SimpleQueue[list[FileJob] | _ChunkTask | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._chunk_slots = threading.Semaphore(workers)
        self._tiny_turn = threading.Lock()
        self._is_stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"publish-{n}", daemon=True)
            for n in range(workers)
        ]

    def __enter__(self) -> "Pipeline":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        for _thread in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    # --- the thread that runs the pipeline ---

    def submit(self, job: FileJob) -> None:
        """Have a file stored. Calls `done` of earlier jobs; raises what one of them failed with."""
        self._batch.append(job)
        self._batch_bytes += job.seen.st_size
        if job.data is not None:
            self._held_bytes += len(job.data)
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._flush()
        while self._in_flight > _JOBS_IN_FLIGHT or (
            self._in_flight and self._held_bytes > _HELD_BYTES
        ):
            self._finish_some()

    def submit_blocks(self, job: FileJob, blocks: Iterable[bytes]) -> None:
        """Have a file stored whose content comes in blocks; all are taken before this returns.

        They must be `job.seen.st_size` bytes in sum.
        """
        sizes = self._chunk_sizes
        if sizes is None or job.seen.st_size <= sizes.minimum:
            _check_whole(job, job.seen.st_size)
            job.data = b"".join(blocks)
            self.submit(job)
            return
        self._in_flight += 1
        content = self._close(self._store_pieces(job, job.seen, _pieces(blocks, Cutter(sizes))))
        if content is not None:
            self._outcomes.put([(job, content)])

    def finish(self) -> None:
        """Return when every job is done."""
        self._flush()
        while self._in_flight:
            self._finish_some()

    def _flush(self) -> None:
        if self._batch:
            self._in_flight += len(self._batch)
            self._tasks.put(self._batch)
            self._batch = []
            self._batch_bytes = 0

    def _finish_some(self) -> None:
        outcome = self._outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        self._in_flight -= len(outcome)
        for job, content in outcome:
            if job.data is not None:
                self._held_bytes -= len(job.data)
                job.data = None
            job.done(content)

    # --- worker threads ---

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._is_stopping:
                continue
            try:
                if isinstance(task, _ChunkTask):
                    self._store_chunk(task)
                    self._chunk_slots.release()
                else:
                    self._take_batch(task)
            except (OutcropError, OSError, MemoryError) as error:
                self._outcomes.put(error)

    def _take_batch(self, batch: list[FileJob]) -> None:
        """Store a batch; tiny files in turn: after each system call two workers wait for one."""
        is_tiny = sum(job.seen.st_size for job in batch) <= _TINY_BATCH_BYTES
        is_our_turn = is_tiny and self._tiny_turn.acquire(timeout=_TURN_SECONDS)
        try:
            self._store_batch(batch)
        finally:
            if is_our_turn:
                self._tiny_turn.release()

    def _store_batch(self, batch: list[FileJob]) -> None:
        stored = []
        for job in batch:
            content = self._store_file(job)
            if content is not None:
                stored.append((job, content))
        if stored:
            self._outcomes.put(stored)

    def _store_file(self, job: FileJob) -> FileContent | None:
        """Store one file; `None`: chunks of it are still under way and will tell."""
        if job.data is not None:
            return self._store_data(job, job.data)
        seen = job.seen
        for _attempt in range(_ATTEMPTS):
            try:
                fd = os.open(job.path, _OPEN_FLAGS)
                try:
                    if self._chunk_sizes is None or seen.st_size <= self._chunk_sizes.minimum:
                        plain, large = _read_whole(fd, seen.st_size, job), None
                    else:
                        pieces = _pieces(_blocks(fd, seen.st_size), Cutter(self._chunk_sizes))
                        plain, large = b"", self._store_pieces(job, seen, pieces)
                    after = os.fstat(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                raise _unreadable(job, error) from error
            if _is_same(seen, after):
                return self._store_whole(job, seen, plain) if large is None else self._close(large)
            if not stat.S_ISREG(after.st_mode):
                raise SourceChanged(f"{_shown(job)} is no regular file any more")
            seen = after
        raise SourceChanged(
            f"{_shown(job)} changed every time it was read",
            hint="publish from a snapshot, or when nothing writes to the source",
        )

    def _store_data(self, job: FileJob, data: bytes) -> FileContent | None:
        if self._chunk_sizes is None or len(data) <= self._chunk_sizes.minimum:
            return self._store_whole(job, job.seen, data)
        pieces = _pieces((data,), Cutter(self._chunk_sizes))
        return self._close(self._store_pieces(job, job.seen, pieces))

    def _put(self, job: FileJob, plain: bytes, suffix: Suffix) -> StoredObject:
        if job.is_external:
            return StoredObject(self.writer.identify(plain, self.compression), 0)
        is_read_again = job.path.rpartition(b"/")[2] == DIRTAB
        put = self.writer.put_readable if is_read_again else self.writer.put
        return put(plain, suffix, self.compression)

    def _store_whole(self, job: FileJob, seen: os.stat_result, plain: bytes) -> FileContent:
        stored = self._put(job, plain, Suffix.FILE)
        return FileContent(seen, self.compression, stored.hash, (), stored.new_bytes)

    def _store_pieces(
        self, job: FileJob, seen: os.stat_result, pieces: Iterable[tuple[bytes, bool]]
    ) -> _LargeFile:
        """Every chunk of a file becomes a task, or is stored here if others are busy."""
        file = _LargeFile(job, FileContent(seen, self.compression))
        whole: list[bytes] = []
        offset = 0
        for piece, is_last in pieces:
            if is_last and not offset:
                file.content = self._store_whole(job, seen, piece)
                break
            task = _ChunkTask(file, offset, piece)
            offset += len(piece)
            if self._with_bulk and not job.is_external:
                _check_whole(job, offset)
                whole.append(piece)
            with file.lock:
                file.missing += 1
            if not is_last and self._chunk_slots.acquire(blocking=False):
                self._tasks.put(task)
            else:
                self._store_chunk(task)
        if whole:
            self._store_bulk(file, b"".join(whole))
        return file

    def _store_bulk(self, file: _LargeFile, plain: bytes) -> None:
        stored = self._put(file.job, plain, Suffix.FILE)
        with file.lock:
            file.content.content = stored.hash
            file.content.new_bytes += stored.new_bytes

    def _store_chunk(self, task: _ChunkTask) -> None:
        file = task.file
        stored = self._put(file.job, task.data, Suffix.CHUNK)
        with file.lock:
            file.chunks.append(Chunk(task.offset, len(task.data), stored.hash))
            file.content.new_bytes += stored.new_bytes
            file.missing -= 1
            is_complete = file.missing == 0
        if is_complete:
            self._outcomes.put([(file.job, _with_chunks(file))])

    def _close(self, file: _LargeFile) -> FileContent | None:
        with file.lock:
            file.missing -= 1
            return _with_chunks(file) if file.missing == 0 else None


def _with_chunks(file: _LargeFile) -> FileContent:
    file.content.chunks = tuple(sorted(file.chunks, key=lambda chunk: chunk.offset))
    return file.content


def _blocks(fd: int, size: int) -> Iterator[bytes]:
    """What a file holds. Ends not far beyond `size`: a file that has more is being written to."""
    position = 0
    while position <= size and (block := os.read(fd, _READ_BYTES)):
        yield block
        position += len(block)


def _pieces(blocks: Iterable[bytes], cutter: Cutter) -> Iterator[tuple[bytes, bool]]:
    """The chunks with whether it is the last: no bytes are held beyond the current one."""
    parts: list[bytes] = []
    start = position = 0
    for block in blocks:
        for mark in cutter.feed(block):
            parts.append(block[max(start - position, 0) : mark - position])
            yield b"".join(parts), False
            parts.clear()
            start = mark
        parts.append(block[max(start - position, 0) :])
        position += len(block)
    yield b"".join(parts), True


def _read_whole(fd: int, size: int, job: FileJob) -> bytes:
    """All bytes of a file, and one more if there is: that tells that it grew."""
    _check_whole(job, size)
    data = os.read(fd, size + 1)
    while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
        data += more
    return data


def _check_whole(job: FileJob, size: int) -> None:
    if size > _MAX_WHOLE_BYTES:
        raise LimitExceeded(
            f"{_shown(job)} has {size} bytes, too many to be one object",
            hint="set CVMFS_USE_FILE_CHUNKING=true, CVMFS_GENERATE_LEGACY_BULK_CHUNKS=false",
        )


def _is_same(seen: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file is still the one that was seen, unchanged, so that all between is true."""
    return (
        seen.st_ctime_ns == after.st_ctime_ns
        and seen.st_mtime_ns == after.st_mtime_ns
        and seen.st_size == after.st_size
        and seen.st_ino == after.st_ino
        and seen.st_dev == after.st_dev
    )


def _unreadable(job: FileJob, error: OSError) -> SourceUnreadable | SourceChanged:
    if error.errno in _REPLACED:
        return SourceChanged(f"{_shown(job)} went away while it was to be published")
    return SourceUnreadable(
        f"{_shown(job)} cannot be read: {error.strerror}", hint="nothing was published"
    )


def _shown(job: FileJob) -> str:
    return job.path.decode("utf-8", "backslashreplace")
