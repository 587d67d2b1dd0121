"""A product of two large matrices by torch: what it gets out of the machine."""

import torch

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import PRODUCTS, SIDE


def main() -> None:
    left, right = (torch.randn(SIDE, SIDE) for _ in range(2))
    out, pace = torch.empty(SIDE, SIDE), Pace(warm_up=2)
    while True:
        pace()
        for _ in range(PRODUCTS):
            torch.matmul(left, right, out=out)


if __name__ == "__main__":
    main()
