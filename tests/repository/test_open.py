"""A host that cannot be believed is left for the next one, once."""

from dataclasses import replace

import pytest
from tests.support.keys import other_keys
from tests.support.servers import HttpServer
from tests.support.simulator import RepositorySimulator
from tests.support.sources import source_of

from outcrop.formats.manifest import Breadcrumb
from outcrop.repository.open import RepositorySource
from outcrop.storage.http import HttpStore
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.errors import BadSignature, CertificateNotListed, RevisionRolledBack


def source_behind(store: HttpStore, sim: RepositorySimulator) -> RepositorySource:
    return replace(
        source_of(sim), store=store, opener=TransientOpener(store), switch_host=store.switch_host
    )


def test_a_stale_replica_is_left_for_the_next_host() -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    with HttpServer(dict(_served(sim))) as stale:
        sim.publish({b"/f": b"2"})
        seen = Breadcrumb.of(sim.manifest)
        with HttpServer(dict(_served(sim))) as fresh:
            store = HttpStore([stale.url, fresh.url])
            source = source_behind(store, sim)
            manifest = source.fetch_manifest(now=sim.now, not_before=seen).manifest
            assert manifest.revision == 2
            assert store.active_host == fresh.url
            store.close()


def test_when_all_hosts_lie_the_last_lie_is_told() -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    sim.sign_whitelist(keys=other_keys())
    with HttpServer(dict(_served(sim))) as one, HttpServer(dict(_served(sim))) as two:
        store = HttpStore([one.url, two.url])
        with pytest.raises(BadSignature):
            source_behind(store, sim).fetch_manifest(now=sim.now)
        assert sum(".cvmfspublished" in path for path in one.paths + two.paths) == 2
        store.close()


def test_a_certificate_that_is_not_listed_is_so_everywhere() -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    sim.resign_with(other_keys())
    with HttpServer(dict(_served(sim))) as one, HttpServer(dict(_served(sim))) as two:
        store = HttpStore([one.url, two.url])
        with pytest.raises(CertificateNotListed):
            source_behind(store, sim).fetch_manifest(now=sim.now)
        assert two.paths == []
        store.close()


def test_with_one_host_there_is_nowhere_to_go() -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    sim.publish({b"/f": b"2"})
    seen = Breadcrumb.of(sim.manifest)
    sim.roll_back(1)
    with HttpServer(dict(_served(sim))) as only:
        store = HttpStore([only.url])
        with pytest.raises(RevisionRolledBack):
            source_behind(store, sim).fetch_manifest(now=sim.now, not_before=seen)
        store.close()


def _served(sim: RepositorySimulator) -> dict[str, bytes]:
    return {f"/{name}": data for name, data in sim.objects.items()}
