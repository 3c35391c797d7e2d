import os
import threading
from pathlib import Path

import pytest

from outcrop.publisher.errors import CollectionInProgress, PublishInProgress, TransactionOpen
from outcrop.publisher.lock import TRANSACTION_LOCK, collecting_lock, publishing_lock

FQRN = "lock.example.org"


def test_a_second_publisher_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        publishing_lock(tmp_path, FQRN),
        pytest.raises(PublishInProgress, match=rf"process {os.getpid()} \(.+\)"),
        publishing_lock(tmp_path, FQRN),
    ):
        pass


def test_a_lock_that_was_given_back_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with publishing_lock(tmp_path, FQRN):
            pass


def test_an_open_transaction_is_refused_whoever_began_it(tmp_path: Path) -> None:
    (tmp_path / TRANSACTION_LOCK).write_text("1\n")
    with pytest.raises(TransactionOpen), publishing_lock(tmp_path, FQRN):
        pass


def test_who_is_in_the_transaction_gets_the_lock(tmp_path: Path) -> None:
    (tmp_path / TRANSACTION_LOCK).touch()
    with publishing_lock(tmp_path, FQRN, within_transaction=True) as at:
        assert at > 0


def test_a_refused_transaction_gives_the_lock_back(tmp_path: Path) -> None:
    (tmp_path / TRANSACTION_LOCK).touch()
    with pytest.raises(TransactionOpen), publishing_lock(tmp_path, FQRN):
        pass
    with publishing_lock(tmp_path, FQRN, within_transaction=True):
        pass


def test_waiting_ends_when_the_transaction_does(tmp_path: Path) -> None:
    lock = tmp_path / TRANSACTION_LOCK
    lock.touch()
    timer = threading.Timer(0.1, lock.unlink)
    timer.start()
    with publishing_lock(tmp_path, FQRN, wait_seconds=30):
        assert not lock.exists()
    timer.join()


def test_waiting_ends_when_the_other_publisher_does(tmp_path: Path) -> None:
    taken, done = threading.Event(), threading.Event()

    def other() -> None:
        with publishing_lock(tmp_path, FQRN):
            taken.set()
            done.wait()

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait()
    threading.Timer(0.1, done.set).start()
    with publishing_lock(tmp_path, FQRN, wait_seconds=30):
        assert done.is_set()
    thread.join()


def test_waiting_does_not_go_on_for_ever(tmp_path: Path) -> None:
    (tmp_path / TRANSACTION_LOCK).touch()
    with pytest.raises(TransactionOpen), publishing_lock(tmp_path, FQRN, wait_seconds=0.1):
        pass


def test_a_check_and_a_collection_exclude_each_other_but_not_a_publish(tmp_path: Path) -> None:
    with (
        collecting_lock(tmp_path, FQRN),
        publishing_lock(tmp_path, FQRN),
        pytest.raises(CollectionInProgress, match="garbage"),
        collecting_lock(tmp_path, FQRN),
    ):
        pass


def test_what_fails_under_a_lock_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    with pytest.raises(PublishInProgress, match="mine"), collecting_lock(tmp_path, FQRN):
        raise PublishInProgress("mine")


def test_a_process_forked_off_holds_no_lock_longer_than_its_parent(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with publishing_lock(tmp_path, FQRN):
        child = os.fork()
        if child == 0:
            os.read(reader, 1)
            os._exit(0)
    try:
        with publishing_lock(tmp_path, FQRN):
            pass
    finally:
        os.write(writer, b"x")
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
