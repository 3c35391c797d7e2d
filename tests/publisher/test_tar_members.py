"""Headers of all dialects: what they say, and that no lie gets through."""

import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tars import header

from outcrop.publisher.errors import ArchiveInvalid, LimitExceeded, MemberRefused
from outcrop.publisher.tar_members import (
    MAX_EXTENTS,
    TarMember,
    complete,
    is_header,
    merge_records,
    parse_header,
    parse_records,
    parse_sparse_map,
    set_sparse,
)


def read(block: bytes, **records: bytes) -> TarMember:
    member = parse_header(block, at=0)
    complete(member, {key.encode(): value for key, value in records.items()})
    return member


def test_a_plain_header() -> None:
    member = read(header(b"a/b", size=5, mode=b"0100755\0", mtime=b"00000001000\0"))
    assert (member.name, member.size, member.mtime) == (b"a/b", 5, 512)
    assert member.mode == stat.S_IFREG | 0o755


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(b"0", stat.S_IFREG), (b"\0", stat.S_IFREG), (b"7", stat.S_IFREG), (b"1", stat.S_IFREG),
     (b"3", stat.S_IFCHR), (b"4", stat.S_IFBLK), (b"5", stat.S_IFDIR), (b"6", stat.S_IFIFO)],
)  # fmt: skip
def test_each_type_has_its_mode(kind: bytes, mode: int) -> None:
    assert stat.S_IFMT(read(header(kind=kind)).mode) == mode


def test_v7_directories_are_files_with_a_slash() -> None:
    member = read(header(b"dir/", kind=b"\0", magic=bytes(8)))
    assert stat.S_ISDIR(member.mode)


def test_a_name_cut_at_a_slash_is_no_directory() -> None:
    member = read(header(b"x" * 99 + b"/", kind=b"0"), path=b"x" * 99 + b"/file")
    assert stat.S_ISREG(member.mode)


def test_ustar_has_a_prefix_and_gnu_none() -> None:
    assert read(header(b"file", prefix=b"some/where")).name == b"some/where/file"
    assert read(header(b"file", prefix=b"123", magic=b"ustar  \0")).name == b"file"


@pytest.mark.parametrize(
    ("digits", "value"),
    [(b"\x80" + bytes(10) + b"\x05", 5), (b"\x80" + bytes(6) + b"\x10" + bytes(4), 16 << 32),
     (b"       17 \0 ", 15), (b"\0" * 12, 0), (b"777 \0junk!!!", 511)],
)  # fmt: skip
def test_numbers_in_octal_and_to_the_base_of_256(digits: bytes, value: int) -> None:
    assert parse_header(header(size=digits), at=0).size == value


def test_times_before_1970() -> None:
    assert read(header(mtime=b"\xff" * 12)).mtime == -1
    member = read(header(), mtime=b"-1.25")
    assert (member.mtime, member.mtime_ns) == (-2, 750_000_000)


@pytest.mark.parametrize(
    "digits", [b"-0000000001\0", b"0x10\0\0\0\0\0\0\0\0", b"00000000_01\0", b"8\0" + bytes(10)]
)
def test_numbers_that_are_none(digits: bytes) -> None:
    with pytest.raises(ArchiveInvalid, match="impossible number"):
        parse_header(header(b"odd", size=digits), at=0)


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\x7f" * 11])
def test_sizes_that_no_file_can_have(size: bytes) -> None:
    with pytest.raises(ArchiveInvalid, match="no size"):
        read(header(size=size))


def test_owners_that_nobody_can_be() -> None:
    with pytest.raises(MemberRefused, match="user or group"):
        read(header(uid=b"\xff" * 8))
    with pytest.raises(MemberRefused, match="user or group"):
        read(header(), gid=b"4294967295")


@pytest.mark.parametrize("kind", [b"Z", b"M", b"N", b"I"])
def test_types_nobody_knows_are_refused_by_name(kind: bytes) -> None:
    with pytest.raises(MemberRefused, match="member thing is of the unknown type"):
        read(header(b"thing", kind=kind))


def test_a_wrong_checksum() -> None:
    block = header(b"file")
    with pytest.raises(ArchiveInvalid, match="at byte 512 there should be a header"):
        parse_header(b"g" + block[1:], at=512)


