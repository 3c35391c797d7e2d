"""The chain as it should be: golden repositories, and the ones signed here."""

from dataclasses import replace

import pytest
from tests.support.golden_objects import NAMES, golden_fields, golden_file, golden_object
from tests.support.keys import master_keys, other_keys, repository_keys
from tests.support.simulator import MANIFEST, WHITELIST, RepositorySimulator

from outcrop.formats.hashes import HashAlgorithm
from outcrop.formats.manifest import Breadcrumb
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import (
    read_manifest_unverified_pointer,
    verify_manifest,
    verify_whitelist,
)
from outcrop.trust.keys import load_public_keys

NOW = 1_800_000_000
KEYS = repository_keys()


@pytest.mark.parametrize("name", NAMES)
def test_believes_the_golden_repositories(name):
    fqrn = f"{name}.golden.test"
    data = golden_file(name, "repo/.cvmfspublished")
    pointer = read_manifest_unverified_pointer(data)
    trusted = verify_manifest(
        data,
        certificate=golden_object(name, str(pointer.certificate), "X"),
        whitelist=verify_whitelist(
            golden_file(name, "repo/.cvmfswhitelist"),
            master_keys=load_public_keys(golden_file(name, f"{fqrn}.pub")),
            fqrn=fqrn,
            now=NOW,
        ),
        fqrn=fqrn,
        blacklist=Blacklist(),
        not_before=None,
    )
    assert str(trusted.manifest.revision) == golden_fields(name)["S"]
    assert trusted.manifest == pointer
    assert trusted.data == data


@pytest.mark.parametrize(
    "algorithm", [HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]
)
def test_believes_what_was_signed_here(algorithm):
    sim = RepositorySimulator(algorithm=algorithm, now=NOW)
    assert verified(sim).manifest == sim.manifest


def test_any_of_several_master_keys_may_have_signed_the_whitelist():
    sim = RepositorySimulator(now=NOW)
    keys = (*master_keys(other_keys()), *master_keys(KEYS))
    trusted = verify_whitelist(sim.objects[WHITELIST], master_keys=keys, fqrn=sim.fqrn, now=NOW)
    assert trusted.data == sim.objects[WHITELIST]


def test_a_whitelist_of_another_hash_algorithm_than_the_repository_is_fine():
    sim = RepositorySimulator(algorithm=HashAlgorithm.SHAKE128, now=NOW)
    sim.algorithm = HashAlgorithm.SHA1
    sim.sign_whitelist()
    assert verified(sim).manifest.algorithm is HashAlgorithm.SHAKE128


def test_a_whitelist_may_list_other_certificates_too():
    sim = RepositorySimulator(now=NOW)
    sim.sign_whitelist(certificates=[other_keys().certificate_pem, KEYS.certificate_pem])
    assert verified(sim)


def test_the_whitelist_holds_until_the_hour_of_its_expiry_begins():
    sim = RepositorySimulator(now=NOW)
    expires_at = (NOW + 30 * 86400) // 3600 * 3600
    trusted = verify_whitelist(
        sim.objects[WHITELIST], master_keys=master_keys(KEYS), fqrn=sim.fqrn, now=expires_at - 1
    )
    assert trusted.whitelist.expires_at == expires_at


def test_the_same_and_a_newer_manifest_than_the_last_are_believed():
    sim = RepositorySimulator(now=NOW)
    known = Breadcrumb.of(sim.manifest)
    assert verified(sim, not_before=known)
    sim.publish()
    assert verified(sim, not_before=known)
    assert verified(sim, not_before=replace(known, published_at=0, revision=0))


def test_a_field_of_a_newer_version_does_no_harm_and_reaches_the_copy():
    sim = RepositorySimulator(now=NOW)
    sim.edit_manifest(unknown=(b"Qnew",))
    trusted = verified(sim)
    assert trusted.manifest.unknown == (b"Qnew",)
    assert b"\nQnew\n" in trusted.data


def test_blacklist_entries_of_others_do_no_harm():
    sim = RepositorySimulator(now=NOW)
    blacklist = Blacklist.parse(b"<other.org 99\n<sim.example.org 1\n" + b"00:" * 19 + b"00\n")
    assert verified(sim, blacklist=blacklist)


def verified(sim, **changes):
    """What the chain gives for the simulator's manifest."""
    arguments = {
        "certificate": KEYS.certificate_pem,
        "whitelist": verify_whitelist(
            sim.objects[WHITELIST], master_keys=master_keys(KEYS), fqrn=sim.fqrn, now=NOW
        ),
        "fqrn": sim.fqrn,
        "blacklist": Blacklist(),
        "not_before": None,
    }
    return verify_manifest(sim.objects[MANIFEST], **arguments | changes)
