"""File bundles: which files a program is going to need, said by JSON files in the repository.

`/.cvmfsbundles` is any JSON document; `.cvmfsbundle-NAME` beside a file NAME lists what is opened
after it. Both are experimental and published as the files they are; what is checked is their form.
Spec: docs/reference/formats/bundles.md.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, Self

from outcrop.errors import FormatError

BUNDLES: Final = b".cvmfsbundles"
"""The name of the one file for a whole repository, in its root and nowhere else."""

BUNDLE_PREFIX: Final = b".cvmfsbundle-"
"""What the name of a file begins with that belongs to the file with the rest of the name."""

MAX_BYTES: Final = 16 << 20
MAX_DEPENDENCIES: Final = 100_000
_MAX_PATH_BYTES: Final = 4096
_NAME: Final = "CVMFS_BUNDLE"
_VERSION: Final = re.compile(r"1(\.[0-9]{1,9}){0,2}")


def is_bundle_name(name: bytes) -> bool:
    """Whether a file of this name says something about bundles."""
    return name == BUNDLES or name.startswith(BUNDLE_PREFIX)


def check_bundle_file(name: bytes, data: bytes) -> None:
    """See that a file with such a name says what it may say. Raises FormatError."""
    if name == BUNDLES:
        _load(data)
    else:
        Bundle.parse(data)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `.cvmfsbundle-NAME` says: the paths that are needed once NAME is opened.

    Paths are absolute, `/` being the root of the repository.
    """

    dependencies: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle file. Raises FormatError."""
        found = _load(data)
        if not isinstance(found, dict):
            raise FormatError("file bundle: expected an object")
        if found.get("name") != _NAME:
            raise FormatError(f"file bundle: name is {_shown(found.get('name'))}, not {_NAME!r}")
        version = found.get("version")
        if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
            raise FormatError(f"file bundle: version is {_shown(version)}, not '1.0.0'")
        if found.get("encoding") != "UTF-8":
            raise FormatError(
                f"file bundle: encoding is {_shown(found.get('encoding'))}, not 'UTF-8'"
            )
        listed = found.get("dependencies")
        if not isinstance(listed, list):
            raise FormatError("file bundle: there is no list of dependencies")
        if len(listed) > MAX_DEPENDENCIES:
            raise FormatError(
                f"file bundle: {len(listed)} dependencies, the limit is {MAX_DEPENDENCIES}"
            )
        return cls(tuple(_path(item) for item in listed))


def _load(data: bytes) -> object:
    if len(data) > MAX_BYTES:
        raise FormatError(f"file bundle: more than {MAX_BYTES} bytes")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise FormatError(f"file bundle: no UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"file bundle: no JSON: {error}") from error
    except RecursionError as error:
        raise FormatError("file bundle: no JSON that anybody writes: nested too deeply") from error


def _no_constant(name: str) -> object:
    raise FormatError(f"file bundle: no JSON: {name} is no number")


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)


def _path(item: object) -> bytes:
    if not isinstance(item, str):
        raise FormatError(f"file bundle: {_shown(item)} is no path")
    try:
        path = item.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"file bundle: {_shown(item)} is no path: half a character") from error
    names = path.split(b"/")[1:]
    is_impossible = not path.startswith(b"/") or b"\0" in path or len(path) > _MAX_PATH_BYTES
    if is_impossible or not all(names) or b"." in names or b".." in names:
        raise FormatError(f"file bundle: {_shown(item)} is no absolute path in the repository")
    return path


def _shown(value: object) -> str:
    return f"{value!r:.60}" if isinstance(value, str) else f"{type(value).__name__}"
