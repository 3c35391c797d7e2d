"""Rows a hostile or broken catalog could hold: refused whole, with a reason, and nothing worse."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fuse_kernel import Kernel, Refused
from tests.support.fuse_views import DictView, directory_row, file_row, symlink_row

from outcrop.fuse.view import OBJECT_SHA1, Row

GOOD = file_row(b"good", b"x")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (file_row(b"", b""), "name is empty"),
        (file_row(b"a/b", b""), "contains a slash"),
        (file_row(b"/", b""), "contains a slash"),
        (file_row(b".", b""), "directory's own"),
        (file_row(b"..", b""), "directory's own"),
        (file_row(b"a\0b", b""), "contains a NUL"),
        (file_row(b"n" * 256, b""), "name has 256 bytes"),
        (GOOD, "two entries are named b'good'"),
        (file_row(b"f", b"")._replace(name="text"), "name is str"),
        (file_row(b"f", b"", ino=0), "inode 0"),
        (file_row(b"f", b"", ino=-1), "ino is out of range"),
        (file_row(b"f", b"", ino=2**64), "ino is out of range"),
        (file_row(b"f", b"", ino=1.5), "ino is float"),
        (file_row(b"f", b"", ino=None), "ino is NoneType"),
        (file_row(b"f", b"", mode=0o644), "mode 1a4"),
        (file_row(b"f", b"", mode=0o170644), "mode f1a4"),
        (file_row(b"f", b"", mode=2**32 + 0o100644), "mode is out of range"),
        (file_row(b"f", b"", nlink=2**32), "nlink is out of range"),
        (file_row(b"f", b"", uid=-1), "uid is out of range"),
        (file_row(b"f", b"", gid="0"), "gid is str"),
        (file_row(b"f", b"", size=2**63), "size is out of range"),
        (file_row(b"f", b"", size=-1), "size is out of range"),
        (file_row(b"f", b"", mtime=2**63), "mtime is no time"),
        (file_row(b"f", b"", mtime="now"), "mtime is no time"),
        (file_row(b"f", b"", mtime_ns=10**9), "mtime_ns is out of range"),
        (file_row(b"f", b"", rdev=2**32), "rdev is out of range"),
        (file_row(b"f", b"", kind=4), "kind is not known"),
        (file_row(b"f", b"", kind=16), "kind is not known"),
        (file_row(b"f", b"", kind=256), "kind is out of range"),
        (file_row(b"f", b"", kind=-1), "kind is out of range"),
        (file_row(b"f", b"", bits=256), "bits is out of range"),
        (file_row(b"f", b"x" * 19, kind=OBJECT_SHA1), "a digest of 19 bytes"),
        (file_row(b"f", b"x" * 65536), "content has 65536 bytes"),
        (file_row(b"f", b"x")._replace(content=None), "no content"),
        (file_row(b"f", b"x")._replace(content="text"), "content is str"),
        (symlink_row(b"s", b""), "target is empty"),
        (symlink_row(b"s", b"a\0b"), "contains a NUL"),
        (symlink_row(b"s", b"t" * 4096), "target has 4096 bytes"),
        (symlink_row(b"s", b"t")._replace(target=None), "target is empty"),
        (symlink_row(b"s", b"t")._replace(target="t"), "target is str"),
        (tuple(GOOD)[:13], "a row is a tuple of 14"),
        ((*GOOD, 0), "a row is a tuple of 14"),
        (list(GOOD), "a row is a tuple of 14"),
        ((), "a row is a tuple of 14"),
        (None, "a row is a tuple of 14"),
    ],
)
def test_a_bad_row_makes_its_directory_unreadable_and_says_why(
    row: tuple[object, ...], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    view = DictView({b"": [directory_row(b"d"), file_row(b"f", b"x")], b"/d": [GOOD, row]})
    with Kernel(view) as kernel:
        node = kernel.lookup(b"d").nodeid
        with pytest.raises(Refused, match="EIO"):
            kernel.lookup(b"good", node)
        with pytest.raises(Refused, match="EIO"):
            kernel.readdir(node)
        assert kernel.read(kernel.lookup(b"f").nodeid) == b"x"
        view.tree[b"/d"] = [GOOD]
        assert kernel.lookup(b"good", node).nodeid
    assert "list /d: " in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize("listing", [None, 7, b"bytes", {"a": 1}, [None] * 3, iter([1])])
def test_a_listing_that_is_none_is_an_io_error(
    listing: object, caplog: pytest.LogCaptureFixture
) -> None:
    view = DictView({b"": [directory_row(b"d")], b"/d": listing})  # type: ignore[dict-item]
    with Kernel(view) as kernel:
        node = kernel.lookup(b"d").nodeid
        with pytest.raises(Refused, match="EIO"):
            kernel.lookup(b"x", node)


@pytest.mark.parametrize(
    "root",
    [
        None,
        (),
        file_row(b"", b""),
        directory_row(b"named"),
        directory_row(b"", ino=0),
        directory_row(b"", mode=0o120777),
    ],
)
def test_a_root_that_is_no_directory_is_an_io_error(
    root: tuple[object, ...], caplog: pytest.LogCaptureFixture
) -> None:
    view = DictView({b"": [GOOD]})
    view.root_row = root
    with Kernel(view) as kernel:
        with pytest.raises(Refused, match="EIO"):
            kernel.getattr(1)
        with pytest.raises(Refused, match="EIO"):
            kernel.lookup(b"good")
    assert "stat /: " in caplog.text


def test_the_longest_names_targets_and_sizes_are_fine() -> None:
    rows = [
        file_row(b"n" * 255, b"c" * 65535, size=2**63 - 1, ino=2**64 - 1, mtime_ns=999999999),
        symlink_row(b"s", b"t" * 4095),
        file_row(b"\xff\xfe\n ", b"", uid=2**32 - 1),
    ]
    with Kernel(DictView({b"": rows})) as kernel:
        found = kernel.lookup(b"n" * 255).attributes
        assert (found.size, found.ino) == (2**63 - 1, 2**64 - 1)
        assert kernel.lookup(b"s").attributes.size == 4095
        assert kernel.lookup(b"\xff\xfe\n ").attributes.uid == 2**32 - 1


def test_a_plain_tuple_is_as_good_as_a_row() -> None:
    with Kernel(DictView({b"": [tuple(GOOD)]})) as kernel:
        assert kernel.lookup(b"good").nodeid


def test_a_large_directory_is_read_whole() -> None:
    names = [b"%x" % (number * 2654435761 % 2**32) for number in range(20000)]
    view = DictView({b"": [file_row(name, b"") for name in names]})
    with Kernel(view) as kernel:
        assert len(kernel.list(size=1 << 17)) == 20002
        assert all(kernel.lookup(name).nodeid for name in names[::97])
        assert kernel.lookup(b"zzz").nodeid == 0


_values = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0o100644, 0o40755, 0o120777, 1, 0, 5]),
    st.binary(max_size=30),
    st.text(max_size=3),
    st.floats(),
)
_rows = st.one_of(
    st.tuples(*[_values] * 14),
    st.builds(
        lambda changes: tuple(GOOD._replace(**changes)),
        st.dictionaries(st.sampled_from(Row._fields), _values, max_size=3),
    ),
    st.builds(lambda name: tuple(file_row(name, b"x")), st.binary(max_size=3)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_rows, max_size=6))
def test_any_listing_whatever_is_shown_or_refused(rows: list[tuple[object, ...]]) -> None:
    with Kernel(DictView({b"": rows})) as kernel:
        try:
            listed = kernel.list()
        except Refused as error:
            assert error.errno == errno.EIO
        else:
            assert sorted(one.name for one in listed) == sorted(
                [b".", b"..", *(row[0] for row in rows)]
            )  # type: ignore[type-var]
