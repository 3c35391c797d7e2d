"""The engine's answers, request by request, with no kernel behind them."""

import errno
import os
import signal
import struct
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import fuse_kernel as fuse
from tests.support.fuse_kernel import Kernel, Refused
from tests.support.fuse_views import DictView, directory_row, file_row, symlink_row

from outcrop.fuse.engine import EngineLimits
from outcrop.fuse.view import ROW_HAS_XATTRS, ROW_HIDDEN, StatFs


def small_tree() -> DictView:
    return DictView(
        {
            b"": [
                file_row(b"f", b"hello\n"),
                directory_row(b"d"),
                symlink_row(b"s", b"d/g"),
                file_row(b"hidden", b"x", bits=ROW_HIDDEN),
            ],
            b"/d": [file_row(b"g", b"world\n"), directory_row(b"sub")],
            b"/d/sub": [file_row(b"deep", b"deep\n")],
        }
    )


def refusal(number: int) -> "pytest.RaisesExc[Refused]":
    return pytest.raises(Refused, match=errno.errorcode[number])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


# ---- INIT -----------------------------------------------------------------------------------


def test_init_takes_what_a_modern_kernel_offers_and_nothing_else() -> None:
    with Kernel(small_tree(), minor=0) as kernel:
        major, minor, readahead, flags = kernel.init(45, fuse.MODERN)
    assert (major, minor, readahead) == (7, 45, 131072)
    assert flags == (
        fuse.ASYNC_READ
        | fuse.PARALLEL_DIROPS
        | fuse.DO_READDIRPLUS
        | fuse.CACHE_SYMLINKS
        | fuse.MAX_PAGES
        | fuse.EXPLICIT_INVAL_DATA
    )


def test_init_speaks_an_older_kernels_protocol() -> None:
    with Kernel(small_tree(), minor=0) as kernel:
        assert kernel.init(31, fuse.ASYNC_READ)[:2] == (7, 31)
        assert kernel.lookup(b"f").nodeid


def test_init_refuses_a_kernel_that_is_too_old(caplog: pytest.LogCaptureFixture) -> None:
    with Kernel(small_tree(), minor=0) as kernel, refusal(errno.EPROTO):
        kernel.init(22, 0)
    assert "older than 7.23" in caplog.text


def test_init_of_another_major_version_is_answered_with_ours() -> None:
    with Kernel(small_tree(), minor=0) as kernel:
        assert kernel.init(0, 0, major=8)[0] == 7
        assert kernel.init(45, fuse.MODERN)[:2] == (7, 45)


def test_open_is_left_to_the_kernel() -> None:
    with Kernel(small_tree()) as kernel:
        node = kernel.lookup(b"f").nodeid
        with refusal(errno.ENOSYS):
            kernel.ask(fuse.OPEN, node, bytes(8))
        with refusal(errno.ENOSYS):
            kernel.ask(fuse.OPENDIR, 1, bytes(8))


def test_open_is_answered_where_the_kernel_cannot_do_without() -> None:
    with Kernel(small_tree(), flags=fuse.ASYNC_READ) as kernel:
        node = kernel.lookup(b"f").nodeid
        assert struct.unpack("<QII", kernel.ask(fuse.OPEN, node, bytes(8))) == (0, 1 << 1, 0)
        opened = struct.unpack("<QII", kernel.ask(fuse.OPENDIR, 1, bytes(8)))
        assert opened == (0, (1 << 1) | (1 << 3), 0)
        with refusal(errno.EROFS):
            kernel.ask(fuse.OPEN, node, struct.pack("<II", os.O_RDWR, 0))


# ---- names and attributes -------------------------------------------------------------------


def test_lookup_tells_all_a_row_says() -> None:
    row = file_row(
        b"f", b"hello", ino=77, mode=0o104755, nlink=3, uid=1, gid=2, mtime=-5, mtime_ns=9
    )
    with Kernel(DictView({b"": [row]})) as kernel:
        entry = kernel.lookup(b"f")
    found = entry.attributes
    assert (found.ino, found.mode, found.nlink, found.uid, found.gid) == (77, 0o104755, 3, 1, 2)
    assert (found.size, found.mtime_ns) == (5, 9)
    assert found.mtime == 2**64 - 5
    assert entry.entry_valid == 3600


