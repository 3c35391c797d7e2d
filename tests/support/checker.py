"""A small repository checker written from the specification; it shares no code with the package.

Reads a stratum 0's directory and returns what is wrong with it, in words. Everything is checked:
signatures, every table, flag, counter, path hash, link count, chunk and object.
"""

import hashlib
import os
import sqlite3
import stat
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

NULL_HASH = "0" * 40
_SHA1_INFO = bytes.fromhex("3021300906052b0e03021a05000414")
_ALGORITHMS = ("", "-rmd160", "-shake128")
_COUNTERS = (
    "regular", "symlink", "special", "dir", "nested", "chunked", "chunks", "file_size",
    "chunked_size", "xattr", "external", "external_file_size",
)  # fmt: skip


def digest(data: bytes, text_suffix: str) -> str:
    """The hash of bytes in text form."""
    if text_suffix == "-shake128":
        return hashlib.shake_128(data).hexdigest(20) + text_suffix
    name = {"": "sha1", "-rmd160": "ripemd160"}[text_suffix]
    return hashlib.new(name, data).hexdigest() + text_suffix


def algorithm_of(text: str) -> str:
    """The textual suffix of a hash."""
    return text[40:]


@dataclass
class Entry:
    """A row of a catalog and where it is. `row` is by column name."""

    path: bytes
    row: dict
    catalog: "CatalogFile"
    chunks: list = field(default_factory=list)

    @property
    def flags(self) -> int:
        return self.row["flags"]

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.row["mode"])

    @property
    def nlink(self) -> int:
        return self.row["hardlinks"] & 0xFFFFFFFF

    @property
    def group(self) -> int:
        return self.row["hardlinks"] >> 32

    def hash_text(self, raw: bytes) -> str:
        return raw.hex() + _ALGORITHMS[(self.flags >> 8) & 7]


class CatalogFile:
    """One catalog, wholly in memory."""

    def __init__(self, text: str, mountpoint: bytes, plain: bytes) -> None:
        self.text = text
        self.mountpoint = mountpoint
        self.plain = plain
        with tempfile.NamedTemporaryFile() as file:
            file.write(plain)
            file.flush()
            database = sqlite3.connect(f"file:{file.name}?mode=ro", uri=True)
            database.text_factory = bytes
            self.integrity = database.execute("PRAGMA integrity_check").fetchall()
            self.properties = {
                k.decode(): v.decode("utf-8", "surrogateescape")
                for k, v in self._all(database, "properties")
            }
            self.statistics = {k.decode(): v for k, v in self._all(database, "statistics")}
            self.nested = {p: (h.decode(), s) for p, h, s in self._all(database, "nested_catalogs")}
            self.chunk_rows = self._all(database, "chunks")
            cursor = database.execute("SELECT rowid, * FROM catalog")
            names = [column[0] for column in cursor.description]
            self.rows = [dict(zip(names, row, strict=True)) for row in cursor]
            database.close()

    @staticmethod
    def _all(database: sqlite3.Connection, table: str) -> list:
        return database.execute(f"SELECT * FROM {table}").fetchall()

    @property
    def totals(self) -> Counter:
        return Counter(
            {n: self.statistics[f"self_{n}"] + self.statistics[f"subtree_{n}"] for n in _COUNTERS}
        )


