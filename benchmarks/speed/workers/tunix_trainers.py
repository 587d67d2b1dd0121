"""Tunix's DPO trainer."""

import jax
import numpy as np
import optax
from tunix.sft import hooks, peft_trainer
from tunix.sft.dpo import dpo_trainer

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import Size, Work, rows_of
from benchmarks.speed.workers.arguments import parse
from benchmarks.speed.workers.tunix_models import causal


class Paced(hooks.TrainingHooks):
    """A unit is what lies between two beginnings of a step, the computation ended."""

    def __init__(self, pace: Pace):
        self.pace = pace

    def on_train_start(self, train_ctx):
        pass

    def on_train_end(self, train_ctx):
        pass

    def on_train_step_start(self, train_ctx):
        jax.block_until_ready(jax.tree.leaves(peft_trainer.nnx.state(train_ctx.model)))
        self.pace()

    def on_train_step_end(self, train_ctx, train_step, train_loss, *more):
        pass

    def on_eval_step_start(self, train_ctx):
        pass

    def on_eval_step_end(self, train_ctx, eval_loss):
        pass


def optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-5))


def batches(work: Work, size: Size, make):
    """Endless batches of `work.rows` rows."""
    rows = np.array(rows_of(work, size, 16 * work.rows), np.int32)
    others = np.array(rows_of(work, size, 16 * work.rows, 1), np.int32)
    while True:
        for start in range(0, len(rows), work.rows):
            part = slice(start, start + work.rows)
            yield make(rows[part], others[part])


def dpo(work: Work, size: Size, trainer_hooks) -> None:
    def make(rows, others):
        prompts, chosen, rejected = (
            rows[:, : work.prompt], rows[:, work.prompt :], others[:, work.prompt :]
        )  # fmt: skip
        ones = {name: np.ones_like(x) for name, x in (
            ("prompt_mask", prompts), ("chosen_mask", chosen), ("rejected_mask", rejected)
        )}  # fmt: skip
        ids = {"prompt_ids": prompts, "chosen_ids": chosen, "rejected_ids": rejected}
        return dpo_trainer.TrainingInput(**ids, **ones)

    config = dpo_trainer.DPOTrainingConfig(eval_every_n_steps=10**9, max_steps=10**6, beta=0.1)
    trainer = dpo_trainer.DPOTrainer(causal(size), causal(size), optimizer(), config)
    trainer.with_training_hooks(trainer_hooks)
    trainer.train(batches(work, size, make))


def main() -> None:
    work, size, _ = parse()
    dpo(work, size, Paced(Pace(warm_up=3)))


if __name__ == "__main__":
    main()