def test_a_device_keeps_its_number_and_a_file_has_none() -> None:
    rows = [
        file_row(b"null", b"", mode=0o20666, rdev=os.makedev(1, 3)),
        file_row(b"f", b"", rdev=99),
    ]
    with Kernel(DictView({b"": rows})) as kernel:
        assert kernel.lookup(b"null").attributes.rdev == os.makedev(1, 3)
        assert kernel.lookup(b"f").attributes.rdev == 0


def test_a_directory_is_listed_once_however_many_names_are_looked_up() -> None:
    view = small_tree()
    with Kernel(view) as kernel:
        kernel.lookup(b"f")
        kernel.lookup(b"d")
        kernel.lookup(b"nope")
        kernel.list()
        kernel.getattr(1)
    assert view.calls == [("root",), ("list", b"")]


def test_a_missing_name_is_an_entry_that_may_be_remembered() -> None:
    with Kernel(small_tree()) as kernel:
        entry = kernel.lookup(b"nope")
    assert (entry.nodeid, entry.entry_valid) == (0, 3600)


def test_a_hidden_name_is_found_but_not_listed() -> None:
    with Kernel(small_tree()) as kernel:
        assert kernel.lookup(b"hidden").nodeid
        assert b"hidden" not in [listed.name for listed in kernel.list()]


def test_a_symlinks_target_is_as_long_as_it_says() -> None:
    with Kernel(small_tree()) as kernel:
        entry = kernel.lookup(b"s")
        assert entry.attributes.size == 3
        assert kernel.ask(fuse.READLINK, entry.nodeid) == b"d/g"
        with refusal(errno.EINVAL):
            kernel.ask(fuse.READLINK, 1)


def test_paths_are_built_from_the_names_on_the_way() -> None:
    view = small_tree()
    with Kernel(view) as kernel:
        assert kernel.read(kernel.walk(b"d/sub/deep").nodeid) == b"deep\n"
    assert view.count("open", b"/d/sub/deep", 0) == 1


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [400, 4096, 1 << 20])
def test_a_listing_names_everything_once_in_pieces_of_any_size(size: int, plus: bool) -> None:
    names = [b"%d" % number * (1 + number % 20) for number in range(300)]
    view = DictView({b"": [file_row(name, b"") for name in names]})
    with Kernel(view) as kernel:
        listed = [one.name for one in kernel.list(size=size, plus=plus)]
    assert listed[:2] == [b".", b".."]
    assert sorted(listed[2:]) == sorted(names)


def test_a_listing_is_complete_when_the_tree_changes_in_the_middle() -> None:
    names = [b"name-%d" % number for number in range(500)]
    view = DictView({b"": [file_row(name, b"") for name in names]})
    with Kernel(view) as kernel:
        first = kernel.readdir(size=4096)
        view.tree = {b"": [file_row(name, b"") for name in [b"new", *reversed(names[100:])]]}
        kernel.engine.tree_changed()
        rest = []
        offset = first[-1].cookie
        while batch := kernel.readdir(offset=offset):
            rest += batch
            offset = batch[-1].cookie
    listed = [one.name for one in first + rest]
    assert len(listed) == len(set(listed))
    assert set(names[100:]) <= set(listed)


def test_readdirplus_counts_as_a_lookup_of_each_name_but_the_dots() -> None:
    with Kernel(small_tree()) as kernel:
        listed = {one.name: one for one in kernel.list()}
        assert listed[b"."].entry is not None
        assert listed[b"."].entry.nodeid == 0
        assert kernel.engine.statistics()["kernel_nodes"] == 4
        for name in (b"f", b"d", b"s"):
            entry = listed[name].entry
            assert entry is not None
            assert entry.nodeid == kernel.lookup(name).nodeid
            kernel.forget(entry.nodeid, 2)
        kernel.getattr(1)
        assert kernel.engine.statistics()["kernel_nodes"] == 1