class Checker:
    """Checks the repository in a directory; `problems` is empty if all is well."""

    external: Path | None = None
    """Where external data is served from: the tree with their paths."""

    def __init__(self, directory: Path, fqrn: str, public_key: bytes) -> None:
        self._directory = directory
        self._fqrn = fqrn
        self._public_key = public_key
        self.problems: list[str] = []
        self.manifest: dict[str, str] = {}
        self.entries: dict[bytes, Entry] = {}
        self.catalogs: dict[bytes, CatalogFile] = {}
        self._checked: set[str] = set()

    def check(self) -> list[str]:
        """Check everything the manifest leads to, all tags included."""
        self._check_trust()
        self._check_all_objects()
        self._check_reflog()
        self.load()
        trunk = (self.entries, self.catalogs)
        for root in self._check_history():
            self.load(root)
        self.entries, self.catalogs = trunk
        return self.problems

    def load(self, root: str | None = None) -> dict[bytes, Entry]:
        """Read and check the tree below a root catalog (the trunk's unless given)."""
        if not self.manifest:
            self._parse_manifest((self._directory / ".cvmfspublished").read_bytes())
        self.entries, self.catalogs = {}, {}
        self._load_catalog(root or self.manifest["C"], b"", None)
        return self.entries

    def read(self, path: bytes) -> bytes:
        """The content of a regular file."""
        entry = self.entries[path]
        if entry.chunks:
            return b"".join(self._plain(entry, raw, "P", at) for *at, raw in entry.chunks)
        return self._plain(entry, entry.row["hash"], "")

    def _plain(
        self, entry: Entry, raw: bytes, suffix: str, part: tuple[int, int] | None = None
    ) -> bytes:
        if entry.flags & 128 and self.external is not None:
            data = (self.external / os.fsdecode(entry.path[1:])).read_bytes()
            return data if part is None else data[part[0] : sum(part)]
        stored = self._object(entry.hash_text(raw) + suffix)
        return stored if (entry.flags >> 11) & 7 else zlib.decompress(stored)

    def _say(self, text: str) -> None:
        self.problems.append(text)

    def _expect(self, is_right: object, text: str) -> None:
        if not is_right:
            self._say(text)

    def _object(self, name: str) -> bytes:
        return (self._directory / "data" / name[:2] / name[2:]).read_bytes()

    # --- trust ---

    def _parse_manifest(self, data: bytes) -> tuple[bytes, str, bytes]:
        end = data.index(b"\n--\n") + 1
        body, (text, signature) = data[:end], data[end + 3 :].split(b"\n", 1)
        self.manifest = {line[:1].decode(): line[1:].decode() for line in body.splitlines()}
        return body, text.decode(), signature

    @staticmethod
    def _signed(key, signature: bytes) -> bytes:
        """The payload of a PKCS #1 v1.5 signature block."""
        numbers = key.public_numbers()
        size = (key.key_size + 7) // 8
        block = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(size, "big")
        head, _, payload = block[2:].partition(b"\0")
        return payload if block[:2] == b"\0\1" and set(head) == {0xFF} else b""

    def _check_trust(self) -> None:
        data = (self._directory / ".cvmfspublished").read_bytes()
        body, text, signature = self._parse_manifest(data)
        self._expect(text == digest(body, algorithm_of(text)), "manifest: hash line")
        self._expect(self.manifest["N"] == self._fqrn, "manifest: name")
        self._expect(self.manifest["R"] == hashlib.md5(b"").hexdigest(), "manifest: root path")
        pem = zlib.decompress(self._object(self.manifest["X"] + "X"))
        certificate = x509.load_pem_x509_certificate(pem)
        wanted = _SHA1_INFO + hashlib.sha1(text.encode()).digest()
        self._expect(
            self._signed(certificate.public_key(), signature) == wanted, "manifest: signature"
        )
        zlib.decompress(self._object(self.manifest["M"] + "M"))
        data = (self._directory / ".cvmfswhitelist").read_bytes()
        end = data.index(b"\n--\n") + 1
        text_line, signature = data[end + 3 :].split(b"\n", 1)
        self._expect(
            text_line.decode() == digest(data[:end], algorithm_of(text_line.decode())),
            "whitelist: hash line",
        )
        master = load_pem_public_key(self._public_key)
        self._expect(self._signed(master, signature) == text_line, "whitelist: signature")
        lines = data[:end].decode().splitlines()
        self._expect(lines[2] == "N" + self._fqrn, "whitelist: name")
        algorithm = algorithm_of(text_line.decode())
        fingerprint = digest(certificate.public_bytes(Encoding.DER), algorithm)
        listed = {line.replace(":", "").lower() for line in lines[3:]}
        self._expect(fingerprint in listed, "whitelist: the certificate is not on it")

    def _check_reflog(self) -> None:
        data = (self._directory / ".cvmfsreflog").read_bytes()
        self._expect(
            digest(data, algorithm_of(self.manifest["C"])) == self.manifest["Y"], "reflog: hash"
        )
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            database = sqlite3.connect(file.name)
            refs = {text: kind for text, kind, _ in database.execute("SELECT * FROM refs")}
            database.close()
        for key, kind in (("C", 0), ("X", 1), ("H", 2), ("M", 3)):
            self._expect(refs.get(self.manifest[key]) == kind, f"reflog: lacks {key}")
        for text, kind in refs.items():
            place = self._directory / "data" / text[:2] / (text[2:] + "CXHM"[kind])
            self._expect(place.exists(), f"reflog: {text} does not exist")

    def _check_history(self) -> list[str]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(zlib.decompress(self._object(self.manifest["H"] + "H")))
            file.flush()
            database = sqlite3.connect(file.name)
            query = "SELECT name, hash, revision, size FROM tags"
            tags = {name: rest for name, *rest in database.execute(query)}
            database.close()
        trunk = [self.manifest["C"], int(self.manifest["S"]), int(self.manifest["B"])]
        self._expect(tags.get("trunk") == trunk, "history: the tag trunk")
        before = tags.get("trunk-previous")
        if before is not None:
            self._expect(before[1] < trunk[1], "history: the tag trunk-previous")
            root = self.catalogs[b""].properties
            if b"/.cvmfs" not in self.catalogs:  # else the tagged root is in between
                self._expect(root["previous_revision"] == before[0], "history: trunk-previous")
        return [text for text, _, _ in tags.values()]

    def _check_all_objects(self) -> None:
        for file in (self._directory / "data").rglob("*"):
            if not file.is_file():
                continue
            if file.parent.name == "txn":
                self._say(f"{file}: left over")
                continue
            name = file.parent.name + file.name
            text = name[:40] + next((s for s in _ALGORITHMS[:0:-1] if s in name), "")
            self._expect(name[len(text) :] in ("", *"CHMPX"), f"{file}: name")
            self._expect(
                digest(file.read_bytes(), algorithm_of(text)) == text, f"{file}: content hash"
            )

    # --- catalogs ---

    def _load_catalog(self, text: str, mountpoint: bytes, size: int | None) -> CatalogFile:
        plain = zlib.decompress(self._object(text + "C"))
        catalog = CatalogFile(text, mountpoint, plain)
        self.catalogs[mountpoint] = catalog
        self._check_file(catalog, size)
        self._place_rows(catalog)
        totals = Counter()
        for path, (child_text, child_size) in catalog.nested.items():
            mount = self.entries.get(path)
            if mount is None or not mount.flags & 2:
                self._say(f"{mountpoint}: nested {path} has no mountpoint")
            child = self._load_catalog(child_text, path, child_size)
            self._check_transition(mount, child)
            totals.update(child.totals)
        self._check_counters(catalog, totals)
        return catalog

    def _check_file(self, catalog: CatalogFile, size: int | None) -> None:
        where = f"catalog {catalog.mountpoint}"
        self._expect(catalog.integrity == [(b"ok",)], f"{where}: {catalog.integrity}")
        self._expect(catalog.plain[18:20] == b"\1\1", f"{where}: journal mode in the header")
        self._expect(size in (None, len(catalog.plain)), f"{where}: size")
        if not catalog.mountpoint and catalog.text == self.manifest["C"]:
            self._expect(len(catalog.plain) == int(self.manifest["B"]), f"{where}: size B")
            self._expect(catalog.properties["TTL"] == self.manifest["D"], f"{where}: TTL")
            revision = catalog.properties["revision"]
            self._expect(revision == self.manifest["S"], f"{where}: revision")
        expected = {"schema": "2.5", "schema_revision": "7"}
        for key, value in expected.items():
            self._expect(catalog.properties.get(key) == value, f"{where}: property {key}")
        prefix = catalog.properties.get("root_prefix", "").encode("utf-8", "surrogateescape")
        self._expect(prefix == catalog.mountpoint, f"{where}: root_prefix {prefix!r}")
        self._expect("previous_revision" in catalog.properties, f"{where}: previous_revision")
        rows = len(catalog.rows)
        highest = max(row["rowid"] for row in catalog.rows)
        self._expect(highest - rows <= 0.25 * highest, f"{where}: {rows} rows up to {highest}")

    def _place_rows(self, catalog: CatalogFile) -> None:
        """Give every row its path, from the root down; what cannot be reached is wrong."""
        by_parent: dict[tuple[int, int], list[dict]] = {}
        root = None
        root_key = _path_key(catalog.mountpoint)
        for row in catalog.rows:
            if (row["md5path_1"], row["md5path_2"]) == root_key:
                root = row
            else:
                by_parent.setdefault((row["parent_1"], row["parent_2"]), []).append(row)
        if root is None:
            self._say(f"catalog {catalog.mountpoint}: no root entry")
            return
        chunks: dict[tuple[int, int], list] = {}
        for first, second, *rest in catalog.chunk_rows:
            chunks.setdefault((first, second), []).append(tuple(rest))
        self._check_root(catalog, root)
        waiting = [(catalog.mountpoint, root)]
        while waiting:
            path, row = waiting.pop()
            key = (row["md5path_1"], row["md5path_2"])
            entry = Entry(path, row, catalog, sorted(chunks.pop(key, [])))
            below = by_parent.pop(key, [])
            waiting += [(path + b"/" + child["name"], child) for child in below]
            self._check_entry(entry, is_root=row is root)
            self._check_groups(path, below)
            if row is not root or not path:
                self.entries[path] = entry
            if not row["flags"] & (2 | 0x4000) and row["flags"] & 1:
                directories = sum(child["flags"] & 1 for child in below)
                self._expect(entry.nlink == 2 + directories, f"{path}: {entry.nlink} links")
        self._expect(not by_parent, f"catalog {catalog.mountpoint}: rows without a parent")
        self._expect(not chunks, f"catalog {catalog.mountpoint}: chunks without a file")

    def _check_root(self, catalog: CatalogFile, root: dict) -> None:
        path = catalog.mountpoint
        parent = _path_key(path.rpartition(b"/")[0]) if path else (0, 0)
        self._expect((root["parent_1"], root["parent_2"]) == parent, f"{path}: parent of root")
        self._expect(root["flags"] & 0xFFF == (33 if path else 1), f"{path}: flags of root")

    def _check_entry(self, entry: Entry, *, is_root: bool) -> None:
        row, path = entry.row, entry.path
        key = _path_key(path)
        self._expect((row["md5path_1"], row["md5path_2"]) == key, f"{path}: path hash")
        name = path.rpartition(b"/")[2]
        self._expect(row["name"] == name, f"{path}: name {row['name']!r}")
        for column in ("hardlinks", "size", "mode", "mtime", "flags", "uid", "gid"):
            self._expect(isinstance(row[column], int), f"{path}: {column} {row[column]!r}")
        self._expect(isinstance(row["symlink"], bytes), f"{path}: symlink is NULL")
        self._check_xattrs(path, row["xattr"])
        if entry.kind == stat.S_IFREG:
            self._check_file_entry(entry)
            return
        directories = (1, 3, 33)
        if path == b"/.cvmfs":
            directories = (32771, 32801)
        elif path.startswith(b"/.cvmfs/snapshots/"):
            directories = (1, 16385)  # those of tags, and those tags with slashes are in
        expected = {stat.S_IFDIR: directories, stat.S_IFLNK: (12,)}.get(entry.kind, (20,))
        self._expect(entry.flags in expected, f"{path}: flags {entry.flags}")
        self._expect(row["hash"] is None, f"{path}: has a hash")
        self._expect(not entry.chunks, f"{path}: has chunks")
        if entry.kind == stat.S_IFLNK:
            self._expect(row["size"] == len(row["symlink"]), f"{path}: size of a symlink")
        if entry.flags == 3 and not is_root:
            self._expect(path in entry.catalog.nested, f"{path}: mountpoint of nothing")

    def _check_file_entry(self, entry: Entry) -> None:
        path, row = entry.path, entry.row
        external = 128 if self.external is not None else 0
        rest = entry.flags & ~((7 << 8) | (7 << 11) | 64 | 0x10000 | external)
        self._expect(rest == 4, f"{path}: flags {entry.flags}")
        algorithm = _ALGORITHMS.index(algorithm_of(self.manifest["C"]))
        self._expect((entry.flags >> 8) & 7 == algorithm, f"{path}: algorithm")
        self._expect(bool(entry.flags & 64) == bool(entry.chunks), f"{path}: chunked or not")
        self._expect(bool(entry.chunks or row["hash"]), f"{path}: no hash")
        position = 0
        for offset, size, raw in entry.chunks:
            self._expect(offset == position and size > 0, f"{path}: chunk at {offset}")
            found = self._plain(entry, raw, "P", (offset, size))
            self._expect(len(found) == size, f"{path}: size of a chunk")
            position = offset + size
        if entry.chunks:
            self._expect(len(entry.chunks) > 1, f"{path}: a single chunk")
            self._expect(position == row["size"], f"{path}: chunks end at {position}")
        if row["hash"]:
            self._expect(
                len(self._plain(entry, row["hash"], "")) == row["size"], f"{path}: size of object"
            )

    def _check_xattrs(self, path: bytes, blob: bytes | None) -> None:
        if blob is None:
            return
        self._expect(blob[0] == 1 and blob[1] > 0, f"{path}: xattr header")
        position, names = 2, []
        for _ in range(blob[1]):
            key_end = position + 2 + blob[position]
            names.append(blob[position + 2 : key_end])
            position = key_end + blob[position + 1]
        self._expect(position == len(blob), f"{path}: xattr length")
        self._expect(names == sorted(set(names)), f"{path}: xattr order")

    def _check_groups(self, directory: bytes, rows: list[dict]) -> None:
        groups: dict[int, list[dict]] = {}
        for row in rows:
            if row["hardlinks"] >> 32:
                groups.setdefault(row["hardlinks"] >> 32, []).append(row)
            elif not row["flags"] & 1:
                self._expect(row["hardlinks"] == 1, f"{directory}: {row['name']}: link count")
        own = ("rowid", "name", "md5path_1", "md5path_2")
        for number, members in groups.items():
            where = f"{directory}: group {number}"
            self._expect(len(members) > 1, f"{where}: one member")
            self._expect(
                {row["hardlinks"] & 0xFFFFFFFF for row in members} == {len(members)},
                f"{where}: link counts",
            )
            alike = {tuple(v for k, v in row.items() if k not in own) for row in members}
            self._expect(len(alike) == 1, f"{where}: members differ")

    def _check_transition(self, mount: Entry | None, child: CatalogFile) -> None:
        if mount is None:
            return
        key = (mount.row["md5path_1"], mount.row["md5path_2"])
        roots = [r for r in child.rows if (r["md5path_1"], r["md5path_2"]) == key]
        same = [k for k in mount.row if k not in ("rowid", "flags")]
        for root in roots:
            different = [k for k in same if root[k] != mount.row[k]]
            self._expect(not different, f"{mount.path}: transition differs in {different}")
        marker = self.entries.get(mount.path + b"/.cvmfscatalog")
        self._expect(marker is not None, f"{mount.path}: nested without .cvmfscatalog")

    def _check_counters(self, catalog: CatalogFile, below: Counter) -> None:
        where = f"catalog {catalog.mountpoint}"
        self._expect(len(catalog.statistics) == 24, f"{where}: {len(catalog.statistics)} counters")
        counted = Counter(nested=len(catalog.nested), chunks=len(catalog.chunk_rows))
        for row in catalog.rows:
            kind = stat.S_IFMT(row["mode"])
            names = {stat.S_IFREG: "regular", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}
            counted[names.get(kind, "special")] += 1
            counted["xattr"] += row["xattr"] is not None
            if kind == stat.S_IFREG:
                counted["file_size"] += row["size"]
                counted["chunked"] += bool(row["flags"] & 64)
                counted["chunked_size"] += row["size"] if row["flags"] & 64 else 0
                counted["external"] += bool(row["flags"] & 128)
                counted["external_file_size"] += row["size"] if row["flags"] & 128 else 0
        for name in _COUNTERS:
            own, subtree = catalog.statistics[f"self_{name}"], catalog.statistics[f"subtree_{name}"]
            self._expect(own == counted[name], f"{where}: self_{name} {own} != {counted[name]}")
            self._expect(subtree == below[name], f"{where}: subtree_{name} {subtree}")


def _path_key(path: bytes) -> tuple[int, int]:
    raw = hashlib.md5(path).digest()
    return (
        int.from_bytes(raw[:8], "little", signed=True),
        int.from_bytes(raw[8:], "little", signed=True),
    )
