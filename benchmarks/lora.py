"""What a DPO step costs with adapters and without, and what a base in fewer bits changes.

    python -m benchmarks.lora [--rounds 9] [--width 256] [--layers 4] [--vocabulary 4096]

Steps take turns within a round; medians over rounds. Memory is that of the state (parameters,
frozen ones included, and the optimizer's) and what XLA says that a step needs beside it. The errors
are of logits of random tokens, relative to their standard deviation, on random weights.

Takes a minute on two cores.
"""

import argparse
import functools
import statistics
import time

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.preferences import PairLogps, PreferenceBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.losses import DPO
from jaxalign.models.functions import text_logps
from jaxalign.models.lora import ADAPTERS, Adapted, adapter_scale, new_adapters, split
from jaxalign.models.quantised import PRECISIONS, quantised
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.recipes.optimizer import optimizer_of
from jaxalign.train.step import initial_state, train_step

ROWS, LENGTH, RANK = 16, 64, 8


def side(seed: int, vocabulary: int) -> TokenBatch:
    """Random texts of which the second half is the response."""
    tokens = np.random.default_rng(seed).integers(0, vocabulary, (ROWS, LENGTH), np.int32)
    response = np.broadcast_to(np.arange(LENGTH) >= LENGTH // 2, tokens.shape)
    index = np.arange(ROWS, dtype=np.int32)
    return TokenBatch(tokens=tokens, prompt_mask=~response, response_mask=response, index=index)


def adapted(model: Transformer, params: dict, base: str):
    """The model with new adapters on that base."""
    config, key = LoraConfig(rank=RANK), jax.random.key(1)
    adapters = new_adapters(params, model.config, config.targets, rank=RANK, key=key)
    scale = adapter_scale(RANK, config.alpha)
    return Adapted(transformer=model, scale=scale), quantised(params, base) | {ADAPTERS: adapters}


class Step:
    """A compiled DPO step and its state."""

    def __init__(self, model, params, batch):
        optimizer = optimizer_of(OptimizerConfig(learning_rate=1e-4), 1000)
        loss = objectives.paired(text_logps(model), DPO)
        trained, frozen = split(model, params)
        state = initial_state(trained, optimizer, jax.random.key(0), frozen=frozen)
        self.state, self.batch = jax.device_put(state), jax.device_put(batch)
        self.trained = sum(x.size for x in jax.tree.leaves(trained))
        self.bytes = sum(x.nbytes for x in jax.tree.leaves((params, state.opt_state)))
        step = jax.jit(
            functools.partial(train_step, loss_fn=loss, optimizer=optimizer), donate_argnums=0
        )
        self.run = step.lower(self.state, self.batch).compile()
        self.temporary = self.run.memory_analysis().temp_size_in_bytes

    def __call__(self) -> float:
        """Milliseconds of one step."""
        start = time.perf_counter()
        self.state, metrics = self.run(self.state, self.batch)
        jax.block_until_ready(metrics)
        return 1e3 * (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("rounds", 9), ("width", 256), ("layers", 4), ("vocabulary", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    config = TransformerConfig(
        vocab_size=args.vocabulary,
        max_length=LENGTH,
        width=args.width,
        layers=args.layers,
        mlp_width=round(args.width / 3) * 8,
    )
    model, (chosen, rejected) = Transformer(config), (side(i, args.vocabulary) for i in (0, 1))
    params = jax.device_get(model.init(jax.random.key(0), chosen.tokens[:1], chosen.mask[:1]))
    params = params["params"]
    zeros = np.zeros(ROWS, np.float32)
    batch = PreferenceBatch(
        chosen=chosen,
        rejected=rejected,
        reference=PairLogps(chosen=zeros, rejected=zeros),
        weights=zeros + 1,
    )
    models = {"all parameters": (model, params)}
    models |= {f"rank {RANK}, base {base}": adapted(model, params, base) for base in PRECISIONS}
    steps = {name: Step(*given, batch) for name, given in models.items()}
    times = [[step() for step in steps.values()] for _ in range(args.rounds + 1)][1:]
    exact = logits_of(model, params, chosen)
    print(f"{ROWS} pairs of {LENGTH} tokens on {jax.devices()[0].device_kind}, {vars(args)}\n")
    print("| trained | step, ms | trained parameters | state, MiB | beside it, MiB | error |")
    print("|:--|--:|--:|--:|--:|--:|")
    for (name, step), spent in zip(steps.items(), zip(*times, strict=True), strict=True):
        error = np.abs(logits_of(*models[name], chosen) - exact)
        relative = np.sqrt(np.mean(error**2)) / exact.std()
        print(
            f"| {name} | {statistics.median(spent):.0f} | {step.trained:,} "
            f"| {step.bytes / 2**20:.1f} | {step.temporary / 2**20:.1f} | {relative:.2g} |"
        )


def logits_of(model, params, rows: TokenBatch) -> np.ndarray:
    """`[B, T, V]`."""
    forward = jax.jit(lambda params: model.apply({"params": params}, rows.tokens, rows.mask).logits)
    return np.asarray(forward(params))


if __name__ == "__main__":
    main()
