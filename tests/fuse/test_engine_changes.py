"""Another tree behind the same mount: what stays, what goes, and what the kernel is told."""

import contextlib
import errno
import threading
from collections.abc import Iterator

import pytest
from tests.support import fuse_kernel as fuse
from tests.support.fuse_kernel import Kernel, Refused
from tests.support.fuse_views import ROOT, DictView, directory_row, file_row, symlink_row

from outcrop.fuse.view import Row

EXPIRE_ONLY = 1


def before() -> dict[bytes, list[Row]]:
    return {
        b"": [
            file_row(b"same", b"same", ino=11),
            file_row(b"changed", b"old content", ino=12),
            file_row(b"gone", b"gone", ino=13),
            file_row(b"retyped", b"x", ino=14),
            symlink_row(b"link", b"old", ino=15),
            symlink_row(b"same-link", b"t", ino=16),
            directory_row(b"d", ino=17),
            directory_row(b"gone-d", ino=18),
        ],
        b"/d": [file_row(b"f", b"f", ino=19), directory_row(b"sub", ino=20)],
        b"/d/sub": [file_row(b"deep", b"deep", ino=21)],
        b"/gone-d": [file_row(b"g", b"g", ino=22), directory_row(b"inner", ino=23)],
        b"/gone-d/inner": [file_row(b"i", b"i", ino=24)],
    }


def after() -> dict[bytes, list[Row]]:
    return {
        b"": [
            file_row(b"same", b"same", ino=111, mode=0o100600, mtime=99),
            file_row(b"changed", b"new content", ino=112),
            file_row(b"new", b"new", ino=113),
            directory_row(b"retyped", ino=114),
            symlink_row(b"link", b"new", ino=115),
            symlink_row(b"same-link", b"t", ino=116),
            directory_row(b"d", ino=117, mode=0o40700),
        ],
        b"/retyped": [],
        b"/d": [file_row(b"f", b"f", ino=119), directory_row(b"sub", ino=120)],
        b"/d/sub": [file_row(b"deep", b"DEEP", ino=121)],
    }


class Changing:
    """A mount on which every name of the first tree is known."""

    def __init__(self, kernel: Kernel, view: DictView) -> None:
        self.kernel = kernel
        self.view = view
        names = b"same changed gone retyped link same-link d d/f d/sub d/sub/deep"
        names += b" gone-d gone-d/g gone-d/inner gone-d/inner/i"
        self.nodes = {path: kernel.walk(path).nodeid for path in names.split()}

    def change(self) -> list[fuse.Notice]:
        self.view.tree = dict(after())
        self.kernel.engine.tree_changed()
        return self.kernel.settle()


@contextlib.contextmanager
def changing(kernel: Kernel) -> Iterator[threading.Thread]:
    """The tree has changed and the kernel is being told, which waits for those who wait for us."""
    told = threading.Thread(target=kernel.engine.tree_changed)
    changes = kernel.engine.statistics()["tree_changes"]
    told.start()
    while kernel.engine.statistics()["tree_changes"] == changes:
        told.join(0.001)
    yield told
    told.join(20)
    assert not told.is_alive()


def test_what_is_the_same_keeps_its_node_and_shows_its_new_attributes() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        mount.change()
        for path in (b"same", b"same-link", b"d", b"d/f", b"d/sub"):
            assert kernel.walk(path).nodeid == mount.nodes[path], path
        found = kernel.lookup(b"same").attributes
        assert (found.mode, found.mtime) == (0o100600, 99)
        assert found.ino == 11  # as programs have seen it
        assert kernel.getattr(mount.nodes[b"d"]).mode == 0o40700


def test_what_is_different_gets_another_node() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        mount.change()
        for path in (b"changed", b"retyped", b"link", b"d/sub/deep"):
            assert kernel.walk(path).nodeid not in (0, mount.nodes[path]), path
        assert kernel.read(kernel.lookup(b"changed").nodeid) == b"new content"
        assert kernel.read(kernel.walk(b"d/sub/deep").nodeid) == b"DEEP"
        assert kernel.ask(fuse.READLINK, kernel.lookup(b"link").nodeid) == b"new"
        assert kernel.lookup(b"new").attributes.ino == 113


