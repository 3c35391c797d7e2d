"""Differences between revisions, and what it costs to find them."""

import itertools
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import golden
from tests.support.listing import Line, escaped, expected, lines_of_revision
from tests.support.simulator import Directory, File, RepositorySimulator, Special, Symlink

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.diff import Aspect, Change, Difference, diff_revisions
from outcrop.repository.tree import Revision
from outcrop.storage.temporary import TransientOpener


def tree(sim: RepositorySimulator, root: ContentHash) -> CatalogTree:
    return CatalogTree(TransientOpener(sim), ObjectRef(root, Suffix.CATALOG))


def diff(sim: RepositorySimulator, old: ContentHash, new: ContentHash) -> list[Difference]:
    return list(diff_revisions(tree(sim, old), tree(sim, new)))


def told(differences: list[Difference]) -> list[tuple[str, str, Aspect]]:
    return [(d.change.value, d.path.decode(), d.aspects) for d in differences]


NONE = Aspect(0)


def test_tells_what_was_added_removed_and_modified_in_the_order_of_paths():
    sim = RepositorySimulator({b"/a": b"1", b"/d/x": b"x", b"/d/y/z": b"z", b"/e": b"same"})
    old = sim.manifest.root_catalog
    new = sim.publish({b"/a": b"22", b"/c/n": b"n", b"/e": b"same"})
    assert told(diff(sim, old, new)) == [
        ("modified", "/a", Aspect.SIZE | Aspect.CONTENT),
        ("added", "/c", NONE),
        ("added", "/c/n", NONE),
        ("removed", "/d/x", NONE),
        ("removed", "/d/y/z", NONE),
        ("removed", "/d/y", NONE),
        ("removed", "/d", NONE),
    ]
    assert diff(sim, new, new) == []


@pytest.mark.parametrize(
    ("before", "after", "aspects"),
    [
        (File(data=b"a"), File(data=b"b"), Aspect.CONTENT),
        (File(data=b"a"), File(data=b"a", mode=0o755), Aspect.MODE),
        (File(data=b"a"), File(data=b"a", mtime=5), Aspect.MTIME),
        (File(data=b"a"), File(data=b"a", mtime_ns=5), Aspect.MTIME),
        (File(data=b"a"), File(data=b"a", uid=5), Aspect.OWNER),
        (File(data=b"a"), File(data=b"a", gid=5), Aspect.OWNER),
        (File(data=b"a"), File(data=b"a", xattrs={b"user.a": b"1"}), Aspect.XATTRS),
        (
            File(data=b"a", xattrs={b"user.a": b"1"}),
            File(data=b"a", xattrs={b"user.a": b"2"}),
            Aspect.XATTRS,
        ),
        (File(data=b"a"), File(data=b"a", is_direct_io=True), Aspect.DIRECT_IO),
        (File(data=b"a"), File(data=b"a", is_external=True), Aspect.EXTERNAL | Aspect.CONTENT),
        (
            File(data=b"abcd", chunk_bytes=2),
            File(data=b"abXd", chunk_bytes=2),
            Aspect.CONTENT,
        ),
        (Symlink(b"a"), Symlink(b"b"), Aspect.SYMLINK),
        (Symlink(b"a"), Symlink(b"bb"), Aspect.SYMLINK | Aspect.SIZE),
        (Directory(), Directory(mode=0o700), Aspect.MODE),
        (Special(stat.S_IFCHR, 1), Special(stat.S_IFCHR, 2), Aspect.SIZE),
        (Special(stat.S_IFIFO), Special(stat.S_IFSOCK), Aspect.MODE),
    ],
)
def test_tells_which_aspects_of_an_entry_were_modified(before, after, aspects):
    sim = RepositorySimulator({b"/p": before})
    old = sim.manifest.root_catalog
    new = sim.publish({b"/p": after})
    assert told(diff(sim, old, new)) == [("modified", "/p", aspects)]


def test_a_directory_that_became_a_file_loses_its_content():
    sim = RepositorySimulator({b"/p/q": b"1"})
    old = sim.manifest.root_catalog
    new = sim.publish({b"/p": b"1"})
    kinds = [(d.change, d.path) for d in diff(sim, old, new) if d.path]
    assert kinds == [(Change.MODIFIED, b"/p"), (Change.REMOVED, b"/p/q")]
    kinds = [(d.change, d.path) for d in diff(sim, new, old) if d.path]
    assert kinds == [(Change.MODIFIED, b"/p"), (Change.ADDED, b"/p/q")]