# ---- forgetting -----------------------------------------------------------------------------


def test_a_node_is_known_until_it_is_forgotten_as_often_as_it_was_looked_up() -> None:
    with Kernel(small_tree()) as kernel:
        node = kernel.lookup(b"f").nodeid
        assert kernel.lookup(b"f").nodeid == node
        kernel.forget(node)
        assert kernel.getattr(node).size == 6
        kernel.forget(node)
        with refusal(errno.ESTALE):
            kernel.getattr(node)


def test_node_numbers_are_never_used_again() -> None:
    with Kernel(small_tree()) as kernel:
        seen = set()
        for _ in range(50):
            node = kernel.lookup(b"f").nodeid
            assert node not in seen
            seen.add(node)
            kernel.forget(node)


def test_forgetting_too_much_or_what_is_unknown_does_no_harm() -> None:
    with Kernel(small_tree()) as kernel:
        node = kernel.lookup(b"f").nodeid
        kernel.batch_forget((node, 2**63), (1, 2**63), (99999, 1))
        kernel.send(fuse.BATCH_FORGET, 0, struct.pack("<II", 2**31, 0))
        assert kernel.getattr(1).mode == 0o40755


def test_tables_beyond_the_limit_are_dropped_and_listed_again() -> None:
    view = DictView({b"": [directory_row(b"%d" % number) for number in range(50)]})
    for number in range(50):
        view.tree[b"/%d" % number] = [file_row(b"f%d" % index, b"") for index in range(20)]
    with Kernel(view, limits=EngineLimits(max_rows=200)) as kernel:
        for number in range(50):
            directory = kernel.lookup(b"%d" % number).nodeid
            for index in range(20):
                kernel.forget(kernel.lookup(b"f%d" % index, directory).nodeid)
            assert kernel.engine.statistics()["rows"] <= 200
            kernel.forget(directory)
        again = kernel.lookup(b"0").nodeid
        assert kernel.lookup(b"f7", again).nodeid
    assert view.count("list", b"/0") == 2


def test_what_the_kernel_knows_survives_the_dropping_of_its_table() -> None:
    view = DictView({b"": [directory_row(b"%d" % number) for number in range(20)]})
    for number in range(20):
        view.tree[b"/%d" % number] = [file_row(b"f%d" % index, b"%d" % index) for index in range(9)]
    with Kernel(view, limits=EngineLimits(max_rows=30)) as kernel:
        kept = kernel.walk(b"0/f3").nodeid
        for number in range(20):
            kernel.walk(b"%d/f0" % number)
        assert kernel.read(kept) == b"3"
        assert kernel.walk(b"0/f3").nodeid == kept
        assert kernel.walk(b"0/f4").nodeid != 0
        assert kernel.walk(b"0/none").nodeid == 0


# ---- reading --------------------------------------------------------------------------------


def test_a_file_is_read_in_any_pieces() -> None:
    content = bytes(range(256)) * 200
    with Kernel(DictView({b"": [file_row(b"f", content)]})) as kernel:
        node = kernel.lookup(b"f").nodeid
        assert kernel.read(node) == content
        assert kernel.read(node, 1000, 10) == content[1000:1010]
        assert kernel.read(node, len(content) - 3, 100) == content[-3:]
        assert kernel.read(node, len(content), 100) == b""
        assert kernel.read(node, 2**62, 100) == b""


def test_an_empty_file_is_read_without_asking() -> None:
    view = DictView({b"": [file_row(b"f", b"")._replace(content=None)]})
    with Kernel(view) as kernel:
        assert kernel.read(kernel.lookup(b"f").nodeid) == b""
    assert not [call for call in view.calls if call[0] == "open"]


def test_reading_what_is_no_file_is_refused() -> None:
    with Kernel(small_tree()) as kernel:
        with refusal(errno.EISDIR):
            kernel.read(1)
        with refusal(errno.EINVAL):
            kernel.read(kernel.lookup(b"s").nodeid)
        with refusal(errno.EINVAL):
            kernel.read(kernel.lookup(b"f").nodeid, 0, 2 << 20)


