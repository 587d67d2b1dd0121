"""Parts of `jaxalign explain` that all methods share: batch, policy, objective, optimizer."""

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
from jaxalign.errors import UserError
from jaxalign.explanation import Explanation
from jaxalign.models.functions import response_logps_of
from jaxalign.numerics.types import Tree
from jaxalign.recipes.learner import Objective
from jaxalign.recipes.optimizer import optimizer_of
from jaxalign.recipes.run import key_of
from jaxalign.recipes.text_models import TextModel, load_text_model, start_of, with_heads
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.step import LossFn, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch, the policy and the objective of a training step on it.

    policy: its parameters are those that the step changes.
    batch: rows as the objective takes them.
    objective: of the recipe, the very one that trains.
    explain: `(make_loss, read, params, batch, key=...) -> Explanation`.
    optimizer: of the method's settings.
    watch: the model with conditions on its outputs, for `--check`.
    notes: where running statistics are from, for the page.
    """

    policy: TextModel
    batch: Any
    objective: Objective
    explain: Callable[..., Explanation]
    optimizer: OptimizerConfig
    watch: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda model: model
    notes: tuple[str, ...] = ()

    def explanation(self, state: TrainState) -> Explanation:
        """Explanation of the loss of the next training step from that state."""
        make_loss = self.objective.make_loss
        if self.objective.track is not None:
            make_loss = with_statistics(make_loss, state.statistics)
        key = jax.random.fold_in(state.key, state.step)
        read, params = self.objective.read, state.all_params
        explanation = self.explain(make_loss, read, params, self.batch, key=key)
        return dataclasses.replace(explanation, notes=(*explanation.notes, *self.notes))


def chosen_rows(config: ExplainConfig, rows: Sequence, kind: str) -> tuple[list, np.ndarray]:
    """Rows of the batch in the order of a run with this seed, and their index in the data."""
    refuse_empty(config, rows, kind)
    index = batch_indices(config.batch, len(rows), config.rows, config.seed)
    return [rows[i] for i in index], index


def refuse_empty(config: ExplainConfig, rows: Sequence, kind: str) -> None:
    """Raise a one-line `UserError` where the data have no rows."""
    if not rows:
        raise UserError(f"--data.path {config.data.path} holds no {kind}")


def policy_of(config: ExplainConfig) -> TextModel:
    """Policy with the heads that its method trains, without dropout."""
    policy = load_text_model(config.policy, "policy", head="logits")
    heads = ("logits", "value") if config.method == "ppo" else ("logits",)
    return with_heads(policy, heads, new_head_key(config), dropout=0.0)


def new_head_key(config: ExplainConfig) -> jax.Array:
    """Random key of a value head that the policy lacks, as in a run with this seed."""
    return key_of(config.seed, f"{config.method}/init")


def optimizer_of_updates(policy: TextModel, given: OptimizerConfig, loop: str) -> OptimizerConfig:
    """Optimizer settings of `--updates`: the peak learning rate of a training loop, held constant.

    Args:
      policy: size and origin decide the rate where none is given.
      given: settings of the method.
      loop: the command that trains like this.
    """
    constant = dataclasses.replace(given, schedule="constant", warmup_steps=0, warmup_share=None)
    return filled_optimizer(constant, 1, loop=loop, start=start_of(policy, LoraConfig()))


def other_policy(config: ExplainConfig, option: str, policy: TextModel) -> TextModel:
    """Reference or behaviour policy: the model of that option, or the policy where it is empty."""
    folder = getattr(config, option)
    return load_text_model(folder, option, head="logits") if folder else policy


def score_of(model: TextModel) -> Callable[..., np.ndarray]:
    """Log-probabilities of responses under a model: `(rows, temperature=...) -> [N]` in nats."""

    def score(rows: Sequence[TokenRow], *, temperature: float) -> np.ndarray:
        summed = jax.jit(response_logps_of(model.model, temperature=temperature))
        batch = token_batch(rows, pad_id=model.tokenizer.pad_id, index=np.arange(len(rows)))
        return np.asarray(summed(model.params, batch))

    return score


def with_shift(prepared: Prepared, config: ExplainConfig, fit: FitConfig) -> Prepared:
    """The batch with BCO's reward shift from the last checkpoint of the run.

    The shift is 0 where there is none; losses without a shift are left as they are.
    """
    objective = prepared.objective
    if objective.track is None:
        return prepared
    folder = Path(config.run) / "checkpoints" / config.method
    if config.run and folder.is_dir():
        optimizer = optimizer_of(fit.optimizer, fit.updates)
        key = jax.random.key(config.seed)
        checkpoints = Checkpoints(folder)
        restored = checkpoints.restore(objective.learner(prepared.policy).state(key, optimizer))
        checkpoints.close()
        if restored is not None:
            step, state = restored
            note = f"The shift starts from that of the run after step {step}: {folder / str(step)}."
            objective = dataclasses.replace(objective, statistics=state.statistics)
            return dataclasses.replace(prepared, objective=objective, notes=(note,))
    why = f"there is no checkpoint in {folder}" if config.run else "no run is given"
    note = f"The shift starts from 0, as in training: {why}."
    return dataclasses.replace(prepared, notes=(note,))


def with_statistics(
    make_loss: Callable[[Callable[..., Any]], LossFn], statistics: Tree
) -> Callable[[Callable[..., Any]], LossFn]:
    """Objective with fixed running statistics: `read -> loss_fn` that is given them."""

    def make(read: Callable[..., Any]) -> LossFn:
        return functools.partial(make_loss(read), statistics=statistics)

    return make
