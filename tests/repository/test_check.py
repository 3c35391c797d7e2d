"""Whatever is wrong with a repository, `check` says so; and of a right one it says nothing.

Each test breaks one thing: rows of a catalog are edited in place, and everything above it is
made to fit again, up to the signature, so that nothing else is wrong.
"""

import os
import shutil
import sqlite3
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.keys import repository_keys
from tests.support.reachability import manifest as manifest_lines
from tests.support.reachability import predecessor, reachable, tags
from tests.support.stratum_zero import StratumZero

from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.publisher.inspection import check_stratum_zero
from outcrop.repository.check import CheckOptions, CheckResult, check_repository
from outcrop.repository.errors import PathNotFound, TagNotFound
from outcrop.repository.open import RepositorySource
from outcrop.storage.local import LocalStore
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.keys import load_public_keys
from outcrop.trust.signing import sign_manifest

CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 2000,
    "CVMFS_MAX_CHUNK_SIZE": 4000,
}


def make_source(root: Path) -> Path:
    source = root / "source"
    (source / "nested/inner/deep").mkdir(parents=True)
    for directory in ("nested", "nested/inner"):
        (source / directory / ".cvmfscatalog").touch()
    (source / "nested/file").write_bytes(b"file")
    (source / "nested/inner/deep/large").write_bytes(os.urandom(12_000))
    (source / "empty").touch()
    (source / "one").write_bytes(b"linked")
    os.link(source / "one", source / "two")
    (source / "symlink").symlink_to("one")
    (source / "sub").mkdir()
    (source / "sub/last").write_bytes(b"last")
    return source


class World(StratumZero):
    """A repository to break: its catalogs, and how to put them back."""

    def object_file(self, text: str) -> Path:
        return self.directory / "data" / text[:2] / text[2:]

    def root(self) -> str:
        return manifest_lines(self.directory)["C"]

    def catalog(self, mountpoint: str) -> list[tuple[str, str]]:
        """The catalogs down to a mountpoint: their paths and hashes, the root first."""
        found = [("", self.root())]
        while found[-1][0] != mountpoint:
            plain = zlib.decompress(self.object_file(found[-1][1] + "C").read_bytes())
            for path, text in query(plain, "SELECT path, sha1 FROM nested_catalogs"):
                if (mountpoint + "/").startswith(path + "/"):
                    found.append((path, text))
        return found

    def edit(self, mountpoint: str, *statements: str, size: int | None = None) -> None:
        """Run SQL on a catalog; all above it names the new one, by the right size or `size`."""
        chain = self.catalog(mountpoint)
        path, text = chain.pop()
        plain = edited(zlib.decompress(self.object_file(text + "C").read_bytes()), *statements)
        new = self._store(plain)
        while chain:
            above, text = chain.pop()
            told = len(plain) if size is None else size
            size = None
            plain = edited(
                zlib.decompress(self.object_file(text + "C").read_bytes()),
                f"UPDATE nested_catalogs SET sha1 = '{new}', size = {told} WHERE path = '{path}'",
            )
            path, new = above, self._store(plain)
        self._sign(new, len(plain))

    def _store(self, plain: bytes) -> str:
        stored = zlib.compress(plain)
        text = str(ContentHash.of(stored, HashAlgorithm.SHA1))
        self.object_file(text).parent.mkdir(exist_ok=True)
        self.object_file(text + "C").write_bytes(stored)
        return text

    def _sign(self, root: str, size: int) -> None:
        manifest = replace(
            self.source().fetch_manifest(now=self.now).manifest,
            root_catalog=ContentHash.parse(root),
            catalog_size=size,
        )
        keys = repository_keys()
        data = sign_manifest(manifest, keys.repository_key_pem, HashAlgorithm.SHA1)
        (self.directory / ".cvmfspublished").write_bytes(data)

    def source(self) -> RepositorySource:
        store = LocalStore(self.directory)
        public = load_public_keys(repository_keys().master_public_pem)
        return RepositorySource(self.fqrn, store, TransientOpener(store), public, Blacklist())

    def result(self, **options: object) -> CheckResult:
        options.setdefault("fetch", False)
        chosen = CheckOptions(workers=2, **options)
        return check_stratum_zero(self.locations, self.fqrn, chosen, now=self.now)

    def problems(self, **options: object) -> list[str]:
        """What is wrong; not that the reflog does not know a catalog made by `edit`."""
        found = map(str, self.result(**options).problems)
        own = f".cvmfsreflog: does not list catalog {self.root()}"
        return [problem for problem in found if problem != own]


