"""Files that are replaced whole: keys and settings, with their mode from the first byte on."""

import os
from pathlib import Path


def write_file(file: Path, data: bytes, mode: int) -> None:
    """Write a file, durably: there is the old content or the new, never less."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as out:
        os.fchmod(fd, mode)  # whatever the umask
        out.write(data)
        out.flush()
        os.fsync(fd)
    temporary.replace(file)
