"""`cvmfs/info/v1`: what a server tells of its repositories (spec 16)."""

import json
from pathlib import Path
from typing import Any

from outcrop.publisher.administration import list_repositories
from outcrop.publisher.private_files import write_file
from outcrop.storage.locations import Locations

_META: dict[str, Any] = {
    "administrator": "Your Name",
    "email": "you@organisation.org",
    "organisation": "Your Organisation",
    "custom": {},
}
"""What upstream starts with; whoever runs the server fills it in."""


def update_server_info(locations: Locations) -> Path:
    """Write `repositories.json` for what is configured here; `meta.json` only where it is missing.

    Returns the first. Raises OSError.
    """
    directory = locations.storage / "info/v1"
    directory.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[dict[str, str]]] = {"stratum0": [], "stratum1": []}
    for found in list_repositories(locations):
        if found.kind in lists:
            lists[found.kind].append({"name": found.fqrn, "url": f"/cvmfs/{found.fqrn}"})
    text = {"schema": 1, "repositories": lists["stratum0"], "replicas": lists["stratum1"]}
    file = directory / "repositories.json"
    write_file(file, _json(text), 0o644)
    meta = directory / "meta.json"
    if not meta.exists():
        write_file(meta, _json(_META), 0o644)
    return file


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
