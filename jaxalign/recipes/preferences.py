"""Training on preference pairs and on labelled responses: DPO, KTO and their relatives."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.functions import BatchSums
from jaxalign.batches.preferences import PairLogps, SharedPreferenceBatch, UnpairedBatch
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.data.chat import TokenRow, first_responses
from jaxalign.data.disk_rows import chosen, column, joined
from jaxalign.data.example_order import batch_indices, drawn_examples
from jaxalign.data.preference_batches import (
    mismatched_rows,
    shared_preference_batch,
    unpaired_batch,
)
from jaxalign.data.shared_prompts import shared_lengths
from jaxalign.losses.bco import no_shift
from jaxalign.losses.declarations import Loss
from jaxalign.losses.ld_dpo import discounted_excess
from jaxalign.models.functions import text_logps, text_logps_and_collisions
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.held_out import HeldOut, TokenScores, scored_evaluation
from jaxalign.recipes.learner import Objective
from jaxalign.recipes.packed_step import can_be_packed
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest, response_logps
from jaxalign.recipes.stage import fit_batches, is_trained
from jaxalign.recipes.step_model import step_model
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.system.console import phase

PREFERENCE_METRICS = ("loss", "rewards/margin", "rewards/accuracy")  # that the progress shows
Score = Callable[..., np.ndarray]  # `(rows, temperature=...) -> [N]`, of a model


def train_dpo(
    run: Run,
    name: str,
    policy: TextModel,
    pairs: Sequence[tuple[TokenRow, ...]],
    *,
    settings: DPOSettings,
    temperature: float,
    score_reference: Callable[..., np.ndarray] | None = None,
    held_out: Sequence[tuple[TokenRow, ...]] = (),
    evaluation: Evaluation | None = None,
) -> TextModel:
    """A policy trained by a loss on pairs of responses.

    The reference's log-probabilities of the pairs that training draws are computed once, and not at
    all for a loss without a reference. Without dropout, so that policy and reference are the same
    function at the first step; only a trained adapter that goes on with `lora.dropout` differs from
    itself by that noise.

    Args:
      policy: start and reference.
      pairs: the chosen and the rejected row, and behind them the gold one for a loss that imitates
        it.
      settings: loss and loop.
      temperature: of policy and reference, in the loss as in sampling.
      score_reference: `response_logps`, which is the default, or one with a cache.
      held_out: other pairs, on which the loss is evaluated along the way.
      evaluation: along the way, where no pairs are held out.
    """
    policy = computed = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    if evaluation is None:  # which reads states as the policy has its parameters
        computed = step_model(policy, run.layout, settings.fit.updates)
    score = functools.partial(score_reference or response_logps, run, computed)
    scoring = {"settings": settings, "temperature": temperature, "pad_id": policy.tokenizer.pad_id}
    fit = settings.fit
    drawn = drawn_examples(len(pairs), fit.updates * fit.rows, run.seed)
    batches = PairBatches(score=score, pairs=pairs, drawn=drawn, **scoring)
    if not is_trained(run, name, fit.updates):
        with phase("scoring the reference"):
            _ = batches.reference

    def batch_of_step(number: int) -> SharedPreferenceBatch:
        return batches(batch_indices(number, len(pairs), fit.rows, run.seed))

    objective = pair_objective(
        computed, settings, temperature=temperature, axis_name=run.layout.axis_name
    )
    scores = TokenScores(run=run, model=computed, read=objective.read)
    if held_out:
        rows = PairBatches(score=score, pairs=held_out, **scoring)
        evaluated = HeldOut(batch=rows, rows=len(held_out), size=fit.rows, every=fit.eval_every)
        evaluation = scored_evaluation(run, objective.make_loss, evaluated, scores)
    packed = can_be_packed(computed, run.layout)
    learner = objective.learner(policy, computed, packed=packed)
    loop = {"settings": fit, "steps_per_epoch": len(pairs) / fit.rows, "evaluation": evaluation}
    params = fit_batches(run, name, learner, batch_of_step, **loop)
    return scores.known_to(policy.with_trained(params), name, temperature=temperature)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairBatches:
    """Batches of pairs by their positions, all of one shape, with the log-probabilities of the
    reference, which are computed once.

    score: `(rows, temperature=...) -> [N]` of the reference.
    pairs, settings, temperature: as in `train_dpo`.
    pad_id: of the vocabulary.
    drawn: positions of the pairs that are asked for; None: of all. Others have the reference NaN.
    """

    score: Score
    pairs: Sequence[tuple[TokenRow, ...]]
    settings: DPOSettings
    temperature: float
    pad_id: int
    drawn: np.ndarray | None = None

    @functools.cached_property
    def reference(self) -> PairLogps | None:
        """The reference's log-probabilities of the pairs; None where the loss has none."""
        drawn = np.arange(len(self.pairs)) if self.drawn is None else self.drawn
        pairs = chosen(self.pairs, drawn)
        sides = column(pairs, 0), column(pairs, 1)
        logps = pair_reference(self.score, sides, self.settings, temperature=self.temperature)
        return jax.tree.map(lambda x: _at(x, drawn, len(self.pairs)), logps)

    @functools.cached_property
    def _lengths(self) -> tuple[int, int]:
        return shared_lengths(self.pairs)

    def __call__(self, index: np.ndarray) -> SharedPreferenceBatch:
        """Batch of the pairs at these positions."""
        shape = {"pad_id": self.pad_id, "lengths": self._lengths}
        rows = shared_preference_batch([self.pairs[i] for i in index], index=index, **shape)
        reference = jax.tree.map(lambda x: x[index], self.reference)
        return dataclasses.replace(rows, reference=reference)