# ---- extended attributes, statfs ------------------------------------------------------------


def test_security_attributes_are_unsupported_without_asking_the_view() -> None:
    view = small_tree()
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        for name in (b"security.selinux", b"system.posix_acl_access"):
            with refusal(errno.EOPNOTSUPP):
                kernel.getxattr(node, name)
    assert not [call for call in view.calls if call[0] == "getxattr"]


def test_security_attributes_are_asked_for_where_the_row_has_some() -> None:
    view = DictView({b"": [file_row(b"f", b"", bits=ROW_HAS_XATTRS)]})
    view.xattrs[b"/f"] = {b"security.capability": b"\1\0"}
    with Kernel(view) as kernel:
        assert kernel.getxattr(kernel.lookup(b"f").nodeid, b"security.capability") == b"\1\0"


def test_an_attributes_value_comes_in_the_size_asked_for() -> None:
    view = small_tree()
    view.xattrs[b"/f"] = {b"user.a": b"0123456789", b"user.b": b""}
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        assert struct.unpack("<II", kernel.getxattr(node, b"user.a", 0)) == (10, 0)
        assert kernel.getxattr(node, b"user.a", 10) == b"0123456789"
        with refusal(errno.ERANGE):
            kernel.getxattr(node, b"user.a", 9)
        with refusal(errno.ENODATA):
            kernel.getxattr(node, b"user.none")
        assert kernel.getxattr(node, b"user.b", 1) == b""
        assert kernel.listxattr(node) == b"user.a\0user.b\0"
        assert struct.unpack("<II", kernel.listxattr(node, 0)) == (14, 0)
        with refusal(errno.ERANGE):
            kernel.listxattr(node, 13)
        assert kernel.listxattr(1) == b""


def test_statfs_says_what_the_view_says() -> None:
    with Kernel(small_tree()) as kernel:
        found = struct.unpack_from("<QQQQQIII", kernel.ask(fuse.STATFS, 1))
    assert found == (100, 50, 50, 10, 5, 512, 255, 512)


def test_a_nonsense_statfs_is_an_io_error(caplog: pytest.LogCaptureFixture) -> None:
    view = small_tree()
    with Kernel(view) as kernel:
        for nonsense in (None, (1, 2), ("a",) * 6, StatFs(-1, 0, 0, 0, 0)):
            view.statfs_answer = nonsense
            with refusal(errno.EIO):
                kernel.ask(fuse.STATFS, 1)
    assert caplog.text.count("statfs /") == 4


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 51])
def test_every_change_is_refused_as_read_only(opcode: int) -> None:
    with Kernel(small_tree()) as kernel, refusal(errno.EROFS):
        kernel.ask(opcode, 1, bytes(64))


@pytest.mark.parametrize("opcode", [25, 31, fuse.ACCESS, 46, 50, fuse.STATX, 999, 2**32 - 1])
def test_what_the_kernel_does_better_itself_is_not_implemented(opcode: int) -> None:
    with Kernel(small_tree()) as kernel, refusal(errno.ENOSYS):
        kernel.ask(opcode, 1, bytes(64))


@pytest.mark.parametrize(
    "opcode",
    [
        fuse.LOOKUP,
        fuse.READ,
        fuse.READDIR,
        fuse.READDIRPLUS,
        fuse.GETXATTR,
        fuse.LISTXATTR,
        fuse.INIT,
    ],
)
def test_a_request_cut_short_is_invalid(opcode: int) -> None:
    with Kernel(small_tree()) as kernel:
        for length in range(4):
            with refusal(errno.EINVAL):
                kernel.ask(opcode, 1, bytes(length) if opcode != fuse.LOOKUP else b"x" * length)
        assert kernel.lookup(b"f").nodeid


