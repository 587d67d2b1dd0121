"""What all methods of `jaxalign explain` share: the batch, its models, what a step needs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.config.defaults import filled_optimizer
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import batch_indices
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.explanation import Explanation
from jaxalign.losses.declarations import Loss
from jaxalign.models.functions import response_logps_of
from jaxalign.models.transformer import LanguageModel
from jaxalign.numerics.types import Tree
from jaxalign.recipes.preferences import running_mean
from jaxalign.recipes.stage import optimizer_of
from jaxalign.recipes.text_models import TextModel, load_text_model, start_of, with_heads
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.step import TrainState, initial_state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift:
    """The running mean of rewards that BCO's losses subtract; empty for all others.

    statistics: before the batch. track: as in `train_step`. notes: where the statistics are from,
    for the page.
    """

    statistics: Any = None
    track: Callable | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch with all that a step on it needs.

    params: of the policy. batch: of the method. model: what the objective reads.
    make_loss: `model -> loss_fn`. watch: the model with conditions, for `--check`.
    explain: `(state, key) -> Explanation`. optimizer: of the method's settings.
    shift: of a loss that reads a running mean of rewards.
    measure: as in `train_step`, of a loss that reads such a sum.
    """

    tokenizer: Tokenizer
    params: Any
    batch: Any
    model: Callable
    make_loss: Callable
    explain: Callable[[TrainState, jax.Array], Explanation]
    optimizer: OptimizerConfig
    watch: Callable[[Callable], Callable] = lambda model: model
    shift: Shift = Shift()
    measure: Callable | None = None


def chosen_rows(config: ExplainConfig, rows: Sequence, kind: str) -> tuple[list, np.ndarray]:
    """The rows of that batch in the order of a run with this seed."""
    if not rows:
        raise UserError(f"--data.path {config.data.path} holds no {kind}")
    index = batch_indices(config.batch, len(rows), config.rows, config.seed)
    return [rows[i] for i in index], index


def policy_of(config: ExplainConfig) -> TextModel:
    """The policy, without dropout."""
    policy = load_text_model(config.policy, "policy", head="logits")
    heads = ("logits", "value") if config.method == "ppo" else ("logits",)
    return with_heads(policy, heads, jax.random.key(config.seed), dropout=0.0)


def optimizer_of_updates(policy: TextModel, given: OptimizerConfig, loop: str) -> OptimizerConfig:
    """The optimizer of `updates`: that of a training loop at its peak rate, which follows the model
    where none is given.
    """
    constant = dataclasses.replace(given, schedule="constant", warmup_steps=0, warmup_share=None)
    return filled_optimizer(constant, 1, loop=loop, start=start_of(policy, LoraConfig()))


def frozen(config: ExplainConfig, option: str, policy: TextModel) -> TextModel:
    """Another policy, or the same one where the option is empty."""
    folder = getattr(config, option)
    return load_text_model(folder, option, head="logits") if folder else policy


def score_of(model: TextModel) -> Callable[..., np.ndarray]:
    """`(rows, temperature=...) -> [N]` log-probabilities of responses, as a recipe's preparation
    takes it.
    """

    def score(rows: Sequence[TokenRow], *, temperature: float) -> np.ndarray:
        summed = jax.jit(response_logps_of(model.model, temperature=temperature))
        batch = token_batch(rows, pad_id=model.tokenizer.pad_id, index=np.arange(len(rows)))
        return np.asarray(summed(model.params, batch))

    return score


def shift_of(config: ExplainConfig, policy: TextModel, loss: Loss, fit: FitConfig) -> Shift:
    """The shift at the end of the run, from its last checkpoint; 0 where there is none."""
    running = running_mean(loss)
    if not running:
        return Shift()
    folder = Path(config.run) / "checkpoints" / config.method
    if config.run and folder.is_dir():
        optimizer = optimizer_of(fit.optimizer, fit.updates)
        key = jax.random.key(config.seed)
        checkpoints = Checkpoints(folder)
        found = checkpoints.restore(
            initial_state(policy.params, optimizer, key, statistics=running["statistics"])
        )
        checkpoints.close()
        if found is not None:
            step, state = found
            note = f"The shift starts from that of the run after step {step}: {folder / str(step)}."
            return Shift(statistics=state.statistics, track=running["track"], notes=(note,))
    why = f"there is no checkpoint in {folder}" if config.run else "no run is given"
    note = f"The shift starts from 0, as in training: {why}."
    return Shift(**running, notes=(note,))


def with_statistics(make_loss: Callable, statistics: Tree) -> Callable:
    """The same objective for losses that read these running statistics, None for none."""

    def make(model: LanguageModel):
        return functools.partial(make_loss(model), statistics=statistics)

    return make
