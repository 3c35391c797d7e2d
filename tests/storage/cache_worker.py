"""A process that opens objects from a shared cache for ever; run by test_cache_processes.py.

Arguments: cache directory, quota in bytes, seed, number of objects. Prints `ready` once it runs,
then a line for whatever is wrong. Ends when standard input does.
"""

import os
import random
import sys
import threading
import zlib
from pathlib import Path

from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef
from outcrop.storage.cache import Cache
from outcrop.storage.memory import MemoryStore


def make_objects(number: int) -> list[tuple[ObjectRef, bytes, bytes]]:
    """The same objects in every process: reference, plain bytes, stored bytes."""
    made = []
    for index in range(number):
        plain = random.Random(index).randbytes(1000 + index * 37 % 3000)
        stored = zlib.compress(plain)
        ref = ObjectRef(ContentHash.of(stored, HashAlgorithm.SHA1), size=len(plain))
        made.append((ref, plain, stored))
    return made


def work(cache: Cache, seed: int, number: int, stop: threading.Event) -> None:
    made = make_objects(number)
    opener = cache.opener(MemoryStore({ref.path: stored for ref, _, stored in made}))
    chance = random.Random(seed)
    pins: list[tuple[int, ObjectRef]] = []
    while not stop.is_set():
        ref, plain, _ = chance.choice(made)
        pin = chance.random() < 0.05
        fd = opener.open_object(ref, pin=pin)
        if os.pread(fd, len(plain) + 1, 0) != plain:
            say(f"wrong bytes: {ref.path}")
        if pin:
            pins.append((fd, ref))
        else:
            os.close(fd)
        if len(pins) > 3:
            old, _ = pins.pop(0)
            os.close(old)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    directory, quota, seed, number = sys.argv[1:]
    cache = Cache(Path(directory), quota_bytes=int(quota))
    stop = threading.Event()
    threads = [
        threading.Thread(target=work, args=(cache, int(seed) * 10 + index, int(number), stop))
        for index in range(2)
    ]
    for thread in threads:
        thread.start()
    say("ready")
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    cache.close()


if __name__ == "__main__":
    main()
