"""What each preference loss costs: one jitted value and gradient, relative to plain DPO's.

    python -m benchmarks.losses [--rounds 15] [--length 40] [--vocabulary 4096]

Batches of 64 pairs (64 labelled answers, 64 KTO rows with 64 mismatched ones) through the
objectives on the default small transformer. Losses take turns within a round, so that a machine
that slows down slows all of them; medians over rounds, and medians of each round's ratio to DPO.
The results go to benchmarks/results/losses.md.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

BATCH = 64
RESULTS = Path(__file__).parent / "results" / "losses.md"


def make_cases(length: int, vocabulary: int) -> list[tuple[str, str, object, tuple]]:
    """`(name, kind, loss_fn, (params, batch, key, ...))`; further losses are further entries."""
    import jax
    import numpy as np

    from jaxalign import objectives
    from jaxalign.batches import PairLogps, PreferenceBatch, TokenBatch, UnpairedBatch
    from jaxalign.models.transformer import Transformer, TransformerConfig
    from jaxalign.scoring import text_logps

    model = Transformer(
        TransformerConfig(
            vocab_size=vocabulary,
            max_length=length,
            heads_out=("logits",),
            width=128,
            layers=2,
            heads=4,
            kv_heads=4,
            mlp_width=344,
        )
    )
    rng, key = np.random.default_rng(0), jax.random.key(0)

    def texts() -> TokenBatch:
        lengths = rng.integers(length // 2, length + 1, BATCH)
        real = np.arange(length) < lengths[:, None]
        prompt = real & (np.arange(length) < 4)
        arrays = {
            "tokens": rng.integers(0, vocabulary, (BATCH, length)).astype(np.int32),
            "prompt_mask": prompt,
            "response_mask": real & ~prompt,
            "index": np.arange(BATCH, dtype=np.int32),
        }
        return TokenBatch(**{name: jax.device_put(array) for name, array in arrays.items()})

    def logps():
        return jax.device_put(-8.3 * length + rng.normal(size=BATCH).astype(np.float32))

    weights = jax.device_put(np.ones(BATCH, np.float32))
    pairs = PreferenceBatch(
        chosen=texts(),
        rejected=texts(),
        gold=texts(),
        reference=PairLogps(chosen=logps(), rejected=logps()),
        weights=weights,
    )
    singles = UnpairedBatch(
        responses=texts(),
        labels=jax.device_put(rng.random(BATCH) < 0.5),
        reference=logps(),
        weights=weights,
        mismatched=texts(),
        mismatched_reference=logps(),
    )
    rows = pairs.chosen
    params = jax.jit(model.init)(key, rows.tokens, rows.mask)["params"]
    token_logps = text_logps(model)
    cases = []
    for name in objectives.PAIR_LOSSES:
        loss = objectives.paired(token_logps, name)
        cases.append((name, "pairs", loss, (params, pairs, key)))
    for name, modifier in (("ld_dpo", {"ld_alpha": 0.5}), ("wpo", {"wpo": True})):
        loss = objectives.paired(token_logps, "dpo", **modifier)
        cases.append((f"dpo with {name}", "pairs", loss, (params, pairs, key)))
    for name in objectives.UNPAIRED_LOSSES:
        loss = objectives.unpaired(token_logps, name)
        cases.append((name, "labelled answers", loss, (params, singles, key)))
    return cases


def measure(cases, rounds: int) -> list[tuple[str, str, float, float]]:
    """Median milliseconds and median ratio to the first case, for each."""
    import jax

    steps = []
    for _, _, loss_fn, arguments in cases:
        step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        jax.block_until_ready(step(*arguments))
        steps.append(step)
    seconds = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        taken = []
        for step, (_, _, _, arguments) in zip(steps, cases, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            taken.append(time.perf_counter() - start)
        seconds.append(taken)
    return [
        (
            name,
            kind,
            1e3 * statistics.median(taken[i] for taken in seconds),
            statistics.median(taken[i] / taken[0] for taken in seconds),
        )
        for i, (name, kind, _, _) in enumerate(cases)
    ]


def page(rows, command: str) -> str:
    """The results as Markdown."""
    import jax

    machine = f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}"
    lines = [
        "# What a preference loss costs",
        "",
        f"`{command}`; {machine}, jax {jax.__version__}. Value and gradient of one batch of "
        f"{BATCH}, medians; the ratio is to plain DPO in the same round.",
        "",
        "| loss | rows | ms | ratio |",
        "|:--|:--|--:|--:|",
        *(f"| {name} | {kind} | {ms:.1f} | {ratio:.2f} |" for name, kind, ms, ratio in rows),
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--vocabulary", type=int, default=4096)
    args = parser.parse_args()
    flags = "".join(f" --{name} {value}" for name, value in vars(args).items())
    rows = measure(make_cases(args.length, args.vocabulary), args.rounds)
    text = page(rows, f"python -m benchmarks.losses{flags}")
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
