"""What a worker is told."""

import argparse

from benchmarks.speed.work import SIZES, WORKS, Size, Work


def parse(*flags: str) -> tuple[Work, Size, argparse.Namespace]:
    """Work, size, and flags such as `--compile`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("size", choices=SIZES)
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    return WORKS[args.work], SIZES[args.size], args