def test_names_that_no_kernel_sends_are_refused() -> None:
    with Kernel(small_tree()) as kernel:
        for body in (b"", b"\0", b"no end", b"in\0the middle\0"):
            with refusal(errno.EINVAL):
                kernel.ask(fuse.LOOKUP, 1, body)
        with refusal(errno.ENAMETOOLONG):
            kernel.lookup(b"x" * 256)
        with refusal(errno.ENOTDIR):
            kernel.lookup(b"x", kernel.lookup(b"f").nodeid)
        with refusal(errno.ESTALE):
            kernel.lookup(b"x", 12345)


_requests = st.tuples(
    st.one_of(
        st.sampled_from([1, 2, 3, 5, 14, 15, 17, 22, 23, 26, 27, 28, 36, 38, 42, 44]),
        st.integers(0, 2**32 - 1),
    ),
    st.one_of(st.integers(0, 8), st.integers(0, 2**64 - 1)),
    st.one_of(
        st.binary(max_size=120),
        st.sampled_from([b"f\0", b"d\0", b"nope\0", b"g\0"]),
        st.builds(
            struct.Struct("<QQIIQII").pack,
            st.just(0),
            st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1)),
            st.one_of(st.integers(0, 9000), st.integers(0, 2**32 - 1)),
            st.just(0),
            st.just(0),
            st.just(0),
            st.just(0),
        ),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(_requests, st.binary(min_size=1, max_size=90)), max_size=40))
def test_whatever_is_sent_the_next_request_is_answered(
    requests: list[tuple[int, int, bytes] | bytes],
) -> None:
    with Kernel(small_tree()) as kernel:
        for request in requests:
            if isinstance(request, bytes):
                kernel.send_raw(request)
            else:
                kernel.send(*request)
        kernel._answers.clear()
        assert kernel.lookup(b"f").attributes.size == 6


# ---- waiting --------------------------------------------------------------------------------


def test_a_request_that_waits_for_the_view_holds_nobody_up() -> None:
    view = small_tree()
    view.gates[b"/d"] = threading.Event()
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        waiting = kernel.send(fuse.LOOKUP, directory, b"g\0")
        assert view.waiting.acquire(timeout=20)
        assert kernel.lookup(b"f").nodeid
        assert not kernel.has_answer(waiting)
        view.gates[b"/d"].set()
        assert fuse.Entry.parse(kernel.wait(waiting)).nodeid


def test_a_slow_call_after_many_quick_ones_holds_nobody_up() -> None:
    """The leader goes away on loan then: see workers.c."""
    view = DictView({b"": [directory_row(b"%d" % number) for number in range(400)]})
    for number in range(400):
        view.tree[b"/%d" % number] = [file_row(b"f", b"x")]
    with Kernel(view) as kernel:
        nodes = [listed.entry.nodeid for listed in kernel.list()[2:] if listed.entry]
        for round_ in range(4):
            for node in nodes[round_ * 99 : round_ * 99 + 99]:
                kernel.lookup(b"f", node)
            slow = nodes[396 + round_]
            gate = threading.Event()
            view.gates = {b"/%d" % number: gate for number in range(400)}
            waiting = [kernel.send(fuse.LOOKUP, slow, b"f\0") for _ in range(3)]
            assert view.waiting.acquire(timeout=20)
            assert kernel.getattr(1).mode == 0o40755
            gate.set()
            view.gates = {}
            assert len({kernel.wait(one) for one in waiting}) == 1


def test_many_who_wait_for_one_directory_ask_the_view_once() -> None:
    view = small_tree()
    view.gates[b"/d"] = threading.Event()
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        waiting = [kernel.send(fuse.LOOKUP, directory, b"g\0") for _ in range(100)]
        assert view.waiting.acquire(timeout=20)
        assert kernel.lookup(b"f").nodeid
        view.gates[b"/d"].set()
        assert len({fuse.Entry.parse(kernel.wait(one)).nodeid for one in waiting}) == 1
    assert view.count("list", b"/d") == 1