def train_unpaired(
    run: Run,
    name: str,
    policy: TextModel,
    rows: Sequence[TokenRow],
    *,
    labels: Sequence[bool],
    settings: KTOSettings,
    temperature: float,
    score_reference: Callable[..., np.ndarray] | None = None,
    held_out: tuple[Sequence[TokenRow], Sequence[bool]] | None = None,
) -> TextModel:
    """A policy trained by a loss on responses that are labelled good or bad.

    Args:
      policy, temperature, score_reference: as in `train_dpo`.
      rows: prompts with responses.
      labels: `[N]` whether each response is good.
      settings: loss and loop.
      held_out: other rows and their labels, on which the loss is evaluated along the way.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    computed = step_model(policy, run.layout, settings.fit.updates)
    score = functools.partial(score_reference or response_logps, run, computed)
    fit, scoring = settings.fit, {"settings": settings, "temperature": temperature}
    scoring |= {"pad_id": policy.tokenizer.pad_id}
    drawn = drawn_examples(len(rows), fit.updates * fit.rows, run.seed)
    given = {"rows": rows, "labels": labels, "drawn": drawn}
    batches = LabelledBatches(score=score, **given, **scoring)
    if not is_trained(run, name, fit.updates):
        with phase("scoring the reference"):
            _ = batches.scored

    def batch_of_step(number: int) -> UnpairedBatch:
        return batches(batch_indices(number, len(rows), fit.rows, run.seed))

    objective = unpaired_objective(
        computed, settings, temperature=temperature, axis_name=run.layout.axis_name
    )
    evaluation, scores = None, TokenScores(run=run, model=computed, read=objective.read)
    if held_out is not None and held_out[0]:
        texts, size = held_out[0], fit.rows
        labelled = LabelledBatches(score=score, rows=texts, labels=held_out[1], **scoring)
        evaluated = HeldOut(batch=labelled, rows=len(texts), size=size, every=fit.eval_every)
        evaluation = scored_evaluation(run, objective.make_loss, evaluated, scores)
    packed = can_be_packed(computed, run.layout)
    learner = objective.learner(policy, computed, packed=packed)
    loop = {"settings": fit, "steps_per_epoch": len(rows) / fit.rows, "evaluation": evaluation}
    params = fit_batches(run, name, learner, batch_of_step, **loop)
    return scores.known_to(policy.with_trained(params), name, temperature=temperature)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledBatches:
    """Batches of labelled responses by their positions, as `PairBatches`."""

    score: Score
    rows: Sequence[TokenRow]
    labels: Sequence[bool]
    settings: KTOSettings
    temperature: float
    pad_id: int
    drawn: np.ndarray | None = None

    @functools.cached_property
    def scored(self) -> "LabelledRows":
        """The rows with the reference's log-probabilities."""
        rows = with_mismatched(self.rows, self.labels, self.settings)
        return rows.scored(self.score, temperature=self.temperature, drawn=self.drawn)

    def __call__(self, index: np.ndarray) -> UnpairedBatch:
        """Batch of the rows at these positions."""
        taken = self.scored.take(index)
        return taken.batch(index=index, pad_id=self.pad_id, length=longest(self.rows))


def pair_objective(
    policy: TextModel, settings: DPOSettings, *, temperature: float, axis_name: str | None = None
) -> Objective:
    """The chosen loss on pairs of responses, modifiers included.

    Args:
      policy: whose log-probabilities the loss reads.
      settings: of the loss.
      temperature: of the policy.
      axis_name: mapped axis that the other devices' rows are on, or None.
    """
    read = text_logps_and_collisions if settings.wpo else text_logps
    read, given = read(policy.model, temperature=temperature), pair_loss(settings)
    return Objective(
        read=read,
        make_loss=functools.partial(objectives.paired, axis_name=axis_name, **given),
        measure=beforehand(objectives.paired_sums(read, **given), settings.fit),
        shown=PREFERENCE_METRICS,
        **running_mean(settings.declared_loss),
    )


def unpaired_objective(
    policy: TextModel, settings: KTOSettings, *, temperature: float, axis_name: str | None = None
) -> Objective:
    """The chosen loss on labelled responses; arguments as in `pair_objective`."""
    read, loss = text_logps(policy.model, temperature=temperature), settings.declared_loss
    return Objective(
        read=read,
        make_loss=functools.partial(objectives.unpaired, loss=loss, axis_name=axis_name),
        measure=beforehand(objectives.unpaired_sums(read, loss), settings.fit),
        shown=("loss", "rewards/chosen", "rewards/rejected"),
        **running_mean(loss),
    )