def query(plain: bytes, sql: str) -> list:
    database = sqlite3.connect(":memory:")
    database.deserialize(plain)
    rows = database.execute(sql).fetchall()
    database.close()
    return rows


def edited(plain: bytes, *statements: str) -> bytes:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(plain)
    for statement in statements:
        database.execute(statement)
    data = database.serialize()
    database.close()
    return data


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("check")
    made = World(root / "world")
    made.create()
    made.configure(**CHUNKS)
    source = make_source(root)
    made.publish(source, tag="before")
    (source / "nested/file").write_bytes(b"changed")
    made.publish(source)
    return made


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    place = tmp_path / "world"
    shutil.copytree(template.locations.root, place, symlinks=True)
    copy = World(place)
    copy.now = template.now
    file = copy.locations.server_config(copy.fqrn) / "server.conf"
    file.write_text(file.read_text().replace(str(template.locations.root), str(place)))
    return copy


@pytest.mark.parametrize("options", [{}, {"fetch": True}, {"all_tags": True}, {"tag": "before"},
                                     {"subtree": b"/nested/inner"}])  # fmt: skip
def test_nothing_is_wrong_with_what_we_publish(world: World, options: dict) -> None:
    assert world.problems(**options) == []


@pytest.mark.parametrize("name", ["basic", "shake128", "uncompressed", "gc", "external"])
def test_nothing_is_wrong_with_what_upstream_publishes(name: str) -> None:
    result = check_repository(
        golden.source(name), CheckOptions(all_tags=True, workers=2), now=golden.now()
    )
    assert [str(problem) for problem in result.problems] == []
    assert result.catalogs > 3
    assert result.objects > 5


def test_an_edit_that_changes_nothing_is_no_problem(world: World) -> None:
    world.edit("/nested/inner")
    assert world.problems() == []


@dataclass(frozen=True)
class Damage:
    """SQL for the catalog at a mountpoint, and what is said of it."""

    at: str
    sql: str
    said: str


