"""The fsspec file system `cvmfs://`: pandas, dask and friends read repositories without a mount.

`cvmfs://FQRN/path` reads a configured repository; a URL goes in as a storage option:
`fsspec.open("cvmfs://sw.example.org/a.csv", url="http://host/cvmfs/sw.example.org",
public_keys=["sw.pub"])`.
"""

import stat as stat_module
from typing import Any

from fsspec.spec import AbstractFileSystem

from outcrop.client.api import Repository, Stat
from outcrop.client.api import open as open_repository
from outcrop.errors import OutcropError


class CvmfsFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A read-only file system over one or more repositories. Paths are `FQRN/path`."""

    protocol = "cvmfs"
    root_marker = ""

    def __init__(self, url: str | None = None, public_keys: Any = None, **options: Any) -> None:
        """Options: `url`, `public_keys`, and those of `outcrop.open` (`tag`, `cache`, …)."""
        known = {
            name: options.pop(name)
            for name in ("tag", "root_hash", "date", "cache", "proxy", "parameters")
            if name in options
        }
        super().__init__(**options)
        self._url = url
        self._public_keys = public_keys
        self._options = known
        self._repositories: dict[str, Repository] = {}

    def _split(self, path: str) -> tuple[Repository, str]:
        fqrn, _, inner = self._strip_protocol(path).strip("/").partition("/")
        if fqrn not in self._repositories:
            self._repositories[fqrn] = open_repository(
                self._url or fqrn, fqrn, self._public_keys, **self._options
            )
        return self._repositories[fqrn], "/" + inner

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is known of one path. Raises FileNotFoundError."""
        repository, inner = self._split(path)
        with _os_errors(path):
            return self._details(repository, repository.stat(inner))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a directory, or the file itself."""
        repository, inner = self._split(path)
        with _os_errors(path):
            found = repository.stat(inner)
            entries = repository.scandir(inner) if found.is_dir else [found]
            details = [self._details(repository, entry) for entry in entries]
        return details if detail else [entry["name"] for entry in details]

    def _details(self, repository: Repository, found: Stat) -> dict[str, Any]:
        kind = "directory" if found.is_dir else "file" if found.is_file else "link"
        if kind == "link" and not found.is_symlink:
            kind = "other"
        return {
            "name": f"{repository.fqrn}{found.path.rstrip('/')}",
            "size": found.size if found.is_file else 0,
            "type": kind,
            "mode": stat_module.S_IMODE(found.mode),
            "mtime": found.mtime,
            "hash": found.hash,
            "islink": found.is_symlink,
            "destination": found.target,
        }

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        repository, inner = self._split(path)
        if mode != "rb":
            raise PermissionError(f"{path}: a repository is read-only")
        with _os_errors(path):
            return repository.open(inner)

    def modified(self, path: str) -> Any:
        """When the file was last modified, as an aware datetime."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def checksum(self, path: str) -> Any:
        """The content hash: equal for equal content."""
        found = self.info(path)
        return found["hash"] or (found["name"], found["size"], found["mtime"])


class _os_errors:  # noqa: N801 - used like a function
    """Our errors become the OSErrors that fsspec's callers expect."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OutcropError):
            raise OSError(error.errno, str(error), self._path) from error
