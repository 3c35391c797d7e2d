"""Files about bundles: what they may say, and that nothing else gets through."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.errors import FormatError
from outcrop.formats import bundles
from outcrop.formats.bundles import BUNDLES, Bundle, check_bundle_file, is_bundle_name

RIGHT = {
    "name": "CVMFS_BUNDLE",
    "version": "1.0.0",
    "encoding": "UTF-8",
    "dependencies": ["/lib/a.so", "/lib/ü"],
}


def text(**changes: object) -> bytes:
    values = {**RIGHT, **changes}
    return json.dumps({key: value for key, value in values.items() if value is not ...}).encode()


def test_a_bundle_lists_paths() -> None:
    assert Bundle.parse(text()).dependencies == (b"/lib/a.so", "/lib/ü".encode())
    assert Bundle.parse(text(dependencies=[], more=1, version="1.2")).dependencies == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "OTHER"}, "name is 'OTHER'"),
        ({"name": ...}, "name is NoneType"),
        ({"version": "2.0.0"}, "version is '2.0.0'"),
        ({"version": 1}, "version is int"),
        ({"encoding": "latin-1"}, "encoding is 'latin-1'"),
        ({"dependencies": ...}, "no list of dependencies"),
        ({"dependencies": "/a"}, "no list of dependencies"),
        ({"dependencies": ["/a", 3]}, "int is no path"),
        ({"dependencies": ["a"]}, "'a' is no absolute path"),
        ({"dependencies": ["/"]}, "'/' is no absolute path"),
        ({"dependencies": ["/a//b"]}, "no absolute path"),
        ({"dependencies": ["/a/../b"]}, "no absolute path"),
        ({"dependencies": ["/a\0"]}, "no absolute path"),
        ({"dependencies": ["/" + "a" * 5000]}, "no absolute path"),
        ({"dependencies": ["/\ud800"]}, "half a character"),
    ],
)
def test_what_is_no_bundle_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(FormatError, match="file bundle: ") as error:
        Bundle.parse(text(**changes))
    assert said in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe{}", b"NaN", b"[Infinity]", b"[" * 100_000, b'{"a":1} x', b"'a'"]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    for name in (BUNDLES, b".cvmfsbundle-x"):
        with pytest.raises(FormatError, match="file bundle: no "):
            check_bundle_file(name, data)


@pytest.mark.parametrize("data", [b"[]", b'{"a": [1, 2.5, null]}', b"1" * 10_000, b"3"])
def test_the_file_of_the_whole_repository_is_any_json(data: bytes) -> None:
    check_bundle_file(BUNDLES, data)


def test_files_of_any_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_BYTES", 10)
    with pytest.raises(FormatError, match="more than 10 bytes"):
        check_bundle_file(BUNDLES, b" " * 11)
    monkeypatch.undo()
    monkeypatch.setattr(bundles, "MAX_DEPENDENCIES", 1)
    with pytest.raises(FormatError, match="2 dependencies"):
        Bundle.parse(text())


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.one_of(st.none(), st.integers(), st.text(max_size=5), st.booleans()),
            lambda below: st.lists(below, max_size=3),
        ).map(lambda value: json.dumps(value).encode()),
        st.dictionaries(
            st.sampled_from(sorted(RIGHT)),
            st.one_of(st.sampled_from(list(RIGHT.values())), st.lists(st.text(max_size=5)))
        ).map(lambda value: json.dumps(value).encode()),
    )
)  # fmt: skip
def test_any_bytes_are_a_bundle_or_a_format_error(data: bytes) -> None:
    try:
        found = Bundle.parse(data)
    except FormatError:
        return
    assert all(path.startswith(b"/") and b"\0" not in path for path in found.dependencies)
    said = json.loads(data)
    assert [path.decode() for path in found.dependencies] == said["dependencies"]


def test_names() -> None:
    assert is_bundle_name(b".cvmfsbundles")
    assert is_bundle_name(b".cvmfsbundle-python3")
    assert not is_bundle_name(b".cvmfsbundle")
    assert not is_bundle_name(b".cvmfsbundles2")
