from collections.abc import Callable, Sequence

from outcrop.fuse.view import Extent, Row, StatFs

class Core:
    """The engine in C; use outcrop.fuse.engine.Engine."""

    def __init__(
        self,
        device: int,
        root: Callable[[], Row],
        list_directory: Callable[[bytes], Sequence[tuple[object, ...]]],
        open_extent: Callable[[bytes, int, bytes, int, int], Extent],
        list_xattrs: Callable[[bytes], Sequence[bytes]],
        get_xattr: Callable[[bytes, bytes], bytes],
        statfs: Callable[[], StatFs],
        report: Callable[[str, bytes, BaseException], int],
        log: Callable[[bytes, str], None],
        stopping: Callable[[], None],
        *,
        object_directory_fd: int,
        timeout_ns: int,
        threads: int,
        max_threads: int,
        max_rows: int,
        max_extents: int,
        use_no_open: bool,
    ) -> None: ...
    def serve(self) -> None: ...
    def stop(self) -> None: ...
    def tree_changed(self) -> None: ...
    def statistics(self) -> dict[str, int]: ...
    def close(self) -> None: ...
