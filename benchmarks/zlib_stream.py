"""`tar … | python zlib_stream.py`: deflate stdin at level 6, print how many bytes came out."""

import sys
import zlib


def main() -> None:
    compressor = zlib.compressobj(6)
    size = 0
    while block := sys.stdin.buffer.read(1 << 20):
        size += len(compressor.compress(block))
    print(size + len(compressor.flush()))


if __name__ == "__main__":
    main()
