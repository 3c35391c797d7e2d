"""Bytes and rows to try parsers with: made up, and valid ones damaged."""

from collections.abc import Callable, Iterator

from hypothesis import strategies as st

from outcrop.errors import OutcropError

cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=40),
    st.text(max_size=20),
)
"""What a cell of a SQLite file may hold."""


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """A valid input with a part replaced, dropped or doubled."""

    def damage(parts: tuple[int, int, bytes]) -> bytes:
        start, end, inserted = parts
        return valid[: min(start, end)] + inserted + valid[max(start, end) :]

    positions = st.integers(0, len(valid))
    return st.tuples(positions, positions, st.binary(max_size=8)).map(damage)


def inputs(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and damaged copies of valid ones."""
    return st.one_of(st.binary(max_size=200), *(damaged(example) for example in valid))


def gives_value_or(
    error: type[OutcropError], parse: Callable[[bytes], object], data: bytes
) -> bool:
    """Whether it parsed. The error, with a message, is the only other way out."""
    try:
        parse(data)
    except error as raised:
        assert str(raised)
        return False
    return True


def flipped(data: bytes) -> Iterator[bytes]:
    """Copies with one byte changed, at every position."""
    for position in range(len(data)):
        yield data[:position] + bytes((data[position] ^ 0x01,)) + data[position + 1 :]


def truncated(data: bytes) -> Iterator[bytes]:
    """Copies cut short, at every length."""
    for length in range(len(data)):
        yield data[:length]
