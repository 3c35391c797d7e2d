"""`python launch.py REPORT COMMAND…`: run a command; what it took goes to REPORT as JSON.

A process of its own, because Linux begins a child's peak memory with that of the process it was
started from: a run of all benchmarks holds more than some of the commands it measures.
"""

import json
import os
import sys
import time


def main() -> int:
    report, *command = sys.argv[1:]
    start = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    with open(report, "w", encoding="ascii") as file:
        json.dump([usage.ru_utime, usage.ru_stime, wall, usage.ru_maxrss * 1024], file)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
