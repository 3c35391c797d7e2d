import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import golden_file, golden_object, open_database
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.dirtab import MAX_BYTES, Dirtab

GOLDEN = b"# comment\n/sw/*/*\n! /sw/noarch/*\n! *.git\n/data/set*\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/sw/x86/1.0", True),
        (b"/sw/x86", False),
        (b"/sw/x86/1.0/bin", False),
        (b"/sw/x86/.hidden", True),
        (b"/sw/noarch/1.0", False),
        (b"/sw/x86/repo.git", False),
        (b"/data/set", True),
        (b"/data/set7", True),
        (b"/data/other", False),
        (b"/data/set7/deeper", False),
        (b"", False),
    ],
)
def test_matches_as_the_golden_repository_shows(path, expected):
    assert Dirtab.parse(GOLDEN).matches(path) is expected


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        (b"/a?c", b"/abc", b"/abbc"),
        (b"/a?c", b"/a.c", b"/a/c"),
        (b"/a*c*", b"/axxcyy", b"/axx"),
        (b"/*", b"/anything", b"/any/thing"),
        (b"/huge/[ab]*", b"/huge/alpha", b"/huge/gamma"),
        (b"/v[0-9]", b"/v7", b"/vx"),
        (b"/v[!0-9]", b"/vx", b"/v7"),
        (b"/v[]x]", b"/v]", b"/vy"),
        (b"/v[", b"/v[", b"/v"),
        (b"/v[9-0]", b"/never", b"/v5"),
        (rb"/\*", b"/*", b"/x"),
        (rb"/a\?", b"/a?", b"/ab"),
        (rb"/a\[b]", b"/a[b]", b"/ab"),
        (rb"/back\\slash", rb"/back\slash", b"/backslash"),
        (b"/a.b+(c)|^$", b"/a.b+(c)|^$", b"/axb"),
        (b"/trailing/", b"/trailing", b"/trailing/x"),
        (b"  \t/indented", b"/indented", b"/other"),
        (b"/with space ", b"/with space ", b"/with space"),
        ("/ü*".encode(), "/übung".encode(), b"/ubung"),
        (b"/a\xff*", b"/a\xff\xfe", b"/a"),
    ],
)
def test_patterns(rule, matching, other):
    dirtab = Dirtab.parse(rule + b"\n")
    assert dirtab.matches(matching) is (matching != b"/never")
    assert not dirtab.matches(other)


@pytest.mark.parametrize(
    ("exclusion", "path", "excluded"),
    [
        (b"!*/tmp", b"/a/b", False),
        (b"!*/tmp", b"/a/tmp", True),
        (b"! /a/*", b"/a/b", True),
        (b"!/a/?", b"/a/b", True),
        (b"!/*b", b"/a/b", True),
        (b"!a/*", b"/a/b", False),
        (b"!/a/[b]", b"/a/b", False),
        (b"!/a/b/", b"/a/b", True),
    ],
)
def test_in_an_exclusion_a_star_goes_through_slashes_and_brackets_are_literal(
    exclusion, path, excluded
):
    assert Dirtab.parse(b"/*/*\n" + exclusion + b"\n").matches(path) is not excluded


def test_tells_where_a_walk_need_not_go():
    dirtab = Dirtab.parse(GOLDEN)
    assert all(dirtab.may_match_below(path) for path in (b"", b"/sw", b"/sw/x86", b"/data"))
    assert not any(
        dirtab.may_match_below(path) for path in (b"/other", b"/sw/x86/1.0", b"/data/set7")
    )
    assert not Dirtab.parse(b"# nothing\n!/x\n").may_match_below(b"")


def test_comments_and_empty_lines_are_no_rules():
    assert Dirtab.parse(b"\n  \n# x\n\t# y\n").rules == ()


@pytest.mark.parametrize(
    "text",
    [
        b"relative/path\n",
        b"/ok\n*\n",
        b"!\n",
        b"! \t\n",
        b"/a\n!/a\n",
        b"!/a\n/a\n",
        b"/nul\0\n",
        b"/x[[:alpha:]]\n",
        b"/" + b"x" * 5000,
    ],
)
def test_refuses_rules_that_make_no_sense_and_names_the_line(text):
    with pytest.raises(FormatError, match=f"line {text.count(10) or 1}"):
        Dirtab.parse(text)


def test_a_rule_given_twice_is_one_rule():
    assert len(Dirtab.parse(b"/a\n/a\n").rules) == 1


def test_refuses_a_file_that_is_too_large():
    with pytest.raises(FormatError, match="limit"):
        Dirtab.parse(b"#" * (MAX_BYTES + 1))


def test_stars_cannot_make_matching_slow():
    wanted = Dirtab.parse(b"/" + b"*a" * 1500 + b"b\n!" + b"*a" * 1500 + b"c\n")
    started = time.perf_counter()
    assert not wanted.matches(b"/" + b"a" * 4000)
    assert wanted.matches(b"/" + b"a" * 3999 + b"b")
    assert time.perf_counter() - started < 5


names = st.text(st.sampled_from("ab.-"), min_size=1, max_size=6)
patterns = st.lists(st.sampled_from(["a", "b", ".", "-", "*", "?", "[ab]", "[!a]", "[a-b]"]),
                    min_size=1, max_size=6).map("".join)  # fmt: skip


@given(patterns, names)
@settings(deadline=None)
def test_one_name_matches_as_the_standard_librarys_fnmatch_says(pattern, name):
    dirtab = Dirtab.parse(b"/x/" + pattern.encode())
    assert dirtab.matches(b"/x/" + name.encode()) is fnmatch.fnmatchcase(name, pattern)


@given(inputs(GOLDEN), st.binary(max_size=20))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data, path):
    if gives_value_or(FormatError, Dirtab.parse, data):
        dirtab = Dirtab.parse(data)
        if dirtab.matches(b"/" + path):
            assert dirtab.may_match_below((b"/" + path).rpartition(b"/")[0])


@pytest.mark.parametrize("tag", ["v1.0", "v1.1", "v2.0"])
def test_wants_the_nested_catalogs_upstream_made(tag):
    rows = golden_file("basic", "tags.machine.txt").decode().splitlines()
    roots = {row.split()[0]: row.split()[1] for row in rows}
    database = open_database(golden_object("basic", roots[tag], "C"))
    nested = {path for (path,) in database.execute("SELECT path FROM nested_catalogs")}
    by_marker = {b"/nested1", b"/newnested"}
    assert {path for path in nested if Dirtab.parse(GOLDEN).matches(path)} == nested - by_marker
