"""A store whose external data is somewhere else (spec 24)."""

from outcrop.storage.store import ObjectStore, Sink


class WithExternal:
    """Reads objects from one store and external data through another; implements `ObjectStore`."""

    def __init__(self, store: ObjectStore, external: ObjectStore) -> None:
        self._store = store
        self._external = external

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """From the first store."""
        self._store.fetch(name, sink, byte_range=byte_range)

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """From the second."""
        self._external.fetch_external(url_path, sink, byte_range=byte_range)

    def close(self) -> None:
        """Close both."""
        self._store.close()
        self._external.close()