def test_many_who_wait_for_a_directory_that_fails_are_all_told() -> None:
    view = small_tree()
    view.gates[b"/d"] = threading.Event()
    view.failures[b"/d"] = OSError(errno.EHOSTDOWN, "down")
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        waiting = [kernel.send(fuse.LOOKUP, directory, b"g\0") for _ in range(20)]
        assert view.waiting.acquire(timeout=20)
        wait_until(lambda: kernel.engine.statistics()["requests_lookup"] == 21)
        assert kernel.lookup(b"f").nodeid
        view.gates[b"/d"].set()
        for one in waiting:
            with refusal(errno.EHOSTDOWN):
                kernel.wait(one)


def test_beyond_the_thread_limit_requests_queue_but_the_device_is_read() -> None:
    view = DictView({b"": [file_row(b"%d" % number, b"x") for number in range(40)]})
    gate = threading.Event()
    for number in range(40):
        view.gates[b"/%d" % number] = gate
    with Kernel(view, limits=EngineLimits(threads=2, max_threads=4)) as kernel:
        nodes = [kernel.lookup(b"%d" % number).nodeid for number in range(40)]
        waiting = [kernel.send_read(node, 0, 100) for node in nodes]
        for _ in range(3):
            assert view.waiting.acquire(timeout=20)
        assert kernel.getattr(nodes[7]).size == 1
        found = kernel.engine.statistics()
        assert found["threads"] == 4
        assert found["overloads"] == 37
        gate.set()
        assert [kernel.wait(one) for one in waiting] == [b"x"] * 40


def test_readers_of_one_file_ask_the_view_once() -> None:
    view = DictView({b"": [file_row(b"f", b"x" * 60000)]})
    view.gates[b"/f"] = threading.Event()
    with Kernel(view, limits=EngineLimits(max_threads=32)) as kernel:
        node = kernel.lookup(b"f").nodeid
        waiting = [kernel.send_read(node, offset, 1000) for offset in range(0, 20000, 1000)]
        assert view.waiting.acquire(timeout=20)
        assert kernel.getattr(node).size == 60000
        view.gates[b"/f"].set()
        assert all(kernel.wait(one) == b"x" * 1000 for one in waiting)
    assert view.count("open", b"/f", 0) == 1


# ---- interrupts -----------------------------------------------------------------------------


def test_a_dying_process_is_answered_at_once_and_the_late_answer_is_dropped() -> None:
    view = small_tree()
    view.gates[b"/f"] = threading.Event()
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        kernel.pid = 0  # a process we cannot see
        waiting = kernel.send_read(node, 0, 10)
        assert view.waiting.acquire(timeout=20)
        kernel.interrupt(waiting)
        with refusal(errno.EINTR):
            kernel.wait(waiting)
        view.gates[b"/f"].set()
        wait_until(lambda: kernel.engine.statistics()["answers_discarded"] == 1)
        assert kernel.lookup(b"f").nodeid == node
        assert not kernel.has_answer(waiting)


def test_a_lookup_whose_answer_is_dropped_is_no_lookup() -> None:
    view = small_tree()
    view.gates[b"/d"] = threading.Event()
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        known = kernel.engine.statistics()["kernel_nodes"]
        waiting = kernel.send(fuse.LOOKUP, directory, b"g\0", pid=0)
        assert view.waiting.acquire(timeout=20)
        kernel.interrupt(waiting)
        with refusal(errno.EINTR):
            kernel.wait(waiting)
        view.gates[b"/d"].set()
        wait_until(lambda: kernel.engine.statistics()["answers_discarded"] == 1)
        wait_until(lambda: kernel.engine.statistics()["kernel_nodes"] == known)


def test_a_signal_with_a_handler_does_not_fail_a_request() -> None:
    view = small_tree()
    view.gates[b"/f"] = threading.Event()
    with Kernel(view) as kernel:
        node = kernel.lookup(b"f").nodeid
        waiting = kernel.send_read(node, 0, 10)
        assert view.waiting.acquire(timeout=20)
        kernel.interrupt(waiting)
        kernel.interrupt(waiting)
        assert kernel.lookup(b"f").nodeid
        view.gates[b"/f"].set()
        assert kernel.wait(waiting) == b"hello\n"
        assert kernel.engine.statistics()["interrupted"] == 0