INNER = "/nested/inner"
# ruff: disable[E501]
DAMAGES = {
    "a row without a parent": Damage(
        "", "UPDATE catalog SET parent_1 = 5 WHERE name = 'empty'", "have a parent; among the others are empty"),
    "a wrong path hash": Damage(
        "", "UPDATE catalog SET md5path_1 = 5 WHERE name = 'empty'", "/empty: is not found by its path hash"),
    "a name twice": Damage(
        "", "UPDATE catalog SET name = 'empty' WHERE name = 'symlink'", "/empty: is there twice"),
    "a link count of a directory": Damage(
        "", "UPDATE catalog SET hardlinks = 7 WHERE name = 'sub'", "/sub: link count 7 with 0 subdirectories"),
    "a link count of a file": Damage(
        "", "UPDATE catalog SET hardlinks = 2 WHERE name = 'empty'", "/empty: link count 2, but it is in no group"),
    "a group of the wrong size": Damage(
        "", "UPDATE catalog SET hardlinks = (hardlinks >> 32 << 32) | 3 WHERE hardlinks >> 32",
        "link count 3, but its group has 2 members"),
    "hard links that differ": Damage(
        "", "UPDATE catalog SET mtime = 1 WHERE name = 'two'", "a hard link to the same file"),
    "a counter": Damage(
        INNER, "UPDATE statistics SET value = 9 WHERE counter = 'self_regular'",
        "/nested/inner: counter self_regular is 9, counted 2"),
    "a counter that is not there": Damage(
        INNER, "DELETE FROM statistics WHERE counter = 'subtree_external'",
        "/nested/inner: there is no counter subtree_external"),
    "the counters of the subtree": Damage(
        "", "UPDATE statistics SET value = value + 1 WHERE counter = 'subtree_dir'",
        "/: the subtree counters are not the sum of the children"),
    "the counters of an empty subtree": Damage(
        INNER, "UPDATE statistics SET value = 1 WHERE counter = 'subtree_dir'",
        "/nested/inner: the subtree counters are not the sum"),
    "a missing marker": Damage(
        INNER, "UPDATE catalog SET name = '.cvmfscatalo' WHERE name = '.cvmfscatalog'",
        "/nested/inner: nested catalog without .cvmfscatalog"),
    "the flag of a nested root": Damage(
        INNER, "UPDATE catalog SET flags = 1 WHERE flags & 32", "/nested/inner: wrong nested-root flag"),
    "a mountpoint of nothing": Damage(
        "", "UPDATE catalog SET flags = 3 WHERE name = 'sub'", "/sub: mountpoint without a nested catalog"),
    "a nested catalog that is mounted nowhere": Damage(
        "/nested", "UPDATE catalog SET flags = 1 WHERE name = 'inner'",
        "/nested/inner: nested catalog without a mountpoint"),
    "the attributes at a transition": Damage(
        "/nested", "UPDATE catalog SET mtime = 1, mode = 16832 WHERE name = 'inner'",
        "/nested/inner: mountpoint and nested root differ in mode, mtime"),
    "a chunk that is not next": Damage(
        INNER, "UPDATE chunks SET offset = offset + 1 WHERE offset > 0", "does not follow"),
    "chunks that do not add up": Damage(
        INNER, "UPDATE catalog SET size = size + 1 WHERE name = 'large'", "do not add up"),
    "a file said to have chunks": Damage(
        "", "UPDATE catalog SET flags = flags | 64 WHERE name = 'empty'", "/empty: is said to have chunks"),
    "chunks of no file": Damage(
        INNER, "UPDATE catalog SET flags = flags & ~64 WHERE name = 'large'", "belong to chunked files"),
    "an empty file without a hash": Damage(
        "", "UPDATE catalog SET hash = NULL WHERE name = 'empty'", "/empty: an empty file without content hash"),
    "a file without a hash": Damage(
        "", "UPDATE catalog SET hash = NULL WHERE name = 'one'", "has 6 bytes but no content hash"),
    "the revision of the root": Damage(
        "", "UPDATE properties SET value = '99' WHERE key = 'revision'",
        "manifest: the root catalog is of revision 99, not"),
    "a catalog for another place": Damage(
        INNER, "UPDATE properties SET value = '/nested/outer' WHERE key = 'root_prefix'", "was made for"),
    "a row no writer makes": Damage(
        INNER, "UPDATE catalog SET mode = 'x' WHERE name = 'deep'", "a number is missing or of another kind"),
    "no root entry": Damage(INNER, "DELETE FROM catalog WHERE flags & 32", "the catalog has no root entry"),
}  # fmt: skip
# ruff: enable[E501]


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_in_a_catalog_is_told(world: World, name: str) -> None:
    damage = DAMAGES[name]
    world.edit(damage.at, damage.sql)
    problems = world.problems()
    assert any(damage.said in problem for problem in problems), problems
    assert world.result().problems


def test_a_nested_catalog_of_another_size_than_told_is_named(world: World) -> None:
    world.edit(INNER, size=4096)
    (problem,) = world.problems()
    assert problem.startswith("/nested/inner: catalog ")
    assert "not 4096 as it is said" in problem


def test_a_missing_catalog_is_named_and_the_rest_is_checked(world: World) -> None:
    (_, text) = world.catalog(INNER)[-1]
    world.object_file(text + "C").unlink()
    world.edit("", DAMAGES["a link count of a directory"].sql)
    first, second = sorted(world.problems())
    assert first.startswith("/nested/inner: ")
    assert text[2:] in first
    assert second.startswith("/sub: link count")


def stored_objects(world: World, suffix: str) -> list[Path]:
    return sorted(
        place for place in (world.directory / "data").rglob("*")
        if place.is_file() and (place.name[-1] == suffix if suffix else len(place.name) == 38)
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["", "P"])
def test_each_missing_object_is_named_with_a_path(world: World, suffix: str) -> None:
    needed = reachable(world.directory, world.root())
    for file in stored_objects(world, suffix):
        if file.parent.name + file.name not in needed:
            continue
        data = file.read_bytes()
        file.unlink()
        problems = world.problems(all_tags=True)
        assert len(problems) == 1
        assert str(file.relative_to(world.directory)) in problems[0]
        assert "/" in problems[0].partition("; ")[2]
        file.write_bytes(data)
    assert world.problems(all_tags=True) == []


