"""Client connections over the simulator."""

from pathlib import Path

from tests.support.simulator import RepositorySimulator
from tests.support.sources import source_of

from outcrop.client.connection import Connection, Target
from outcrop.client.settings import Parameter, Parameters


def connection_to(sim: RepositorySimulator, cache_directory: Path, **parameters: str) -> Connection:
    """A connection with these `CVMFS_*` parameters (named without the prefix)."""
    values = {f"CVMFS_{n.upper()}": Parameter(v, "test") for n, v in parameters.items()}
    named = Parameters(sim.fqrn, values)
    source = source_of(sim, cache_directory=cache_directory)
    return Connection(
        Target(sim.fqrn, sim.fqrn, directory=cache_directory),
        named,
        named.settings(),
        source,
        sim,
        sim.public_key,
        source.breadcrumbs,  # type: ignore[arg-type]
    )