def test_a_process_that_dies_after_a_harmless_signal_is_noticed() -> None:
    view = small_tree()
    view.gates[b"/f"] = threading.Event()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        with Kernel(view) as kernel:
            node = kernel.lookup(b"f").nodeid
            waiting = kernel.send(
                fuse.READ, node, struct.pack("<QQIIQII", 0, 0, 9, 0, 0, 0, 0), pid=child
            )
            assert view.waiting.acquire(timeout=20)
            kernel.interrupt(waiting)
            assert kernel.lookup(b"f").nodeid
            assert not kernel.has_answer(waiting)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
            with refusal(errno.EINTR):
                kernel.wait(waiting)
            view.gates[b"/f"].set()
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_an_interrupt_of_an_answered_request_is_ignored() -> None:
    with Kernel(small_tree()) as kernel:
        for unique in (2, 4, 99999):
            kernel.interrupt(unique)
        assert kernel.lookup(b"f").nodeid


# ---- the end --------------------------------------------------------------------------------


def test_serve_returns_when_the_connection_ends() -> None:
    with Kernel(small_tree()) as kernel:
        kernel.unmount()
        assert kernel.failure is None
        assert kernel.engine.statistics()["threads"] == 0


def test_stop_ends_serving_without_an_unmount() -> None:
    with Kernel(small_tree()) as kernel:
        kernel.lookup(b"f")
        kernel.engine.stop()
        kernel.join()
        assert kernel.failure is None


def test_stop_waits_for_a_call_into_the_view_and_answers_it() -> None:
    view = small_tree()
    view.gates[b"/d"] = threading.Event()
    with Kernel(view) as kernel:
        waiting = kernel.send(fuse.LOOKUP, kernel.lookup(b"d").nodeid, b"g\0")
        assert view.waiting.acquire(timeout=20)
        kernel.engine.stop()
        view.gates[b"/d"].set()
        kernel.join()
        assert fuse.Entry.parse(kernel.wait(waiting)).nodeid


def test_an_engine_that_serves_cannot_be_closed_and_serves_only_once() -> None:
    with Kernel(small_tree()) as kernel:
        with pytest.raises(RuntimeError, match="serving"):
            kernel.engine.close()
        kernel.engine.stop()
        kernel.join()
        with pytest.raises(RuntimeError, match="once"):
            kernel.engine.serve()


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_a_view_that_wants_the_process_to_end_ends_serving(
    ending: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    view = small_tree()
    view.failures[b"/d"] = ending()
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        with refusal(errno.EIO):
            kernel.lookup(b"g", directory)
        kernel.join()
        assert isinstance(kernel.failure, ending)


def test_an_exceptions_errno_is_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    view = small_tree()
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        for number, wanted in (
            (errno.EACCES, errno.EACCES),
            (errno.ENOSYS, errno.EIO),
            (5000, errno.EIO),
            (-1, errno.EIO),
        ):
            view.failures[b"/d"] = OSError(number, "it says no")
            with refusal(wanted):
                kernel.lookup(b"g", directory)
        view.failures[b"/d"] = LookupError("a bug")
        with refusal(errno.EIO):
            kernel.lookup(b"g", directory)
        view.failures.clear()
        assert kernel.lookup(b"g", directory).nodeid
    assert "list /d: [Errno 13] it says no (Permission denied)" in caplog.text
    assert "LookupError: a bug" in caplog.text


def test_a_server_that_is_down_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    view = small_tree()
    view.failures[b"/d"] = OSError(errno.EIO, "down")
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        for _ in range(200):
            with refusal(errno.EIO):
                kernel.lookup(b"g", directory)
    assert 5 < len(caplog.records) < 50


@pytest.mark.parametrize(
    "limits",
    [{"threads": 0}, {"threads": 5, "max_threads": 4}, {"max_threads": 1}, {"max_rows": 0}],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        EngineLimits(**limits)
