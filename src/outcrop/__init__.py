"""CernVM-FS and the ecosystem around it, in Python.

The public API is what this module names: `open` a repository and read it.
"""

__version__ = "0.1.0"
