"""The client: a repository as a mount, as a Python API and as an fsspec file system."""
