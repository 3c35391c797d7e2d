"""A directory that random file-system operations change, and a repository that has to follow it.

Every operation is chosen by one seeded generator, so a failure is repeated by its seed. What was
changed is told by comparing the directory with what it was when it was last published: that makes
the diff list, and the archive, which the repository gets in place of the directory itself.
"""

import io
import os
import random
import shutil
import stat
import tarfile
from pathlib import Path

from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.stratum_zero import StratumZero

from outcrop.publisher.difflist import parse_diff_list
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.publish import PublishResult
from outcrop.publisher.subtrees import clone_subtree, move_subtree, remove_subtrees
from outcrop.publisher.tarball import publish_tarball

MARKER = ".cvmfscatalog"
DIRTAB = ".cvmfsdirtab"
NAMES = ("a", "b", "c", "d e", "ü", "\udcff", "dir", "long" * 20)
CONTENTS = (b"", b"x", b"one", b"two", bytes(2500), b"ab" * 3000, bytes(range(256)) * 20)
DIRTABS = ("/a/*\n", "/*/b\n! /c/b\n", "/dir\n/dir/*\n", "")
SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 1500,
    "CVMFS_MAX_CHUNK_SIZE": 2000,
}
DAY = 86400
Tree = dict[bytes, tuple]


class DirectoryOperations:
    """Random operations below a directory. Times are set, so that another place can be alike.

    What is done `in_overlay` comes out the same in a transaction: no hard links, which an overlay
    breaks up, and no dirtab, whose markers are seen there.
    """

    def __init__(self, root: Path, seed: object, *, in_overlay: bool = False) -> None:
        self.root = root
        self.in_overlay = in_overlay
        self.random = random.Random(repr(seed))
        self.clock = 1_500_000_000

    def step(self) -> None:
        """Do one thing."""
        others = (0, 0) if self.in_overlay else (5, 1)
        choice = self.random.choices(
            (
                self.write, self.append, self.make_directory, self.symlink, self.special,
                self.chmod, self.hard_link, self.rename, self.remove, self.toggle_marker,
                self.set_xattr, self.touch, self.write_dirtab,
            ),
            (20, 6, 8, 4, 2, 6, others[0], 8, 6, 6, 5, 4, others[1]),
        )[0]  # fmt: skip
        choice()

    def _new_path(self) -> Path:
        """Where something may come: what is there goes, what is missing above is made."""
        place = self.root
        depth = self.random.choice((1, 1, 2, 2, 3, 4))
        names = [self.random.choice(NAMES) for _ in range(depth)]
        for name in names[:-1]:
            place = place / name
            if place.is_symlink() or (os.path.lexists(place) and not place.is_dir()):
                self._delete(place)
            if not place.exists():
                place.mkdir()
                self._stamp_new(place)
        place = place / names[-1]
        self._delete(place)
        return place

    def _delete(self, place: Path) -> None:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        self._stamp(place.parent)

    def _existing(self, wanted: str) -> Path | None:
        """Something that is there: `files`, `directories` or `any`."""
        found = []
        for directory, directories, files in os.walk(self.root):
            links = {n for n in directories if os.path.islink(os.path.join(directory, n))}
            for name in sorted(directories) if wanted != "files" else ():
                if wanted == "any" or name not in links:
                    found.append(Path(directory, name))
            for name in sorted(files) if wanted != "directories" else ():
                place = Path(directory, name)
                if name not in (MARKER, DIRTAB) and (
                    wanted == "any" or stat.S_ISREG(place.lstat().st_mode)
                ):
                    found.append(place)
            directories.sort()
        return self.random.choice(found) if found else None

    def _stamp(self, place: Path) -> None:
        self.clock += self.random.choice((0, 1, 7))
        times = (self.clock * 1_000_000_000,) * 2
        os.utime(place, ns=times, follow_symlinks=False)

    def _stamp_new(self, place: Path) -> None:
        self._stamp(place)
        self._stamp(place.parent)

    def write(self) -> None:
        place = self._new_path()
        place.write_bytes(self.random.choice(CONTENTS))
        self._stamp_new(place)

    def append(self) -> None:
        place = self._existing("files")
        if place is not None:
            with place.open("ab") as file:
                file.write(self.random.choice(CONTENTS))
            self._stamp(place)

    def make_directory(self) -> None:
        place = self._new_path()
        place.mkdir()
        self._stamp_new(place)

    def symlink(self) -> None:
        place = self._new_path()
        place.symlink_to(self.random.choice(("a", "../b", "/nowhere", "x/" * 200)))
        self._stamp_new(place)

    def special(self) -> None:
        place = self._new_path()
        os.mkfifo(place)
        self._stamp_new(place)

    def chmod(self) -> None:
        place = self._existing("any")
        if place is not None and not place.is_symlink():
            place.chmod(self.random.choice((0o600, 0o644, 0o755, 0o700, 0o4755, 0o1777)) | 0o100)

    def hard_link(self) -> None:
        old = self._existing("files")
        if old is None:
            return
        new = self._new_path()
        if old.is_file() and not old.is_symlink():
            new.hardlink_to(old)
            self._stamp(new.parent)

    def rename(self) -> None:
        old = self._existing("any")
        if old is None:
            return
        new = self._new_path()
        if os.path.lexists(old) and not new.is_relative_to(old) and not old.is_relative_to(new):
            self.move(old, new)

    def move(self, old: Path, new: Path) -> None:
        """Rename, also where the kernel would not."""
        shutil.move(old, new, copy_function=_copy)
        self._stamp(old.parent)
        self._stamp(new.parent)

    def remove(self) -> None:
        place = self._existing("any")
        if place is not None:
            self._delete(place)

    def toggle_marker(self) -> None:
        place = self._existing("directories")
        if place is None:
            return
        marker = place / MARKER
        if os.path.lexists(marker):
            marker.unlink()
        else:
            marker.touch()
            self._stamp(marker)
        self._stamp(place)

    def set_xattr(self) -> None:
        place = self._existing("any")
        if place is not None and (place.is_file() or place.is_dir()) and not place.is_symlink():
            os.setxattr(place, b"user.test", self.random.randbytes(self.random.randrange(20)))

    def touch(self) -> None:
        place = self._existing("any")
        if place is not None:
            self._stamp(place)

    def write_dirtab(self) -> None:
        (self.root / DIRTAB).write_text(self.random.choice(DIRTABS))
        self._stamp_new(self.root / DIRTAB)