def test_signed_checksums_of_old_tars() -> None:
    block = header("ü".encode())
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:])
    assert is_header(block[:148] + b"%06o\0 " % signed + block[156:])


def test_links_need_a_possible_target() -> None:
    with pytest.raises(MemberRefused, match="a symlink to 0 bytes"):
        read(header(b"l", kind=b"2"))
    with pytest.raises(MemberRefused, match="symlink to 5000"):
        read(header(b"l", kind=b"2"), linkpath=b"x" * 5000)
    with pytest.raises(MemberRefused, match="impossible name"):
        read(header(b"l", kind=b"1"), linkpath=b"a\0b")


def test_names_are_bounded() -> None:
    with pytest.raises(MemberRefused, match="4095") as caught:
        read(header(b"l"), path=b"d/" * 3000)
    assert len(str(caught.value)) < 500


def test_records() -> None:
    found = parse_records(b"11 path=ab\n16 comment=\xff\n\0z\n")
    assert found == [(b"path", b"ab"), (b"comment", b"\xff\n\0z")]


@pytest.mark.parametrize(
    "text", [b"11 path=abc", b"99 path=ab\n", b"0 path=ab\n", b"-1 a=b\n", b"path=ab\n", b"5 abc\n",
             b"99999999999999999999999 a=b\n", b"6 a=b\n\0\0\0"],
)  # fmt: skip
def test_damaged_records(text: bytes) -> None:
    with pytest.raises(ArchiveInvalid, match="extended header is damaged"):
        parse_records(text)


def test_later_records_win_and_empty_ones_take_back() -> None:
    known = merge_records({b"path": b"old", b"uid": b"1"}, [(b"path", b"new"), (b"uid", b"")])
    assert known == {b"path": b"new"}


def test_attributes_of_both_spellings() -> None:
    member = parse_header(header(), at=0)
    complete(member, {b"SCHILY.xattr.user.a%3Db": b"\0\xff", b"LIBARCHIVE.xattr.user.%63": b"aGk"})
    assert member.xattrs == {b"user.a=b": b"\0\xff", b"user.c": b"hi"}


@pytest.mark.parametrize(
    "records",
    [{b"size": b"-1"}, {b"uid": b"1e3"}, {b"mtime": b"nan"}, {b"mtime": b"1.2.3"},
     {b"LIBARCHIVE.xattr.user.a": b"!"}],
)  # fmt: skip
def test_odd_records_name_the_member(records: dict[bytes, bytes]) -> None:
    member = parse_header(header(b"thing"), at=0)
    with pytest.raises(ArchiveInvalid, match="member thing"):
        complete(member, records)


@pytest.mark.parametrize(
    ("extents", "size"),
    [([(0, 5), (3, 5)], 20), ([(0, 10)], 5), ([(0, 4)], 20), ([(-1, 10)], 20),
     ([(0, -1), (5, 11)], 20)],
)  # fmt: skip
def test_lies_about_holes(extents: list[tuple[int, int]], size: int) -> None:
    member = parse_header(header(b"sparse", size=10), at=0)
    with pytest.raises(ArchiveInvalid, match="member sparse"):
        set_sparse(member, extents, size)


def test_maps_of_holes_are_bounded() -> None:
    member = parse_header(header(b"sparse"), at=0)
    with pytest.raises(LimitExceeded, match="pieces"):
        set_sparse(member, [(n, 0) for n in range(MAX_EXTENTS + 1)], 1 << 20)


def test_a_map_in_text() -> None:
    assert parse_sparse_map(b"0,5,10,5") == parse_sparse_map(b"0\n5\n10\n5") == [(0, 5), (10, 5)]
    with pytest.raises(ArchiveInvalid, match="map of a sparse file is odd"):
        parse_sparse_map(b"0,x")


@settings(max_examples=100, deadline=None)
@given(block=st.binary(min_size=512, max_size=512), records=st.binary(max_size=200))
def test_any_bytes_are_a_member_or_refused(block: bytes, records: bytes) -> None:
    body = block[:148] + b" " * 8 + block[156:]
    block = block[:148] + b"%06o\0 " % sum(body) + block[156:]
    try:
        member = parse_header(block, at=0)
        complete(member, merge_records({}, parse_records(records)))
    except (ArchiveInvalid, MemberRefused):
        return
    assert 0 <= member.stored_bytes == member.size