@pytest.mark.parametrize("suffix", ["", "P"])
def test_a_flipped_bit_is_found_where_contents_are_read_only(world: World, suffix: str) -> None:
    file = stored_objects(world, suffix)[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert world.problems(all_tags=True) == []
    (problem,) = world.problems(all_tags=True, fetch=True)
    assert str(file.relative_to(world.directory)) in problem


def test_sizes_that_do_not_fit_the_content_are_found_where_contents_are_read(world: World) -> None:
    world.edit("", "UPDATE catalog SET size = 3 WHERE name = 'last'",
               "UPDATE statistics SET value = value - 1 "
               "WHERE counter = 'self_file_size'")  # fmt: skip
    assert world.problems() == []
    (problem,) = world.problems(fetch=True)
    assert "/sub/last needs it" in problem


# --- what the manifest names ---


def test_a_tag_whose_revision_is_missing_is_named(world: World) -> None:
    text = tags(world.directory)["before"]
    world.object_file(text + "C").unlink()
    problems = world.problems()
    assert f"tag before: its root catalog {text} is missing" in problems
    assert any("before" not in problem for problem in world.problems(all_tags=True))


def test_damage_in_an_old_revision_is_found_where_all_tags_are_checked(world: World) -> None:
    before = predecessor(world.directory, world.root())
    assert before == tags(world.directory)["before"]
    plain = zlib.decompress(world.object_file(before + "C").read_bytes())
    ((nested,),) = query(plain, "SELECT sha1 FROM nested_catalogs")
    world.object_file(nested + "C").unlink()
    assert world.problems() == []
    for options in ({"all_tags": True}, {"tag": "before"}):
        (problem,) = world.problems(**options)
        assert problem.startswith("/nested: ")


def test_a_reflog_that_does_not_list_what_is_in_use_is_told(world: World) -> None:
    reflog = world.directory / ".cvmfsreflog"
    text = tags(world.directory)["before"]
    data = edited(reflog.read_bytes(), f"DELETE FROM refs WHERE hash = '{text}'")
    reflog.write_bytes(data)
    (problem,) = world.problems()
    assert problem.startswith(".cvmfsreflog: ")
    assert "the reflog's hash is" in problem
    checksum = ContentHash.of(data, HashAlgorithm.SHA1)
    (world.spool / "reflog.chksum").write_text(str(checksum))
    assert world.problems() == [f".cvmfsreflog: does not list catalog {text}"]


def test_a_missing_reflog_is_told(world: World) -> None:
    (world.directory / ".cvmfsreflog").unlink()
    (problem,) = world.problems()
    assert "there is no reflog" in problem


def test_missing_meta_information_is_told(world: World) -> None:
    world.object_file(manifest_lines(world.directory)["M"] + "M").unlink()
    (problem,) = world.problems()
    assert problem.startswith("meta info: ")


# --- parts of it ---


def test_a_subtree_is_checked_without_the_rest(world: World) -> None:
    world.edit("", DAMAGES["a link count of a directory"].sql)
    assert world.problems(subtree=b"/nested/inner") == []
    result = world.result(subtree=b"/nested/inner/deep")
    assert result.catalogs == 1
    assert world.result(subtree=b"/nested").catalogs == 2
    assert world.problems(subtree=b"/sub") != []


def test_a_subtree_that_is_not_there_is_an_error(world: World) -> None:
    for path in (b"/missing", b"/one", b"/nested/inner/deep/large"):
        with pytest.raises(PathNotFound):
            world.result(subtree=path)


def test_a_tag_that_is_not_there_is_an_error(world: World) -> None:
    with pytest.raises(TagNotFound):
        world.result(tag="nobody")


def test_catalogs_that_revisions_share_are_checked_once(world: World) -> None:
    assert world.result().catalogs == 3
    assert world.result(all_tags=True).catalogs == 5  # the old root and the old /nested


def test_no_more_problems_are_kept_than_fit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcrop.repository.check.MAX_PROBLEMS", 2)
    for file in stored_objects(world, ""):
        file.unlink()
    result = world.result()
    assert len(result.problems) == 2
    assert result.more_problems > 0
