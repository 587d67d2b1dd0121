"""jaxalign's own commands. PPO may have a value network of its own (`--separate`), as TRL's has."""

import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import EPOCHS, GROUP, PARTS, Size, Work, rows_of
from benchmarks.speed.workers.arguments import parse
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.sft import SFTConfig
from jaxalign.data.batching import prompt_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.layouts.layout import Layout
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.recipes.grpo import train_grpo
from jaxalign.recipes.ppo import train_ppo
from jaxalign.recipes.preferences import train_dpo
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.sft import train_sft
from jaxalign.recipes.text_batches import bucketed_batches
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.sampling import sample
from jaxalign.system.memory import keep_freed_memory, return_compiler_memory

ENDLESS = 1_000_000  # steps; the starter ends the worker
NEVER = -1  # no token ends a response: all have the same length
ADAMW = OptimizerConfig(learning_rate=1e-5, schedule="constant", warmup_steps=0, b2=0.999)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PacedLayout(Layout):
    """Keeps pace at every step of a plain training, at every round of an online one."""

    pace: Pace
    by_rounds: bool

    def step(self, fn):
        run = super().step(fn)
        return run if self.by_rounds else self._paced(run)

    def rows(self, fn):
        run = super().rows(fn)
        return self._paced(run) if self.by_rounds else run

    def _paced(self, run):
        results = []

        def paced(shared, batch):
            jax.block_until_ready((shared, results))
            self.pace()
            results[:] = [run(shared, batch)]
            return results[0]

        return paced


def model_of(size: Size, length: int, **more) -> TextModel:
    config = TransformerConfig(
        vocab_size=size.vocabulary,
        max_length=length,
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        kv_heads=size.kv_heads,
        mlp_width=size.mlp_width,
        **more,
    )
    model, tokens = Transformer(config), jnp.zeros((1, 2), jnp.int32)
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0), tokens, tokens == 0)["params"])
    words = {str(i): i for i in range(size.vocabulary)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "0"))
    tokenizer = Tokenizer(backend, pad_id=0, bos_id=1, eos_id=NEVER)
    return TextModel(model=model, params=params, tokenizer=tokenizer)


def token_rows(work: Work, size: Size, count: int, seed: int = 0) -> list[TokenRow]:
    is_response = np.arange(work.length) >= work.prompt
    rows = rows_of(work, size, count, seed)
    return [TokenRow(np.array(row, np.int32), is_response) for row in rows]


def fit_config(rows: int) -> FitConfig:
    return FitConfig(steps=ENDLESS, batch_size=rows, save_every=ENDLESS, optimizer=ADAMW)


def dpo(work: Work, size: Size, run: Run, flags) -> None:
    chosen, others = (token_rows(work, size, 16 * work.rows, seed) for seed in (0, 1))
    pairs = [
        (a, TokenRow(np.append(a.tokens[: work.prompt], b.tokens[work.prompt :]), a.is_response))
        for a, b in zip(chosen, others, strict=True)
    ]
    policy = model_of(size, work.length)
    settings = DPOSettings(
        fit=dataclasses.replace(fit_config(work.rows), micro_batches=PARTS[size])
    )
    train_dpo(run, "dpo", policy, pairs, settings=settings, temperature=1.0)


def sft(work: Work, size: Size, run: Run, flags) -> None:
    rows = token_rows(work, size, 16 * work.rows)
    policy = model_of(size, work.length)
    settings = fit_config(work.rows)
    places = {"pad_id": policy.tokenizer.pad_id, "seed": run.seed}
    batches = bucketed_batches(rows, work.rows, buckets=SFTConfig().buckets, **places)
    train_sft(run, "sft", policy, batches, settings=settings)


def prompts_of(work: Work, size: Size, count: int) -> list[list[int]]:
    return [row[: work.prompt] for row in rows_of(work, size, count)]


def task_of(work: Work, size: Size, reward: TextModel) -> TextTask:
    prompts = Prompts(ids=prompts_of(work, size, 16 * work.rows))
    return TextTask(prompts=prompts, reward=reward, temperature=1.0, max_new_tokens=work.response)


def generate(work: Work, size: Size, run: Run, flags) -> None:
    policy = model_of(size, work.length)
    params, number = run.layout.place(policy.params), 0
    policy = dataclasses.replace(policy, params=None)  # one copy is enough
    prompts = prompt_batch(prompts_of(work, size, work.rows), pad_id=0)
    pace = run.layout.pace  # pyright: ignore
    while True:
        pace()
        number += 1
        jax.block_until_ready(
            sample(
                policy.model,
                params,
                prompts,
                jax.random.key(number),
                max_new_tokens=work.response,
                eos_id=NEVER,
            )
        )


def ppo(work: Work, size: Size, run: Run, flags) -> None:
    values = "separate" if flags.separate else "shared"
    policy = model_of(size, work.length, value_trunk=values)
    reward = with_heads(policy, ("score",), jax.random.key(1))
    settings = PPOSettings(
        iterations=ENDLESS,
        batch_size=work.rows,
        update_epochs=EPOCHS,
        minibatches=1,
        save_every=ENDLESS,
        optimizer=ADAMW,
    )
    train_ppo(run, "ppo", policy, task_of(work, size, reward), settings=settings)


def grpo(work: Work, size: Size, run: Run, flags) -> None:
    policy = model_of(size, work.length)
    reward = with_heads(policy, ("score",), jax.random.key(1))
    settings = GRPOSettings(
        iterations=ENDLESS,
        prompts=work.rows // GROUP,
        group_size=GROUP,
        update_epochs=1,
        minibatches=1,
        save_every=ENDLESS,
        optimizer=ADAMW,
    )
    train_grpo(run, "grpo", policy, task_of(work, size, reward), settings=settings)


def main() -> None:
    keep_freed_memory()
    return_compiler_memory()
    work, size, flags = parse("--separate")
    kinds = {"dpo": dpo, "sft": sft, "generate": generate, "ppo": ppo, "grpo": grpo}
    with (
        tempfile.TemporaryDirectory() as directory,
        open_run(Path(directory), ADAMW, PlaceConfig(layout="device"), 0) as run,
    ):
        by_rounds = work.kind in ("ppo", "grpo")
        layout = PacedLayout(**vars(run.layout), pace=Pace(warm_up=2), by_rounds=by_rounds)
        kinds[work.kind](work, size, dataclasses.replace(run, layout=layout), flags)


if __name__ == "__main__":
    main()
