import pytest

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn, domain, organisation


@pytest.mark.parametrize("name", ["atlas.cern.ch", "a", "0-x_y.Z", "x" * 60, "a..b"])
def test_accepts_names_a_repository_can_have(name):
    assert check_fqrn(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a b", "a\n", "ä.ch", "a\0", "x" * 61, "٣"],
)
def test_refuses_names_no_repository_can_have(name):
    with pytest.raises(FormatError):
        check_fqrn(name)


def test_splits_a_name_at_its_first_dot():
    assert (organisation("atlas.cern.ch"), domain("atlas.cern.ch")) == ("atlas", "cern.ch")
    assert (organisation("atlas"), domain("atlas")) == ("atlas", "")
