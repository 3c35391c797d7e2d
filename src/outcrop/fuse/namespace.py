"""Runs a command that alone sees FUSE mounts, without any privilege."""
