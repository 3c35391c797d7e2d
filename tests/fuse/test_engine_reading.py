"""Where the bytes of a file come from: the object directory, or extents of the view."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fuse_kernel import Kernel, Refused
from tests.support.fuse_views import DictView, file_row, memory_file

from outcrop.fuse.engine import EngineLimits
from outcrop.fuse.view import OBJECT_RMD160, OBJECT_SHA1, OBJECT_SHAKE128, Extent, Row

DIGEST = bytes(range(0xA0, 0xB4))
CONTENT = b"The content of an object.\n" * 10


class Objects:
    """An object directory as a client cache keeps it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def path(self, suffix: str = "") -> Path:
        text = DIGEST.hex()
        return self.directory / text[:2] / (text[2:] + suffix)

    def put(self, content: bytes, suffix: str = "") -> Path:
        path = self.path(suffix)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    found = Objects(tmp_path)
    yield found
    os.close(found.fd)


def object_row(content: bytes = CONTENT, kind: int = OBJECT_SHA1) -> Row:
    return file_row(b"f", content)._replace(content=DIGEST, kind=kind)


class ObjectView(DictView):
    """Answers for the object what it is told to."""

    def __init__(self, row: Row, answer: bytes = CONTENT) -> None:
        super().__init__({b"": [row]})
        self.answer = answer

    def open_extent(self, path: bytes, kind: int, content: bytes, size: int, offset: int) -> Extent:
        self._enter(path, "open", kind, content, size, offset)
        return Extent(memory_file(self.answer), 0, size, 0)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (OBJECT_SHA1, ""),
        (OBJECT_RMD160, "-rmd160"),
        (OBJECT_SHAKE128, "-shake128"),
        (OBJECT_RMD160 | 0xF0, "-rmd160"),  # the upper bits are the view's
    ],
)
def test_an_object_in_the_directory_is_read_without_asking(
    objects: Objects, kind: int, suffix: str
) -> None:
    objects.put(CONTENT, suffix)
    view = ObjectView(object_row(kind=kind))
    with Kernel(view, object_directory_fd=objects.fd) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid) == CONTENT
        assert kernel.engine.statistics()["objects_opened"] == 1
    assert not [call for call in view.calls if call[0] == "open"]


def test_an_object_that_is_not_there_is_asked_for(objects: Objects) -> None:
    view = ObjectView(object_row())
    with Kernel(view, object_directory_fd=objects.fd) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid) == CONTENT
    assert view.count("open", OBJECT_SHA1, DIGEST, len(CONTENT), 0) == 1


def test_an_object_of_the_wrong_size_is_not_believed(objects: Objects) -> None:
    objects.put(CONTENT[:-1])
    view = ObjectView(object_row())
    with Kernel(view, object_directory_fd=objects.fd) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid) == CONTENT
    assert view.count("open", OBJECT_SHA1, DIGEST, len(CONTENT), 0) == 1


def test_what_is_no_regular_file_is_not_believed(objects: Objects) -> None:
    path = objects.path()
    path.parent.mkdir()
    outside = objects.directory / "outside"
    outside.write_bytes(CONTENT)
    path.symlink_to(outside)
    view = ObjectView(object_row())
    with Kernel(view, object_directory_fd=objects.fd) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid) == CONTENT
        path.unlink()
        os.mkfifo(path)
        assert kernel.read(kernel.lookup(b"f").nodeid) == CONTENT
    assert view.count("open", OBJECT_SHA1, DIGEST, len(CONTENT), 0) == 2


def test_an_old_object_is_stamped_as_used_and_a_fresh_one_left_alone(objects: Objects) -> None:
    path = objects.put(CONTENT)
    with Kernel(ObjectView(object_row()), object_directory_fd=objects.fd) as kernel:
        node = kernel.lookup(b"f").nodeid
        os.utime(path, (1000, 1000))
        kernel.read(node)
        assert path.stat().st_mtime > time.time() - 100
        recent = time.time() - 300
        os.utime(path, (recent, recent))
        kernel.read(node)
        assert path.stat().st_mtime == pytest.approx(recent)


def test_an_empty_object_needs_nothing() -> None:
    with Kernel(ObjectView(object_row(b""))) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid) == b""


def test_a_small_file_is_closed_when_it_has_been_read(objects: Objects) -> None:
    objects.put(CONTENT)
    with Kernel(ObjectView(object_row()), object_directory_fd=objects.fd) as kernel:
        node = kernel.lookup(b"f").nodeid
        kernel.read(node, 0, 10)
        assert kernel.engine.statistics()["open_extents"] == 1
        kernel.read(node, 10, 1000)
        assert kernel.engine.statistics()["open_extents"] == 0


def test_a_large_file_stays_open_until_its_node_is_forgotten(objects: Objects) -> None:
    large = os.urandom(200_000)
    objects.put(large)
    view = ObjectView(object_row(large))
    with Kernel(view, object_directory_fd=objects.fd) as kernel:
        node = kernel.lookup(b"f").nodeid
        read = b"".join(kernel.read(node, offset, 65536) for offset in range(0, 262144, 65536))
        assert read == large
        assert kernel.engine.statistics()["open_extents"] == 1
        kernel.forget(node)
        kernel.getattr(1)
        assert kernel.engine.statistics()["open_extents"] == 0
    links = Path("/proc/self/fd").iterdir()
    assert str(objects.path()) not in {os.readlink(link) for link in links if link.is_symlink()}


