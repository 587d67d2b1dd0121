"""What is trained: parameters with the loss that gradient steps lower."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxalign.batches.functions import BatchSums, LossFn
from jaxalign.models.layer_stack import unstacked, within
from jaxalign.recipes.checkpoint_models import ORIGINS, write_parts
from jaxalign.recipes.packed_step import PackedLoss, packed_loss
from jaxalign.recipes.run import Run
from jaxalign.recipes.step_model import stacked_layers
from jaxalign.recipes.text_models import TextModel, fields_of
from jaxalign.system.files import make_directory, read_json
from jaxalign.train.optimizers import Rates
from jaxalign.train.step import Track, TrainState, initial_state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """Trained and frozen parameters, and the loss that gradient steps lower.

    model: what the checkpoints are of.
    params: trained parameters at the start.
    loss_fn: of an objective.
    frozen: parameters that the loss reads beside them; None: there are none.
    statistics, track: running statistics of the loss, as in `train_step`; saved in checkpoints.
    measure: sums over a whole batch that the loss reads, as in `train_step`.
    shown: metrics that matter, which the progress shows.
    reads_all: whether every token of a batch goes through all these parameters, once.
    packed: its loss of packed texts, where a step may pack them; None: it may not.
    layers: number of layers that are stacked in the parameters, of a model that has them one by
      one, see `step_model`; None: they are as in the model.
    """

    model: TextModel
    params: Any
    loss_fn: LossFn
    frozen: dict | None = None
    statistics: Any = None
    track: Track | None = None
    measure: BatchSums | None = None
    shown: tuple[str, ...] = ("loss",)
    reads_all: bool = False
    packed: PackedLoss | None = None

    layers: int | None = None

    def state(
        self, key: jax.Array, optimizer: optax.GradientTransformation, rates: Rates | None = None
    ) -> TrainState:
        """Training state before the first update; all noise comes from the key."""
        return initial_state(
            self.params,
            optimizer,
            key,
            statistics=self.statistics,
            frozen=self.frozen,
            rates=rates,
        )

    def step(self, kind: Callable, optimizer: optax.GradientTransformation) -> Callable:
        """`train_step` or `summed_step` with this loss, for `Run.step`."""
        return functools.partial(
            kind,
            loss_fn=self.loss_fn,
            optimizer=optimizer,
            track=self.track,
            measure=self.measure,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Loss of a training stage, with the function that reads a model's outputs for it.

    read: outputs of the model: `(params, rows, keys) -> log-probabilities, ...`.
    make_loss: `read -> loss_fn`, a function of `objectives` with its numbers.
    statistics, track, measure, shown: as in `Learner`.
    """

    read: Callable[..., Any]
    make_loss: Callable[[Callable[..., Any]], LossFn]
    statistics: Any = None
    track: Track | None = None
    measure: BatchSums | None = None
    shown: tuple[str, ...] = ("loss",)

    def learner(
        self, policy: TextModel, computed: TextModel | None = None, *, packed: bool = False
    ) -> Learner:
        """A learner of the policy's trained parameters with this loss.

        Args:
          packed: whether steps may pack the texts of a batch.
          policy: the model that is trained.
          computed: that the loss reads, as `step_model` gives it; None: the policy.
        """
        computed = policy if computed is None else computed
        return Learner(
            model=policy,
            params=computed.trained,
            frozen=computed.frozen,
            layers=stacked_layers(policy, computed),
            loss_fn=self.make_loss(self.read),
            statistics=self.statistics,
            track=self.track,
            measure=self.measure,
            shown=self.shown,
            packed=PackedLoss(loss_fn=packed_loss(self.make_loss, self.read)) if packed else None,
            reads_all=True,
        )


def keep_parts(run: Run, name: str, learner: Learner) -> None:
    """Write what makes the checkpoints of a new stage models, before the first of them."""
    checkpoints, model = run.checkpoints(name), learner.model
    if checkpoints.steps():
        return
    config = read_json(run.directory / "config.json")
    trained, frozen = learner.params, learner.frozen
    if learner.layers is not None:
        trained, frozen = (within(unstacked, tree, learner.layers) for tree in (trained, frozen))
    write_parts(
        make_directory(checkpoints.directory),
        model.model,
        model.params,
        fields=fields_of(model.model),
        tokenizer=model.tokenizer,
        trained=trained,
        frozen=frozen,
        has_base=any(config.get(option) for option in ORIGINS),
    )