class Model:
    """A stratum 0 that follows a directory, by another way each time."""

    def __init__(self, place: Path, seed: object) -> None:
        self.source = place / "source"
        self.source.mkdir()
        self.stratum_zero = StratumZero(place / "world")
        self.stratum_zero.create()
        self.stratum_zero.configure(**SMALL_CHUNKS)
        self.operations = DirectoryOperations(self.source, seed)
        self.random = self.operations.random
        self.tagged: dict[str, tuple[str, Tree]] = {}
        self.published: Tree = {}
        self.steps = 0
        self.tags = 0
        self.publish_directory()

    def run(self, rounds: int) -> None:
        """Edit, publish, compare; again and again."""
        ways = (
            self.publish_directory, self.publish_diff_list, self.publish_archive,
            self.move_at_catalog_level, self.clone_at_catalog_level, self.remove_at_catalog_level,
        )  # fmt: skip
        for _ in range(rounds):
            for _ in range(self.random.randrange(1, 12)):
                self.operations.step()
                self.steps += 1
            self.publish_by_some_list()
            self.random.choice(ways)()
            self.compare()

    def publish_by_some_list(self) -> None:
        """Bring the repository up to date with what the operations did."""
        self.random.choice((self.publish_directory, self.publish_diff_list, self.publish_archive))()

    def _tag(self) -> str | None:
        self.tags += 1
        return f"t{self.tags}" if self.random.random() < 0.2 else None

    def _options(self) -> PublishOptions:
        self.stratum_zero.now += 10
        return PublishOptions(workers=2, tag=self._tag())

    def _note(self, result: PublishResult) -> None:
        self.published = tree_on_disk(self.source)
        for tag in result.tags:
            self.tagged[tag] = (str(result.root_hash), self.published)

    def publish_directory(self) -> None:
        self._note(self.stratum_zero.publish(self.source, tag=self._tag()))

    def _changed(self) -> tuple[list[bytes], list[bytes]]:
        """What is new or different, and what is gone, since the last time; parents first."""
        now = tree_on_disk(self.source)
        there = [p for p in sorted(now) if self.published.get(p) != now[p]]
        return there, [path for path in sorted(self.published) if path not in now]

    def publish_diff_list(self) -> None:
        there, gone = self._changed()
        lines = [b"D " + path[1:] for path in gone] + [b"M " + (path[1:] or b".") for path in there]
        listed = parse_diff_list(io.BytesIO(b"\0".join(lines)), is_null_separated=True)
        result = self.stratum_zero.publish(
            self.source, listed=listed, is_shallow=True, tag=self._tag()
        )
        self._note(result)

    def publish_archive(self) -> None:
        there, gone = self._changed()
        now = tree_on_disk(self.source)
        gone += [  # what changes its kind goes first: an archive cannot say it otherwise
            p for p in there
            if p in self.published and stat.S_IFMT(self.published[p][0]) != stat.S_IFMT(now[p][0])
        ]  # fmt: skip
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in there:
                place = self.source / os.fsdecode(path[1:])
                member = archive.gettarinfo(place, arcname=os.fsdecode(b"." + path))
                member.mtime = int(place.lstat().st_mtime)
                for name, value in now[path][5].items():
                    member.pax_headers[f"SCHILY.xattr.{os.fsdecode(name)}"] = os.fsdecode(value)
                if member.isreg():
                    with place.open("rb") as file:
                        archive.addfile(member, file)
                else:
                    archive.addfile(member)
        stream.seek(0)
        options = self._options()
        result = publish_tarball(
            self.stratum_zero.locations, self.stratum_zero.fqrn, archive=stream, delete=gone,
            options=options, now=self.stratum_zero.now,
        )  # fmt: skip
        self._note(result)

    # --- at catalog level: the same on disk, and back to equal at once ---

    def _existing_directory(self) -> Path | None:
        return self.operations._existing("directories")

    def _path(self, place: Path) -> bytes:
        return b"/" + os.fsencode(place.relative_to(self.source))

    def _free_path(self) -> Path:
        number = 1
        while os.path.lexists(self.source / f"moved{number}"):
            number += 1
        return self.source / f"moved{number}"

    def move_at_catalog_level(self) -> None:
        old, new = self._existing_directory(), self._free_path()
        if old is None:
            return
        times = {p: p.lstat().st_mtime_ns for p in (old.parent, new.parent)}
        options = self._options()
        result = move_subtree(
            self.stratum_zero.locations, self.stratum_zero.fqrn, self._path(old), self._path(new),
            options=options, now=self.stratum_zero.now,
        )  # fmt: skip
        old.rename(new)
        self._restore(times)
        self._note(result)

    def clone_at_catalog_level(self) -> None:
        old, new = self._existing_directory(), self._free_path()
        if old is None:
            return
        times = {new.parent: new.parent.lstat().st_mtime_ns}
        options = self._options()
        result = clone_subtree(
            self.stratum_zero.locations, self.stratum_zero.fqrn, self._path(old), self._path(new),
            options=options, now=self.stratum_zero.now,
        )  # fmt: skip
        shutil.copytree(old, new, symlinks=True, copy_function=_copy)
        self._restore(times)
        self._note(result)

    def remove_at_catalog_level(self) -> None:
        old = self._existing_directory()
        if old is None:
            return
        times = {old.parent: old.parent.lstat().st_mtime_ns}
        options = self._options()
        result = remove_subtrees(
            self.stratum_zero.locations, self.stratum_zero.fqrn, [self._path(old)],
            options=options, now=self.stratum_zero.now,
        )  # fmt: skip
        shutil.rmtree(old)
        self._restore(times)
        self._note(result)

    @staticmethod
    def _restore(times: dict[Path, int]) -> None:
        """Operations on catalogs leave the directories around alone; the disk does not."""
        for place, mtime in times.items():
            os.utime(place, ns=(mtime, mtime))

    # --- what must hold ---

    def compare(self) -> None:
        """The trunk equals the directory, and the repository is right in every respect."""
        checker = self.stratum_zero.checked()
        found = tree_in_repository(checker)
        expected = tree_on_disk(self.source)
        if found != expected:
            _forget_dirtab_markers(found, expected)
        assert found == expected

    def compare_tags(self) -> None:
        """Tags still show what they showed when they were set."""
        for tag, (root, expected) in self.tagged.items():
            checker = self.stratum_zero.checker()
            checker.load(root)
            found = tree_in_repository(checker)
            _forget_dirtab_markers(found, expected)
            assert found == expected, tag


def _forget_dirtab_markers(found: Tree, expected: Tree) -> None:
    """Drop the markers the dirtab made: they are in the repository only."""
    marker = b"/" + MARKER.encode()
    for path in [p for p in found if p.endswith(marker) and p not in expected]:
        del found[path]


def _copy(old: str, new: str) -> None:
    """A file with all its metadata; what is no file is made anew."""
    seen = os.lstat(old)
    if stat.S_ISFIFO(seen.st_mode):
        os.mkfifo(new)
        os.chmod(new, stat.S_IMODE(seen.st_mode))
        os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    else:
        shutil.copy2(old, new, follow_symlinks=False)
