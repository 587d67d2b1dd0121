"""Tunix's trainers on a small model: one update by plain gradient descent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.rl import algo_core, common
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix.rl.trainer import Trainer
from tunix.sft import peft_trainer
from tunix.sft.dpo import dpo_trainer
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from benchmarks.conformance.peers import data


class CausalModel(nnx.Module):
    """Each position sees itself, its place and the mean of what its attention mask lets it see."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)

        def matrix(*shape):
            return nnx.Param(jnp.float32(rng.normal(0, 0.5, shape)))

        self.embedding = matrix(data.VOCABULARY, data.WIDTH)
        self.places = matrix(data.POSITIONS, data.WIDTH)
        self.readout = matrix(data.WIDTH, data.VOCABULARY)

    def __call__(self, tokens, positions, cache, attention_mask):
        embedded = self.embedding[...][tokens] + self.places[...][positions]
        seen = attention_mask.astype(jnp.float32)
        mean = seen @ embedded / jnp.maximum(seen.sum(-1, keepdims=True), 1)
        return jnp.tanh(embedded + mean) @ self.readout[...], None


def padded(rows, width, left=False):
    ids, mask = np.full((len(rows), width), data.PAD), np.zeros((len(rows), width), np.int32)
    for b, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(len(row))
        ids[b, where], mask[b, where] = row, 1
    return ids, mask


def widths(more: bool) -> tuple[int, int]:
    """Of prompts and responses."""
    return (9, 15) if more else (5, 9)


def parts_of(batch, parts):
    rows = len(jax.tree.leaves(batch)[0])
    size = rows // parts
    return [
        jax.tree.map(lambda x, start=start: x[start : start + size], batch)
        for start in range(0, rows, size)
    ]


def config_of(kind, micro_batches, **more):
    return kind(
        eval_every_n_steps=100,
        max_steps=1,
        gradient_accumulation_steps=micro_batches if micro_batches > 1 else None,
        **more,
    )


def update(trainer, batches):
    """What the step subtracts."""

    def flat():
        leaves = jax.tree.leaves(nnx.state(trainer.model, nnx.Param))
        return np.concatenate([np.ravel(leaf) for leaf in leaves])

    before = flat()
    trainer.train(batches)
    return before - flat()


def sft_gradient(micro_batches, more):
    """Prompts as well as responses are trained on, as the mask says what is real."""
    rows = [p + r for p, r in zip(data.PROMPTS, data.CHOSEN, strict=True)]
    ids, mask = padded(rows, sum(widths(more)))
    config = config_of(peft_trainer.TrainingConfig, micro_batches)
    trainer = peft_trainer.PeftTrainer(CausalModel(), optax.sgd(1.0), config)
    trainer.with_gen_model_input_fn(
        lambda x: {
            "input_tokens": x.input_tokens,
            "input_mask": x.input_mask,
            "positions": build_positions_from_mask(x.input_mask),
            "attention_mask": make_causal_attn_mask(x.input_mask.astype(bool)),
        }
    )
    batch = peft_trainer.TrainingInput(input_tokens=ids, input_mask=mask)
    return update(trainer, parts_of(batch, micro_batches))


def dpo_gradient(micro_batches, more):
    prompt, response = widths(more)
    fields = {}
    for name, rows, width in (
        ("prompt", data.PROMPTS, prompt),
        ("chosen", data.CHOSEN, response),
        ("rejected", data.REJECTED, response),
    ):
        ids, mask = padded(rows, width, left=name == "prompt")
        fields |= {f"{name}_ids": ids, f"{name}_mask": mask}
    config = config_of(dpo_trainer.DPOTrainingConfig, micro_batches)
    trainer = dpo_trainer.DPOTrainer(CausalModel(), CausalModel(1), optax.sgd(1.0), config)
    batch = dpo_trainer.TrainingInput(**fields)
    return update(trainer, parts_of(batch, micro_batches))


def grpo_gradient(micro_batches, more):
    """The trainer as GRPOLearner sets it up, on experience that is given."""
    prompt, response = widths(more)
    prompts, prompt_mask = padded(data.GROUP_PROMPTS, prompt, left=True)
    completions, mask = padded(data.CHOSEN, response)
    advantages = algo_core.compute_advantages(np.array(data.GROUP_REWARDS), 2)
    batch = common.TrainExample(
        prompt_ids=prompts,
        prompt_mask=prompt_mask,
        completion_ids=completions,
        completion_mask=mask,
        advantages=advantages.astype(np.float32),
        ref_per_token_logps=None,
        old_per_token_logps=None,
    )
    config = GRPOConfig(beta=0.0)
    config.temperature = 1.0
    training = config_of(peft_trainer.TrainingConfig, micro_batches)
    trainer = Trainer(CausalModel(), optax.sgd(1.0), training, dict)
    trainer.with_loss_fn(
        lambda model, train_example: algo_core.grpo_loss_fn(
            model, train_example, config, data.PAD, data.EOS
        ),
        has_aux=True,
    )
    trainer.with_gen_model_input_fn(lambda x: {"train_example": x})
    return update(trainer, parts_of(batch, micro_batches))


def left_padded_logps(padding):
    prompt, response = data.PROMPTS[1], data.CHOSEN[1]
    graph, state = nnx.split(CausalModel())
    logps = common.compute_per_token_logps(
        graph,
        state,
        prompt_tokens=jnp.array([[data.PAD] * padding + prompt]),
        completion_tokens=jnp.array([response]),
        pad_id=data.PAD,
        eos_id=data.EOS,
    )
    return np.asarray(logps)[0]


FUNCTIONS = {
    "sft_gradient": (sft_gradient, "sft.peft_trainer.PeftTrainer.train"),
    "dpo_gradient": (dpo_gradient, "sft.dpo.dpo_trainer.DPOTrainer.train"),
    "grpo_gradient": (grpo_gradient, "rl.trainer.Trainer.train, rl.algo_core.grpo_loss_fn"),
    "left_padded_logps": (left_padded_logps, "rl.common.compute_per_token_logps"),
}
