"""Stratum 0: make repositories and publish revisions."""
