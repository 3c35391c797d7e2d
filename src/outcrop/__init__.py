"""CernVM-FS and the ecosystem around it, in Python.

The public API is what this module names: `open` a repository and read it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outcrop.client.api import Repository, Stat, open

__version__ = "0.1.0"
__all__ = ["Repository", "Stat", "__version__", "open"]


def __getattr__(name: str) -> Any:
    # Late, so that `import outcrop.formats…` and `outcrop --help` stay light.
    if name in ("Repository", "Stat", "open"):
        from outcrop.client import api

        return getattr(api, name)
    raise AttributeError(f"module 'outcrop' has no attribute {name!r}")
