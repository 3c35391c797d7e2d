import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_fields, golden_file, open_database
from tests.support.hostile import cells

from outcrop.errors import FormatError
from outcrop.formats import reflog
from outcrop.formats.hashes import ContentHash, HashAlgorithm, Suffix
from outcrop.formats.reflog import Ref, RefType

HASH = ContentHash(HashAlgorithm.SHA1, bytes(20))


def test_types_have_the_suffixes_of_their_objects():
    assert [kind.suffix for kind in RefType] == [
        Suffix.CATALOG, Suffix.CERTIFICATE, Suffix.HISTORY, Suffix.META_INFO,
    ]  # fmt: skip


def test_reads_back_from_a_database_what_was_written():
    database = sqlite3.connect(":memory:")
    for statement in reflog.DDL:
        database.execute(statement)
    refs = [Ref(ContentHash(HashAlgorithm.SHAKE128, bytes([n] * 20)), RefType(n), n * 10)
            for n in range(4)]  # fmt: skip
    database.executemany(reflog.INSERT_REF, [ref.to_row() for ref in refs])
    assert [Ref.from_row(row) for row in database.execute(reflog.SELECT_REFS)] == refs
    database.close()


@pytest.mark.parametrize("name", NAMES)
def test_golden_reflogs_list_what_the_manifest_names(name):
    data = golden_file(name, "repo/.cvmfsreflog")
    refs = [Ref.from_row(row) for row in open_database(data).execute(reflog.SELECT_REFS)]
    fields = golden_fields(name)
    listed = {(str(ref.hash), ref.type) for ref in refs}
    for letter, kind in (
        ("C", RefType.CATALOG), ("X", RefType.CERTIFICATE),
        ("H", RefType.HISTORY), ("M", RefType.META_INFO),
    ):  # fmt: skip
        assert (fields[letter], kind) in listed
    checksum = ContentHash.parse(golden_file(name, "keys/reflog.chksum").decode())
    assert ContentHash.of(data, checksum.algorithm) == checksum


@pytest.mark.parametrize(
    "row", [(), (str(HASH), 4, 0), (str(HASH), -1, 0), (str(HASH), "0", 0), ("x", 0, 0),
            (str(HASH), 0, None), (None, 0, 0)],
)  # fmt: skip
def test_refuses_rows_that_are_no_reference(row):
    with pytest.raises(FormatError):
        Ref.from_row(row)


@given(st.tuples(st.one_of(cells, st.just(str(HASH))), cells, cells))
@settings(deadline=None)
def test_any_row_gives_a_reference_or_a_format_error(row):
    try:
        Ref.from_row(row)
    except FormatError as error:
        assert str(error)
