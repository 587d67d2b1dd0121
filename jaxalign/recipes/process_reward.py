"""Process reward models: training on labelled steps, probabilities and accuracy of steps."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign import objectives
from jaxalign.batches.preferences import StepBatch
from jaxalign.config.reward import ProcessSettings
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import batch_indices
from jaxalign.data.preference_batches import step_batch
from jaxalign.diagnostics import concordance
from jaxalign.evaluation.bootstrap import mean_estimate
from jaxalign.losses.declarations import Loss
from jaxalign.models.functions import text_step_scores
from jaxalign.recipes.held_out import HeldOut, TokenScores, scored_evaluation
from jaxalign.recipes.learner import Learner
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest, of_tokens
from jaxalign.recipes.stage import fit_batches
from jaxalign.recipes.text_models import TextModel, with_heads

Labels = Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solutions:
    """Solutions with labelled steps.

    rows: from `step_row`.
    labels: of each row's steps, in [0, 1].
    """

    rows: Sequence[TokenRow]
    labels: Labels

    def batches(self, pad_id: int) -> Callable[[np.ndarray], StepBatch]:
        """Batches of solutions by their positions, all of one length."""
        arrays, length = [np.array(row, np.float32) for row in self.labels], longest(self.rows)

        def batch(index: np.ndarray) -> StepBatch:
            chosen, targets = [self.rows[i] for i in index], [arrays[i] for i in index]
            return step_batch(chosen, targets, pad_id=pad_id, length=length, index=index)

        return batch


def train_process(
    run: Run,
    name: str,
    base: TextModel,
    solutions: Solutions,
    *,
    loss: Loss,
    settings: ProcessSettings,
    held_out: Solutions | None = None,
) -> TextModel:
    """A process reward model, trained by a loss on the labels of steps.

    Args:
      base: where trunk and vocabulary come from.
      solutions: what it learns from.
      loss: a declared one of steps.
      settings: of the head and the loop.
      held_out: other solutions, on which the loss is evaluated along the way.
    """
    heads, key = ("step_score",), run.key(f"{name}/init")
    model = with_heads(base, heads, key, dropout=settings.dropout)
    pad_id, count, fit = base.tokenizer.pad_id, len(solutions.rows), settings.fit
    batch, read = solutions.batches(pad_id), text_step_scores(model.model)

    def batch_of_step(number: int) -> StepBatch:
        return batch(batch_indices(number, count, fit.rows, run.seed))

    evaluation = None
    if held_out is not None and held_out.rows:
        evaluation = scored_evaluation(
            run,
            lambda read: objectives.process_reward(read, loss),
            HeldOut(
                batch=held_out.batches(pad_id),
                rows=len(held_out.rows),
                size=fit.rows,
                every=fit.eval_every,
            ),
            TokenScores(run=run, model=model, read=read),
        )
    learner = Learner(
        model=model,
        params=model.trained,
        frozen=model.frozen,
        loss_fn=objectives.process_reward(read, loss),
        shown=("loss", "steps/accuracy"),
        reads_all=True,
    )
    loop = {"settings": fit, "steps_per_epoch": count / fit.rows, "evaluation": evaluation}
    params = fit_batches(run, name, learner, batch_of_step, **loop)
    return model.with_trained(params)


def step_chances(run: Run, model: TextModel, rows: Sequence[TokenRow]) -> list[np.ndarray]:
    """Predicted probability that each step of each row is right, in (0, 1)."""
    step_scores, pad_id = text_step_scores(model.model), model.tokenizer.pad_id
    limits = {"pad_id": pad_id, "longest_row": model.max_length}
    logits = dict(of_tokens(run, step_scores, model.params, rows, **limits))
    of_steps = [logits[i][row.is_response] for i, row in enumerate(rows)]
    return [1 / (1 + np.exp(-x.astype(np.float64))) for x in of_steps]


def step_accuracy(
    chances: Sequence[np.ndarray], labels: Labels, *, blocks: np.ndarray
) -> dict[str, Any]:
    """Share of steps whose chance is on the label's side of 1/2 (on 1/2 counts half), of all steps
    and of those labelled right and wrong.

    Args:
      blocks: `[N]` which of the solutions belong to one prompt; intervals are over prompts.
    """
    blocks = np.repeat(blocks, [len(row) for row in labels])
    signs = np.concatenate([np.array(row, float) for row in labels]) - 0.5
    right = concordance(signs * (np.concatenate(chances) - 0.5), 0.0)
    columns = mean_estimate(right, blocks=blocks).columns("step_accuracy")
    for name, side in (("right_steps_found", signs > 0), ("wrong_steps_found", signs < 0)):
        if side.any():
            columns |= mean_estimate(right[side], blocks=blocks[side]).columns(name)
    return columns