def test_open_files_are_bounded() -> None:
    rows = [file_row(b"%d" % number, b"%03d" % number * 60) for number in range(100)]
    with Kernel(DictView({b"": rows}), limits=EngineLimits(max_extents=16)) as kernel:
        nodes = [kernel.lookup(b"%d" % number).nodeid for number in range(100)]
        for _ in range(2):
            for number, node in enumerate(nodes):
                assert kernel.read(node, 0, 3) == b"%03d" % number
            assert kernel.engine.statistics()["open_extents"] == 16


def pieces_of(content: bytes, size: int) -> list[Extent]:
    """The content in pieces, each somewhere in a file of its own."""
    return [
        Extent(memory_file(b"--" + content[at : at + size]), at, len(content[at : at + size]), 2)
        for at in range(0, len(content), size)
    ]


def test_a_read_is_put_together_from_the_pieces_it_spans() -> None:
    content = os.urandom(100_000)
    view = DictView({b"": [file_row(b"f", b"key", size=len(content))]})
    view.pieces[b"/f"] = pieces_of(content, 7000)
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        assert kernel.read(node, 6990, 20) == content[6990:7010]
        assert view.calls[2:] == [("open", b"/f", 6990), ("open", b"/f", 7000)]
        assert kernel.read(node, 0, 100_000) == content
    for piece in view.pieces[b"/f"]:
        os.close(piece.fd)


def test_only_the_pieces_that_are_read_are_asked_for() -> None:
    content = os.urandom(100_000)
    view = DictView({b"": [file_row(b"f", b"key", size=len(content))]})
    view.pieces[b"/f"] = pieces_of(content, 10_000)
    with Kernel(view) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid, 55_000, 1) == content[55_000:55_001]
    assert [call for call in view.calls if call[0] == "open"] == [("open", b"/f", 55_000)]
    for piece in view.pieces[b"/f"]:
        os.close(piece.fd)


def test_a_file_cut_short_under_us_is_asked_for_once_more(objects: Objects) -> None:
    large = os.urandom(200_000)
    path = objects.put(large)
    view = ObjectView(object_row(large), large)
    with Kernel(view, object_directory_fd=objects.fd) as kernel:
        node = kernel.lookup(b"f").nodeid
        assert kernel.read(node, 0, 10) == large[:10]
        os.truncate(path, 100)
        assert kernel.read(node, 1000, 1000) == large[1000:2000]
    assert view.count("open", OBJECT_SHA1, DIGEST, len(large), 1000) == 1


def test_a_file_that_is_always_short_is_an_io_error(caplog: pytest.LogCaptureFixture) -> None:
    view = ObjectView(object_row(), CONTENT[:50])
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        with pytest.raises(Refused, match="EIO"):
            kernel.read(node)
        assert kernel.read(node, 0, 50) == CONTENT[:50]
    assert "/f is shorter in the cache than its catalog says" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (),
        (1, 2, 3),
        (-1, 0, 10, 0),
        ("1", 0, 10, 0),
        (2**40, 0, 10, 0),
    ],
)
def test_a_nonsense_extent_is_an_io_error(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(DictView):
        def open_extent(self, *_: object) -> Extent:  # type: ignore[override]
            return answer  # type: ignore[return-value]

    with Kernel(Wrong({b"": [file_row(b"f", b"x")]})) as kernel:
        node = kernel.lookup(b"f").nodeid
        with pytest.raises(Refused, match="EIO"):
            kernel.read(node)
    assert "read /f: " in caplog.text


@pytest.mark.parametrize(
    ("offset", "length", "position"),
    [(1, 10, 0), (0, 0, 0), (5, 2**62, 0), (0, 10, -1), (-1, 10, 0), (0, 2**70, 0), (0, "x", 0)],
)
def test_the_descriptor_of_a_wrong_extent_is_closed(
    offset: int, length: int, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[int] = []

    class Wrong(DictView):
        def open_extent(self, *_: object) -> Extent:  # type: ignore[override]
            opened.append(memory_file(b"x" * 10))
            return Extent(opened[-1], offset, length, position)

    with Kernel(Wrong({b"": [file_row(b"f", b"x" * 10)]})) as kernel:
        node = kernel.lookup(b"f").nodeid
        with pytest.raises(Refused, match="EIO"):
            kernel.read(node)
    assert opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_a_pipe_is_no_extent(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = os.pipe()
    view = DictView({b"": [file_row(b"f", b"x")]})
    view.pieces[b"/f"] = [Extent(ours, 0, 1, 0)]
    with Kernel(view) as kernel, pytest.raises(Refused, match="EIO"):
        kernel.read(kernel.lookup(b"f").nodeid)
    assert "not a regular file" in caplog.text
    os.close(ours)
    os.close(theirs)


def test_a_failed_read_tells_everybody_and_can_be_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    view = ObjectView(object_row())
    view.gates[b"/f"] = threading.Event()
    view.failures[b"/f"] = OSError(errno.ENOSPC, "the cache is full")
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        waiting = [kernel.send_read(node, offset, 10) for offset in (0, 10, 20)]
        assert view.waiting.acquire(timeout=20)
        assert kernel.lookup(b"f").nodeid == node
        view.gates.pop(b"/f").set()
        for one in waiting:
            with pytest.raises(Refused, match="ENOSPC"):
                kernel.wait(one)
        view.failures.clear()
        assert kernel.read(node) == CONTENT
