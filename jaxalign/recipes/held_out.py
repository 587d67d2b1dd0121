"""Evaluation on held-out rows while a policy or a reward model is trained on others."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import jax
import numpy as np

from jaxalign.batches.functions import LossFn, Metrics
from jaxalign.config.loop import FitConfig
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import evaluation_batches
from jaxalign.data.text_outputs import outputs_of, texts_of, with_outputs
from jaxalign.layouts.layout import pad_rows
from jaxalign.numerics.types import Params, Tree
from jaxalign.recipes.fit_loop import Evaluation, check_evaluated
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import of_tokens, score_rows
from jaxalign.recipes.text_models import TextModel
from jaxalign.train.evaluations import HELD_OUT
from jaxalign.train.loop import mean_metrics
from jaxalign.train.step import TrainState, loss_sums

Batches = Callable[[np.ndarray], Any]  # positions of held-out rows -> their batch
# `(parameters, texts) -> outputs` by the key of a text
Score = Callable[[Params, Sequence[TokenRow]], Mapping[bytes, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out rows (pairs, rankings), which are evaluated in batches as those of training.

    batch: positions -> batch, always of one length.
    rows: how many there are.
    size: how many make a batch: what a loss takes from all rows of a batch (KTO's KL, BCO's shift,
      AOT's order) is taken from those. The last batch may have fewer; means are over all rows.
    every: steps between evaluations; None: at the end alone.
    """

    batch: Batches
    rows: int
    size: int
    every: int | None

    @functools.cached_property
    def batches(self) -> list[Any]:
        """All of them, in order."""
        return [self.batch(index) for index in evaluation_batches(self.rows, self.size)]

    @functools.cached_property
    def texts(self) -> list[TokenRow]:
        """All texts in them, each once."""
        return list({row.key: row for batch in self.batches for row in texts_of(batch)}.values())


def held_out_evaluation(
    run: Run,
    loss_fn: LossFn,
    held_out: HeldOut,
    *,
    prepare: Callable[[TrainState, Iterable[Any]], Iterable[Any]] = lambda state, batches: batches,
    params_of: Callable[[TrainState], Params] = lambda state: state.all_params,
) -> Evaluation:
    """Loss and metrics of training on held-out rows, `eval/loss` and so on.

    Args:
      run: where it computes.
      loss_fn: of the objective.
      held_out: rows.
      prepare: what the models say of batches, whose rows the devices divide by now.
      params_of: what the loss reads of a training state.
    """
    sums = run.layout.sums(functools.partial(_sums, loss_fn=loss_fn))
    size, devices = min(held_out.size, held_out.rows), len(run.layout.devices)
    padded = -(-size // devices) * devices
    key = run.key("held-out")  # of a loss that draws nothing here

    def evaluate(state: TrainState) -> dict[str, float]:
        batches = [pad_rows(batch, padded)[0] for batch in held_out.batches]
        shared = params_of(state), key, state.statistics
        metrics = mean_metrics(sums, shared, prepare(state, batches))
        return {f"{HELD_OUT}{name}": value for name, value in metrics.items()}

    return Evaluation(metrics=evaluate, every=held_out.every)


def scored_evaluation(
    run: Run, make_loss: Callable[[Callable[..., Any]], LossFn], held_out: HeldOut, score: Score
) -> Evaluation:
    """`held_out_evaluation` of a loss that reads a model's outputs for texts, which come of one
    scoring pass over all of them: every text goes through the model once, in company of its length.

    Args:
      run, held_out: as there.
      make_loss: `read -> loss_fn`, a function of `objectives` with its numbers.
      score: `(parameters, texts) -> outputs`: `[T]` for the tokens of each, or numbers of a text.
    """

    def prepare(state: TrainState, batches: Iterable[Any]) -> Iterable[Any]:
        batches = list(batches)
        texts = {row.key: row for batch in batches for row in texts_of(batch)}
        outputs = score(state.all_params, list(texts.values()))
        return (with_outputs(batch, outputs) for batch in batches)

    return held_out_evaluation(run, make_loss(outputs_of), held_out, prepare=prepare)


@dataclasses.dataclass(kw_only=True, eq=False)
class TokenScores:
    """Outputs of a model for the tokens of texts, as `scored_evaluation` takes them.

    run: where it computes.
    model: with the vocabulary and the longest text, as steps compute it (`step_model`).
    read: `(params, PackedBatch) -> [B, T]` arrays, without noise where it gets no keys.
    last: what was computed last.
    """

    run: Run
    model: TextModel
    read: Callable[..., Any]
    last: dict[bytes, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, params: Params, rows: Sequence[TokenRow]) -> dict[bytes, Any]:
        """Outputs `[T]` for each of the texts."""
        limits = {"pad_id": self.model.tokenizer.pad_id, "longest_row": self.model.max_length}
        outputs = of_tokens(self.run, self.read, params, rows, **limits)
        self.last = {rows[number].key: output for number, output in outputs}
        return self.last

    def known_to(self, trained: TextModel, name: str, *, temperature: float) -> TextModel:
        """The model that a stage has trained, with the log-probabilities that were computed of it
        at its end; nothing is known of a state before the last.

        Args:
          trained: the model.
          name: of the stage.
          temperature: of the log-probabilities, which are all outputs or the first of them.
        """
        ending = self.run.endings[name]
        if ending.step != ending.steps:
            return trained
        logps = {key: jax.tree.leaves(output)[0] for key, output in self.last.items()}
        return trained.knowing(logps, ("logps", temperature))


@dataclasses.dataclass(kw_only=True, eq=False)
class WholeScores:
    """Scores of whole texts, as `scored_evaluation` takes them.

    run: where it computes.
    model: a reward model, as steps compute it (`step_model`).
    last: what was computed last.
    """

    run: Run
    model: TextModel
    last: dict[bytes, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, params: Params, rows: Sequence[TokenRow]) -> dict[bytes, Any]:
        """A score for each of the texts."""
        scores = score_rows(self.run, dataclasses.replace(self.model, params=params), rows)
        self.last = {row.key: score for row, score in zip(rows, scores, strict=True)}
        return self.last

    def of(self, trained: TextModel, name: str, rows: Sequence[TokenRow]) -> np.ndarray:
        """`[N]` scores of texts by the model that a stage has trained; what was computed at its end
        is not computed again, unless it was of another state.

        Args:
          trained: the model, with its layers as `model` has them.
          name: of the stage.
          rows: the texts.
        """
        ending = self.run.endings[name]
        if ending.step == ending.steps:
            trained = trained.knowing(self.last, "scores")
        return score_rows(self.run, trained, rows)


def check_held_out(fit: FitConfig, held_out: Sized) -> None:
    """Check before training that there are held-out rows where a setting needs them.

    Raises:
      UserError: there are none.
    """
    if not len(held_out):
        check_evaluated(fit)


def _sums(
    shared: tuple[Params, jax.Array, Tree], batch: Any, *, loss_fn: LossFn, axis_name: str | None
) -> tuple[jax.Array, Metrics]:
    """Weight and metric sums of a batch, for a loss with running statistics or without."""
    params, key, statistics = shared
    if statistics is not None:
        loss_fn = functools.partial(loss_fn, statistics=statistics)
    return loss_sums((params, key), batch, loss_fn=loss_fn, axis_name=axis_name)