def test_what_is_gone_is_not_found_but_keeps_its_content() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        mount.change()
        assert kernel.lookup(b"gone").nodeid == 0
        assert kernel.lookup(b"gone-d").nodeid == 0
        for path, content in (
            (b"gone", b"gone"),
            (b"changed", b"old content"),
            (b"gone-d/g", b"g"),
            (b"gone-d/inner/i", b"i"),
        ):
            assert kernel.read(mount.nodes[path]) == content
            assert kernel.getattr(mount.nodes[path]).size == len(content)
        assert kernel.ask(fuse.READLINK, mount.nodes[b"link"]) == b"old"


def test_a_directory_that_is_gone_has_nothing_in_it() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        mount.change()
        for path in (b"gone-d", b"gone-d/inner"):
            with pytest.raises(Refused, match="ENOENT"):
                kernel.lookup(b"g", mount.nodes[path])
            with pytest.raises(Refused, match="ENOENT"):
                kernel.readdir(mount.nodes[path])
            assert kernel.getattr(mount.nodes[path]).mode == 0o40755
        with pytest.raises(Refused, match="ESTALE"):
            kernel.getxattr(mount.nodes[b"gone-d"], b"user.a")


def test_a_gone_directory_asked_first_is_found_out_from_above() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        mount.change()
        view.calls.clear()
        with pytest.raises(Refused, match="ENOENT"):
            kernel.lookup(b"i", mount.nodes[b"gone-d/inner"])
        assert ("list", b"/gone-d/inner") not in view.calls


def test_gone_nodes_are_freed_when_they_are_forgotten() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        mount.change()
        for path in (b"d/f", b"d/sub/deep", b"same", b"changed", b"gone", b"new"):
            kernel.walk(path)
        for _ in range(2):  # in whatever order, and too often
            for node in mount.nodes.values():
                kernel.forget(node, 99)
        kernel.getattr(1)
        found = kernel.engine.statistics()
        assert found["kernel_nodes"] == 4  # the root, new, changed, deep
        assert found["nodes"] == found["rows"] + 1


def test_the_roots_own_attributes_change() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        Changing(kernel, view)
        view.root_row = ROOT._replace(mode=0o40700, mtime=123)
        assert kernel.getattr(1).mode == 0o40755
        kernel.engine.tree_changed()
        assert (kernel.getattr(1).mode, kernel.getattr(1).mtime) == (0o40700, 123)


def test_the_kernel_is_told_of_every_name_it_knows() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        notices = mount.change()
        names = [one.name() for one in notices if one.code == fuse.NOTIFY_INVAL_ENTRY]
        real = {(parent, name) for parent, _, name in names if name != b"/"}
        for path in mount.nodes:
            directory, _, name = path.rpartition(b"/")
            assert (mount.nodes[directory] if directory else 1, name) in real
        assert all(flags == EXPIRE_ONLY for _, flags, _ in names)
        assert fuse.NOTIFY_INC_EPOCH not in [one.code for one in notices]


def test_the_kernel_is_told_of_every_directory_it_may_have_listed() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        notices = mount.change()
        told = [one.inode() for one in notices if one.code == fuse.NOTIFY_INVAL_INODE]
        directories = [mount.nodes[path] for path in (b"d", b"d/sub", b"gone-d", b"gone-d/inner")]
        assert set(told) == {(node, 0, 0) for node in [1, *directories]}


def test_the_kernel_is_told_of_names_that_were_not_there() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        assert kernel.lookup(b"new").nodeid == 0
        assert kernel.lookup(b"new").nodeid == 0
        kernel.walk(b"d/sub/missing")
        assert kernel.engine.statistics()["negative_names"] == 2
        notices = mount.change()
        told = [one.name() for one in notices if one.code == fuse.NOTIFY_INVAL_ENTRY]
        assert told.count((1, 0, b"new")) == 1
        assert told.count((mount.nodes[b"d/sub"], 0, b"missing")) == 1
        assert kernel.lookup(b"new").nodeid
        assert kernel.engine.statistics()["negative_names"] == 0


