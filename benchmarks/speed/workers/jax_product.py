"""A product of two large matrices by XLA: what it gets out of the machine."""

import jax
import jax.numpy as jnp

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import PRODUCTS, SIDE


def main() -> None:
    product = jax.jit(jnp.matmul)
    left, right = (jax.random.normal(jax.random.key(seed), (SIDE, SIDE)) for seed in (0, 1))
    pace = Pace(warm_up=2)
    while True:
        pace()
        for _ in range(PRODUCTS):
            product(left, right).block_until_ready()


if __name__ == "__main__":
    main()