def many(**changed: bytes) -> dict[bytes, bytes]:
    files = {b"/n%d/f%d" % (n, f): b"%d" % f for n in range(20) for f in range(5)}
    files |= {b"/n3/in/g": b"g", b"/n4/in/g": b"g"}
    return files | {name.replace("_", "/").encode(): data for name, data in changed.items()}


NESTED = [b"/n%d" % n for n in range(20)] + [b"/n3/in", b"/n4/in"]


def test_equal_nested_catalogs_are_not_fetched():
    sim = RepositorySimulator(many(), nested=NESTED)
    old = sim.manifest.root_catalog
    new = sim.publish(many(_n3_f1=b"changed"))
    before, after = tree(sim, old), tree(sim, new)
    sim.requests.clear()
    assert told(list(diff_revisions(before, after))) == [
        ("modified", "/n3/f1", Aspect.SIZE | Aspect.CONTENT)
    ]
    assert len(sim.requests) == 2  # /n3 of both revisions, and not /n3/in
    sim.requests.clear()
    assert list(diff_revisions(before, before)) == []
    assert sim.requests == []


def test_making_and_merging_a_nested_catalog_is_a_modified_directory():
    sim = RepositorySimulator(many(), nested=[])
    old = sim.manifest.root_catalog
    new = sim.publish(nested=[b"/n1"])
    marker = "/n1/.cvmfscatalog"
    modified = ("modified", "/n1", Aspect.NESTED_CATALOG)
    assert told(diff(sim, old, new)) == [modified, ("added", marker, NONE)]
    assert told(diff(sim, new, old)) == [modified, ("removed", marker, NONE)]


def test_a_renamed_nested_catalog_goes_and_comes():
    sim = RepositorySimulator({b"/a/f": b"1", b"/a/g": b"2"}, nested=[b"/a"])
    old = sim.manifest.root_catalog
    new = sim.publish({b"/b/f": b"1", b"/b/g": b"2"}, nested=[b"/b"])
    names = [(d.change, d.path) for d in diff(sim, old, new)]
    below = [b"/.cvmfscatalog", b"/f", b"/g"]
    assert names == [
        *((Change.REMOVED, b"/a" + name) for name in below),
        (Change.REMOVED, b"/a"),
        (Change.ADDED, b"/b"),
        *((Change.ADDED, b"/b" + name) for name in below),
    ]


def test_is_an_iterator_that_finds_as_it_goes():
    sim = RepositorySimulator(many(), nested=NESTED)
    old = sim.manifest.root_catalog
    new = sim.publish({path: data + b"!" for path, data in many().items()})
    before, after = tree(sim, old), tree(sim, new)
    sim.requests.clear()
    assert next(diff_revisions(before, after)).path == b"/n0/f0"
    assert len(sim.requests) == 2


def test_a_deep_tree_is_no_recursion():
    path = b"".join(b"/d%d" % level for level in range(1200))
    sim = RepositorySimulator({path: b"deep"})
    old = sim.manifest.root_catalog
    new = sim.publish({path: b"deeper"})
    (found,) = diff(sim, old, new)
    assert (found.path, found.change) == (path, Change.MODIFIED)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE catalog SET name = NULL WHERE name = 'a'",
        "UPDATE catalog SET flags = 'x' WHERE name = 'a'",
        "UPDATE catalog SET mode = -1 WHERE name = 'a'",
        "DELETE FROM catalog WHERE name = ''",
    ],
)
def test_a_hostile_catalog_is_a_format_error(sql):
    sim = RepositorySimulator({b"/a": b"1", b"/b": b"1"})
    old = sim.manifest.root_catalog
    new = sim.publish({b"/a": b"2", b"/b": b"1"}, sabotage={b"": [sql]})
    with pytest.raises(FormatError):
        diff(sim, old, new)


