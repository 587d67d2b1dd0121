"""Tokens a second of sampling and of supervised training, for a model of a given size.

    python -m benchmarks.sampling [--width 96] [--layers 2] [--vocabulary 8000] [--rows 256]

By default the main job's model and sizes. Random weights, float32, AdamW. Sampling counts new
tokens (no text ends early), training counts all tokens of its rows. Shown are the median and the
spread of ten rounds, after compilation.

Takes 20 seconds on two cores.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.models.functions import text_logps
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.objectives import sft
from jaxalign.sampling import sample
from jaxalign.system.memory import keep_freed_memory
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import initial_state, train_step

ROUNDS = 10


def flags() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {
        "width": 96, "layers": 2, "heads": 4, "kv-heads": 4, "vocabulary": 8000,
        "rows": 256, "prompt": 6, "new": 34, "train-rows": 20, "train-length": 40,
        "micro-batches": 2,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--dropout", type=float, default=0.1, help="in training; default 0.1")
    parser.add_argument("--top-p", type=float, default=1.0, help="of sampling; default 1 (all)")
    return parser.parse_args()


def model_of(args: argparse.Namespace) -> Transformer:
    """A Llama-like policy of the given size."""
    return Transformer(
        TransformerConfig(
            vocab_size=args.vocabulary,
            max_length=max(args.prompt + args.new, args.train_length),
            width=args.width,
            layers=args.layers,
            heads=args.heads,
            kv_heads=args.kv_heads,
            mlp_width=args.width * 8 // 3,
            dropout=args.dropout,
        )
    )


def random_rows(rows: int, prompt: int, response: int, vocabulary: int) -> TokenBatch:
    """Random texts without padding."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, (rows, prompt + response))
    is_prompt = np.broadcast_to(np.arange(prompt + response) < prompt, tokens.shape)
    return TokenBatch(
        tokens=jnp.asarray(tokens, jnp.int32),
        prompt_mask=jnp.asarray(is_prompt),
        response_mask=jnp.asarray(~is_prompt),
        index=jnp.arange(rows, dtype=jnp.int32),
    )


def seconds(run) -> np.ndarray:
    """Wall seconds of each round of `run()`, the first (compiling) one left out."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return np.array(times[1:])


def sampling_times(model: Transformer, params, args: argparse.Namespace) -> np.ndarray:
    """One pass over `rows` prompts; an id that no token has never ends a text."""
    prompts = random_rows(args.rows, args.prompt, 0, args.vocabulary)
    settings = {"max_new_tokens": args.new, "eos_id": -1, "top_p": args.top_p}
    return seconds(lambda: sample(model, params, prompts, jax.random.key(0), **settings))


def training_times(model: Transformer, params, args: argparse.Namespace) -> np.ndarray:
    """One supervised update on `train_rows` texts, all tokens trained on."""
    batch = random_rows(args.train_rows, 0, args.train_length, args.vocabulary)
    optimizer = make_optimizer(learning_rate=1e-3, total_steps=1000)
    state = initial_state(params, optimizer, jax.random.key(0))
    settings = {"optimizer": optimizer, "micro_batches": args.micro_batches}
    step = jax.jit(partial(train_step, loss_fn=sft(text_logps(model)), **settings))
    return seconds(lambda: step(state, batch))


def main():
    """Measure and print the table."""
    args = flags()
    keep_freed_memory()
    model = model_of(args)
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens, tokens == 0)["params"]
    millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    device = jax.devices()[0].device_kind
    print(f"{millions:.1f} M parameters, vocabulary {args.vocabulary}, one {device}")
    print(f"{'':20}{'tokens/s':>10}{'s median':>10}{'s min':>8}{'s max':>8}")
    for name, times, count in (
        ("sampling", sampling_times(model, params, args), args.rows * args.new),
        (
            "training (SFT)",
            training_times(model, params, args),
            args.train_rows * args.train_length,
        ),
    ):
        middle = float(np.median(times))
        rate = round(count / middle)
        print(f"{name:20}{rate:>10}{middle:>10.3f}{times.min():>8.3f}{times.max():>8.3f}")


if __name__ == "__main__":
    main()