def test_a_name_looked_up_again_just_before_is_told_of_until_nobody_can_have_missed_it() -> None:
    """Its answer may reach the client after the first telling: see notify.c."""
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        kernel.lookup(b"same")
        kernel.lookup(b"changed")
        kernel.lookup(b"changed")
        kernel.engine.tree_changed()
        notices = kernel.settle()
        told = [one.name()[2] for one in notices if one.code == fuse.NOTIFY_INVAL_ENTRY]
        assert (told.count(b"same"), told.count(b"changed")) == (1, 3)


@pytest.mark.system  # only because it takes its time
def test_more_missing_names_than_we_remember_raise_the_epoch() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        for number in range(65537):
            kernel.send(fuse.LOOKUP, 1, b"missing-%d\0" % number)
            if number % 1000 == 0:
                kernel.lookup(b"same")
                kernel._answers.clear()
        kernel.lookup(b"same")
        collector = threading.Thread(target=kernel.engine.tree_changed)
        collector.start()
        while collector.is_alive():
            kernel._receive(0.01)
        collector.join()
        assert [one.code for one in kernel.settle()].count(fuse.NOTIFY_INC_EPOCH) == 1


def test_an_older_kernel_is_told_to_drop_names_instead() -> None:
    view = DictView(dict(before()))
    with Kernel(view, minor=37, flags=fuse.ASYNC_READ) as kernel:
        notices = Changing(kernel, view).change()
        names = [one.name() for one in notices if one.code == fuse.NOTIFY_INVAL_ENTRY]
        assert names
        assert all(flags == 0 for _, flags, _ in names)


def test_nothing_is_sent_before_there_is_a_connection() -> None:
    with Kernel(DictView(dict(before())), minor=0) as kernel:
        kernel.engine.tree_changed()
        kernel.init(45, fuse.MODERN)
        assert kernel.settle() == []


def test_a_listing_under_way_when_the_tree_changes_is_not_believed() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        view.gates[b"/d"] = threading.Event()
        waiting = kernel.send(fuse.LOOKUP, directory, b"f\0")
        assert view.waiting.acquire(timeout=20)
        with changing(kernel):
            view.tree[b"/d"] = [file_row(b"f", b"other")]
            view.gates.pop(b"/d").set()
            assert fuse.Entry.parse(kernel.wait(waiting)).attributes.size == 5
    assert view.count("list", b"/d") == 2


def test_names_of_a_directory_in_which_somebody_waits_are_told_when_nobody_does() -> None:
    """The kernel would make us wait for the client: see notify.c."""
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        kernel.lookup(b"same")
        view.gates[b"/d"] = threading.Event()
        waiting = kernel.send(fuse.LOOKUP, directory, b"f\0")
        assert view.waiting.acquire(timeout=20)
        telling = threading.Thread(target=kernel.engine.tree_changed)
        telling.start()
        while not any(one.code == fuse.NOTIFY_INVAL_INODE for one in kernel.notices):
            kernel._receive(1)
        assert telling.is_alive()
        told = [one.name()[::2] for one in kernel.settle() if one.code == fuse.NOTIFY_INVAL_ENTRY]
        assert (1, b"same") in told
        assert directory not in [parent for parent, _ in told]
        view.gates.pop(b"/d").set()
        assert fuse.Entry.parse(kernel.wait(waiting)).nodeid
        telling.join(20)
        assert not telling.is_alive()
        told = [one.name()[::2] for one in kernel.settle() if one.code == fuse.NOTIFY_INVAL_ENTRY]
        assert (directory, b"/") in told


