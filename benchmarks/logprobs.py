"""Token log-probabilities with a large vocabulary: fused against dense, time and peak memory.

    python -m benchmarks.logprobs [--vocabulary 50257] [--tokens 1024] [--width 512]

Forward and gradient of both hidden states and unembedding, float32. `temporaries` is XLA's own
account of scratch memory; `resident` is the growth of the largest resident set of a fresh process
when it steps.

Takes half a minute on two cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial

ROUNDS = 3


def make_step(kind: str, chunk_size: int):
    import jax

    from jaxalign import fused_token_logps, token_logps

    def total(hidden, unembedding, tokens):
        if kind == "dense":
            return token_logps(hidden @ unembedding, tokens).sum()
        return fused_token_logps(hidden, unembedding, tokens, chunk_size=chunk_size).sum()

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))


def resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind: str, chunk_size: int, vocabulary: int, tokens: int, width: int) -> dict:
    """One process, one form: seconds (best of several), temporaries and resident memory in MiB."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (4, tokens // 4, width))
    unembedding = jax.random.normal(keys[1], (width, vocabulary)) / width**0.5
    ids = jax.random.randint(keys[2], (4, tokens // 4), 0, vocabulary)
    arrays = jax.block_until_ready((hidden, unembedding, jnp.asarray(ids)))
    compiled = make_step(kind, chunk_size).lower(*arrays).compile()
    before = resident_mib()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": min(seconds),
        "temporaries": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "resident": resident_mib() - before,
    }


def in_fresh_process(kind: str, chunk_size: int, sizes: list[str]) -> dict:
    command = [sys.executable, "-m", "benchmarks.logprobs", *sizes]
    command += ["--only", kind, "--chunk-size", str(chunk_size)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def table(run) -> list[str]:
    rows = [("dense", 0), ("fused", 128), ("fused", 512)]
    results = [run(kind, chunk_size) for kind, chunk_size in rows]
    lines = ["form         seconds   ratio   temporaries MiB   ratio   resident MiB   ratio"]
    for (kind, chunk_size), row in zip(rows, results, strict=True):
        ratio = {name: row[name] / results[0][name] for name in row}
        lines.append(
            f"{kind:<6}{chunk_size or '':>6} {row['seconds']:>8.3f} {ratio['seconds']:>7.2f}"
            f" {row['temporaries']:>17.0f} {ratio['temporaries']:>7.2f}"
            f" {row['resident']:>14.0f} {ratio['resident']:>7.2f}"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--only", choices=("dense", "fused"))
    parser.add_argument("--chunk-size", type=int, default=128)
    args = parser.parse_args()
    sizes = {name: getattr(args, name) for name in ("vocabulary", "tokens", "width")}
    if args.only:
        print(json.dumps(measure(args.only, args.chunk_size, **sizes)))
        return
    flags = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    print("\n".join(table(partial(in_fresh_process, sizes=flags))))


if __name__ == "__main__":
    main()