names = st.sampled_from([b"a", b"b", b"c", b"d \xc3\xa9"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
nodes = st.one_of(
    st.builds(
        File,
        data=st.sampled_from([b"", b"one", b"other", b"longer data"]),
        mode=st.sampled_from([0o644, 0o755]),
        chunk_bytes=st.sampled_from([None, 3]),
        uid=st.integers(0, 1),
        xattrs=st.sampled_from([{}, {b"user.x": b"1"}, {b"user.x": b"2"}]),
    ),
    st.builds(Symlink, target=st.sampled_from([b"a", b"b"])),
    st.builds(Directory, mode=st.sampled_from([0o755, 0o700])),
)


@st.composite
def trees(draw):
    wanted = draw(st.dictionaries(paths, nodes, max_size=8))
    directories = {p[:i] for p in wanted for i in range(1, len(p)) if p[i : i + 1] == b"/"}
    files = {p: n for p, n in wanted.items() if isinstance(n, Directory) or p not in directories}
    directories |= {p for p, node in files.items() if isinstance(node, Directory)}
    nested = (
        draw(st.lists(st.sampled_from(sorted(directories)), unique=True)) if directories else []
    )
    return files, nested


def content(sim: RepositorySimulator, root: ContentHash) -> dict[bytes, str]:
    """What readers see at each path, found out by walking; without sizes of directories."""
    revision = Revision(sim.fqrn, TransientOpener(sim), tree(sim, root))
    return {
        b"" if line.path == b"." else b"/" + line.path: seen(line)
        for line in lines_of_revision(revision)
    }


def seen(line: Line) -> str:
    columns = line.text("-").split("\t")
    if columns[1] == "d" or stat.S_ISDIR(line.mode):
        columns[6] = "-"
    return "\t".join(columns)


STRUCTURE = Aspect.NESTED_CATALOG | Aspect.CHUNKED


@given(trees(), trees())
@settings(deadline=None, max_examples=25)
def test_finds_exactly_what_walking_both_trees_finds(first, second):
    sim = RepositorySimulator(first[0], nested=first[1])
    old = sim.manifest.root_catalog
    new = sim.publish(second[0], nested=second[1])
    before, after = content(sim, old), content(sim, new)
    found = {d.path: d for d in diff(sim, old, new)}
    assert {p for p, d in found.items() if d.change is Change.ADDED} == set(after) - set(before)
    assert {p for p, d in found.items() if d.change is Change.REMOVED} == set(before) - set(after)
    modified = {
        path
        for path, difference in found.items()
        if difference.change is Change.MODIFIED and difference.aspects & ~STRUCTURE
    }
    assert {p for p in before if p in after and before[p] != after[p]} <= modified
    for path in modified:
        difference = found[path]
        assert before[path] != after[path] or difference.aspects & Aspect.CONTENT
    assert all(d.aspects for d in found.values() if d.change is Change.MODIFIED)


TAGS = ["v1.0", "v1.1", "v2.0", "v2.1", ""]


@pytest.mark.parametrize(("first", "second"), [*itertools.pairwise(TAGS), ("", "v1.0")])
def test_golden_revisions_differ_as_upstreams_client_shows_them(first, second):
    def lines(tag: str) -> dict[str, list[str]]:
        rows = [row.split("\t") for row in expected(golden.listing_file("basic", tag))]
        # The size of a directory is the publisher's file system's and means nothing.
        return {row[0]: [*row[:6], *row[6 if row[1] != "d" else 7 :]] for row in rows}

    before, after = lines(first), lines(second)
    source, now = golden.source("basic"), golden.now()
    old, new = (
        source.open_tag(tag, now=now) if tag else source.open_trunk(now=now)
        for tag in (first, second)
    )
    found = {escaped(d.path[1:]) or ".": d for d in diff_revisions(old, new)}
    assert {p for p, d in found.items() if d.change is Change.ADDED} == after.keys() - before.keys()
    removed = {p for p, d in found.items() if d.change is Change.REMOVED}
    assert removed == before.keys() - after.keys()
    modified = {p for p, d in found.items() if d.change is Change.MODIFIED}
    differing = {p for p in before.keys() & after.keys() if before[p] != after[p]}
    assert differing <= modified
    invisible = STRUCTURE | Aspect.HARDLINK_GROUP
    assert all(found[p].aspects & ~invisible == NONE for p in modified - differing)
    assert len(found) > 3