def test_nobody_waits_in_a_directory_while_its_names_are_told() -> None:
    names = [b"name-%d" % number for number in range(5000)]
    view = DictView({b"": [directory_row(b"d")], b"/d": [file_row(name, b"old") for name in names]})
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"d").nodeid
        assert len(kernel.list(directory, 1 << 17)) == 5002
        view.tree[b"/d"] = [file_row(name, b"newer") for name in names]
        telling = threading.Thread(target=kernel.engine.tree_changed)
        telling.start()
        # We do not read: the teller stands in write(2), as for a lock of the kernel's.
        told = -1
        while told != (told := kernel.engine.statistics()["notifications"]) or not told:
            telling.join(0.1)
        assert 0 < told < 5000
        view.gates[b"/d"] = threading.Event()  # whoever asks the view now waits for ever
        looked_up = kernel.send(fuse.LOOKUP, directory, b"name-7\0")
        missing = kernel.send(fuse.LOOKUP, directory, b"missing\0")
        entry = fuse.Entry.parse(kernel.wait(looked_up))
        assert (entry.entry_valid, entry.attributes.size) == (0, 3)
        with pytest.raises(Refused, match="ENOENT"):
            kernel.wait(missing)
        view.gates.pop(b"/d").set()
        while telling.is_alive():
            kernel._receive(0.01)
        entry = kernel.lookup(b"name-7", directory)
        assert (entry.entry_valid, entry.attributes.size) == (3600, 5)


def test_serving_goes_on_until_the_kernel_has_been_told() -> None:
    names = [b"name-%d" % number for number in range(5000)]
    view = DictView({b"": [file_row(name, b"old") for name in names]})
    with Kernel(view) as kernel:
        kernel.list(1, 1 << 17)
        telling = threading.Thread(target=kernel.engine.tree_changed)
        telling.start()
        told = -1
        while told != (told := kernel.engine.statistics()["notifications"]) or not told:
            telling.join(0.1)
        kernel.engine.stop()
        assert kernel.lookup(b"name-7").nodeid  # a client that holds the lock gets its answer
        telling.join(20)
        kernel.join()


def test_a_directory_that_vanishes_while_it_is_listed_is_gone() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        directory = kernel.lookup(b"gone-d").nodeid
        view.gates[b"/gone-d"] = threading.Event()
        waiting = [kernel.send(fuse.LOOKUP, directory, b"g\0") for _ in range(3)]
        assert view.waiting.acquire(timeout=20)
        view.tree = dict(after())
        with changing(kernel):
            assert kernel.lookup(b"gone-d").nodeid == 0
            view.gates.pop(b"/gone-d").set()
            for one in waiting:
                with pytest.raises(Refused, match="ENOENT"):
                    kernel.wait(one)
        kernel.forget(directory, 99)
        kernel.getattr(1)
        found = kernel.engine.statistics()
        assert found["nodes"] == found["rows"] + 1


def test_a_tree_that_cannot_be_listed_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        mount = Changing(kernel, view)
        view.failures[b"/d"] = OSError(errno.EHOSTDOWN, "down")
        mount.change()
        with pytest.raises(Refused, match="EHOSTDOWN"):
            kernel.lookup(b"f", mount.nodes[b"d"])
        assert kernel.read(mount.nodes[b"d/f"]) == b"f"
        view.failures.clear()
        assert kernel.walk(b"d/f").nodeid == mount.nodes[b"d/f"]


def test_trees_that_keep_changing_leave_nothing_behind() -> None:
    view = DictView(dict(before()))
    with Kernel(view) as kernel:
        for number in range(30):
            view.tree = dict(before() if number % 2 else after())
            kernel.engine.tree_changed()
            for listed in kernel.list():
                assert listed.entry is not None
                if listed.entry.nodeid and listed.type == 4:
                    kernel.list(listed.entry.nodeid)
            kernel.lookup(b"none-%d" % number)
            kernel.settle()
        known = kernel.engine.statistics()["kernel_nodes"]
        kernel.batch_forget(*((node, 2**40) for node in range(2, 1000)))
        kernel.getattr(1)
        found = kernel.engine.statistics()
        assert known > 10
        assert found["kernel_nodes"] == 1
        assert found["nodes"] == found["rows"] + 1