def beforehand(sums: BatchSums | None, fit: FitConfig) -> BatchSums | None:
    """Sums over a batch that a step takes before its loss; None where the loss sees all rows of a
    device at once and takes them from its own forward pass.
    """
    return sums if fit.micro_batches > 1 else None


def running_mean(loss: Loss) -> dict[str, Any]:
    """`statistics` and `track` of an `Objective` for a loss that reads a running mean."""
    if not loss.needs("shift"):
        return {}
    return {"statistics": no_shift(), "track": objectives.shift_after_batch}


def pair_loss(settings: DPOSettings) -> dict[str, Any]:
    """Arguments of `objectives.paired` from settings: the declared loss and its modifiers."""
    names = ("ld_alpha", "wpo", "reference_free")
    return {"loss": settings.declared_loss} | {name: getattr(settings, name) for name in names}


def pair_reference(
    score: Score,
    sides: tuple[Sequence[TokenRow], Sequence[TokenRow]],
    settings: DPOSettings,
    *,
    temperature: float,
) -> PairLogps | None:
    """The reference's log-probabilities of both sides, `[N]`; None where the loss has none."""
    if not settings.uses_reference:
        return None
    return pair_logps(score, sides, ld_alpha=settings.ld_alpha, temperature=temperature)


def pair_logps(
    score: Score,
    sides: tuple[Sequence[TokenRow], Sequence[TokenRow]],
    *,
    ld_alpha: float | None,
    temperature: float,
) -> PairLogps:
    """Response log-probabilities of both sides, `[N]`; with `ld_alpha` those of LD-DPO."""
    texts = [joined(*sides)]
    if ld_alpha is not None:
        pairs = list(zip(*sides, strict=True))
        public = [min(int(row.is_response.sum()) for row in pair) for pair in pairs]
        texts += [[first_responses(row, n) for row, n in zip(side, public, strict=True)]
                  for side in sides]  # fmt: skip
    # in one pass, whose batches take rows of all of them
    together: Any = score(functools.reduce(joined, texts), temperature=temperature)
    logps = together.reshape(-1, len(sides[0]))
    if ld_alpha is not None:
        logps = np.asarray(discounted_excess(logps[:2], logps[2:], alpha=ld_alpha))
    return PairLogps(chosen=logps[0], rejected=logps[1])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledRows:
    """Labelled responses, those mismatched to other prompts, and their reference log-probabilities.

    rows, labels: the responses, and `[N]` bool whether they are good.
    mismatched: for KTO's KL the same prompts with responses to others; None for other losses.
    reference, mismatched_reference: `[N]` log-probabilities of both under the reference.
    """

    rows: Sequence[TokenRow]
    labels: np.ndarray
    mismatched: Sequence[TokenRow] | None
    reference: np.ndarray | None = None
    mismatched_reference: np.ndarray | None = None

    def scored(
        self, score: Score, *, temperature: float, drawn: np.ndarray | None = None
    ) -> "LabelledRows":
        """The same rows with the reference's log-probabilities, NaN but at the drawn positions;
        None: all are drawn.
        """
        drawn = np.arange(len(self.rows)) if drawn is None else drawn
        texts = chosen(self.rows, drawn)
        if self.mismatched is not None:  # in one pass, whose batches take rows of both
            texts = joined(texts, chosen(self.mismatched, drawn))
        parts = score(texts, temperature=temperature).reshape(-1, len(drawn))
        logps = [_at(part, drawn, len(self.rows)) for part in parts]
        mismatched = logps[1] if len(logps) > 1 else None
        return dataclasses.replace(self, reference=logps[0], mismatched_reference=mismatched)

    def take(self, index: np.ndarray) -> "LabelledRows":
        """The rows at these positions."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return LabelledRows(**{name: _taken(values, index) for name, values in fields.items()})

    def batch(self, *, index: np.ndarray, pad_id: int, length: int) -> UnpairedBatch:
        """Batch of all rows; `index` says which rows of the data set they are."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return unpaired_batch(**fields, index=index, pad_id=pad_id, length=length)


def _at(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """`[count]` numbers with the values at these positions, and NaN where nothing is read."""
    found = np.full(count, np.nan, values.dtype)
    found[index] = values
    return found


def _taken(values: Any, index: np.ndarray) -> Any:
    if values is None:
        return None
    return values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]


def with_mismatched(
    rows: Sequence[TokenRow], labels: Sequence[bool], settings: KTOSettings
) -> LabelledRows:
    """Labelled responses of a data set, with mismatched ones where the loss estimates a KL from
    them.
    """
    others = None
    if settings.declared_loss.needs("kl"):
        others = mismatched_rows(rows, max_length=longest(rows))
    return LabelledRows(rows=rows, labels=np.asarray(labels, bool), mismatched=others)
