"""Running something in a child process that dies at its N-th dealing with the operating system.

Python announces file operations to audit hooks; the child's hook counts those that matter and at
the N-th kills the process, as a power switch would. Store writes, scratch files, databases, locks:
nothing is missed and nothing needs to be wrapped.
"""

import os
import signal
import sys
from collections.abc import Callable

_EVENTS = frozenset(
    (
        "open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "os.link",
        "sqlite3.connect", "fcntl.flock", "shutil.rmtree", "tempfile.mkdtemp",
    )
)  # fmt: skip


def run_until(number: int, action: Callable[[], object]) -> bool:
    """Run in a child that dies at its `number`-th operation; whether it got through instead.

    Raises AssertionError if the action fails in another way.
    """
    child = os.fork()
    if child == 0:
        _run_in_child(number, action)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the child failed: see its traceback above"
    return True


def _run_in_child(number: int, action: Callable[[], object]) -> None:
    operations = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal operations
        if event not in _EVENTS or (event == "open" and not _is_ours(arguments[0])):
            return
        operations += 1
        if operations == number:
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(count)
        action()
        status = 0
    except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _is_ours(path: object) -> bool:
    """Not a module or a file of the system, which would only make the test longer."""
    return isinstance(path, str | bytes) and not os.fsdecode(path).endswith((".py", ".pyc", ".so"))
