"""Root without the right to read everything, for tests of files that may not be read."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextlib.contextmanager
def permissions_hold() -> Iterator[None]:
    """Modes of files mean something to this thread, and to those it starts, even for root."""
    header, sets = _Header(_VERSION_3, 0), (_Set * 2)()
    _call(_libc.capget, header, sets)
    before = sets[0].effective
    sets[0].effective &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _call(_libc.capset, header, sets)
    try:
        yield
    finally:
        sets[0].effective = before
        _call(_libc.capset, header, sets)


def _call(function: "ctypes._NamedFuncPointer", header: _Header, sets: ctypes.Array[_Set]) -> None:
    if function(ctypes.byref(header), ctypes.byref(sets)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
