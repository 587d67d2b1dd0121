"""Distillation on text: a student trained on the teacher's distribution over every next token."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign import objectives
from jaxalign.batches.preferences import DistillationBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.distill import DistillSettings
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import batch_indices
from jaxalign.logprobs import NO_TOKEN
from jaxalign.models.functions import text_divergences, text_logits
from jaxalign.numerics.types import Params, Tree
from jaxalign.recipes.held_out import HeldOut, held_out_evaluation
from jaxalign.recipes.learner import Learner
from jaxalign.recipes.prompts import PromptBatch, Prompts, prompt_batches
from jaxalign.recipes.run import Run
from jaxalign.recipes.sample_metrics import PhaseClock
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.stage import fit_batches
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.sampling import sample
from jaxalign.train.step import TrainState

Teach = Callable[[TokenBatch], DistillationBatch]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Responses:
    """Token rows in batches of one shape.

    rows: prompts with responses.
    pad_id: of the vocabulary.
    length: columns of every batch.
    size: rows of a batch.
    """

    rows: Sequence[TokenRow]
    pad_id: int
    length: int
    size: int

    def batch(self, index: Any) -> TokenBatch:
        """Batch of the rows with these positions."""
        chosen = [self.rows[i] for i in index]
        return token_batch(chosen, pad_id=self.pad_id, length=self.length, index=index)


def train_distillation(
    run: Run,
    name: str,
    student: TextModel,
    rows: Sequence[TokenRow],
    *,
    teacher: TextModel,
    prompts: Prompts,
    settings: DistillSettings,
    temperature: float,
    max_new_tokens: int,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """A student trained on a divergence from the teacher's distributions.

    The student has no dropout: it is the same distribution in sampling and in the loss.

    Args:
      student: start.
      rows: prompts with responses.
      teacher: reads the same tokens.
      prompts: what the student continues by itself.
      settings: loss and loop.
      temperature: of teacher and student, in sampling and training.
      max_new_tokens: longest response of the student.
      evaluation_rows: held out; their divergence is computed along the way.
    """
    student = with_heads(student, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    pad_id, size, samples = student.tokenizer.pad_id, settings.fit.rows, run.key(f"{name}/samples")
    shape = {"pad_id": pad_id, "size": size}
    responses = Responses(rows=rows, length=longest(rows), **shape)
    prompts_of = prompt_batches(prompts, seed=run.seed, pad_id=pad_id, size=size)
    teach = teacher_pass(run, teacher, student.model.config.vocab_size)
    draw = sampling(student, temperature=temperature, max_new_tokens=max_new_tokens)
    divergences = text_divergences(student.model, temperature=temperature)
    loss = objectives.distillation(divergences, settings.declared_loss)
    evaluation = None
    if evaluation_rows:
        held_out = Responses(rows=evaluation_rows, length=longest(evaluation_rows), **shape)
        evaluation = held_out_evaluation(
            run,
            loss,  # a student without dropout
            HeldOut(
                batch=held_out.batch,
                rows=len(evaluation_rows),
                size=size,
                every=settings.fit.eval_every or settings.fit.updates,  # the start, to compare with
            ),
            prepare=lambda state, batches: map(teach, batches),
        )
    params = fit_batches(
        run,
        name,
        Learner(model=student, params=student.trained, frozen=student.frozen, loss_fn=loss),
        _mixed_batches(settings, prompts_of, responses, seed=run.seed),
        settings=settings.fit,
        steps_per_epoch=len(rows) / size,
        prepare=_with_teacher_logits(run.layout.rows(draw), teach, samples),
        evaluation=evaluation,
    )
    return student.with_trained(params)


def _mixed_batches(
    settings: DistillSettings,
    prompts_of: Callable[[int], PromptBatch],
    responses: Responses,
    *,
    seed: int,
) -> Callable[[int], tuple[bool, TokenBatch]]:
    """`number -> (on policy, rows)`: prompts for the student to continue, or rows of the data."""

    def batch(number: int) -> tuple[bool, TokenBatch]:
        if settings.is_on_policy(number):
            return True, prompts_of(number)[0]
        index = batch_indices(number, len(responses.rows), responses.size, seed)
        return False, responses.batch(index)

    return batch


def _with_teacher_logits(
    draw: Callable, teach: Teach, samples: jax.Array
) -> Callable[[TrainState, tuple[bool, TokenBatch]], tuple[DistillationBatch, dict[str, float]]]:
    """Responses of the data, or of the current student, with the teacher's logits."""

    def prepare(
        state: TrainState, source: tuple[bool, TokenBatch]
    ) -> tuple[DistillationBatch, dict[str, float]]:
        on_policy, responses = source
        clock = PhaseClock()
        if on_policy:
            key = jax.random.fold_in(samples, state.step)
            responses = draw((state.all_params, key), responses)
        batch = teach(responses)
        clock.end("sampling")
        metrics = clock.metrics | {
            "distill/on_policy": float(on_policy),
            "tokens": float(responses.mask.sum()),
            "response/length": float(responses.response_mask.sum(axis=1).mean()),
        }
        return batch, metrics

    return prepare


def teacher_pass(run: Run, teacher: TextModel, vocab_size: int) -> Teach:
    """Forward pass of the teacher over responses: `TokenBatch -> DistillationBatch`.

    Models of one family may be padded to other sizes: of ids that are no tokens as many are left
    out or put behind as make the student's number of logits.
    """
    logits_of_teacher = text_logits(teacher.model)

    def resized(params: Params, rows: Any):
        logits = logits_of_teacher(params, rows)[..., :vocab_size]
        more = vocab_size - logits.shape[-1]
        return jnp.pad(logits, ((0, 0), (0, 0), (0, more)), constant_values=NO_TOKEN)

    logits = run.layout.rows(resized)
    frozen = run.layout.place(teacher.params)
    return lambda rows: DistillationBatch(rows=rows, teacher_logits=logits(frozen, rows))


def sampling(student: TextModel, *, temperature: float, max_new_tokens: int) -> Callable:
    """Sampling of the student's responses: `((params, key), prompts) -> TokenBatch`."""
    decoding: dict[str, Any] = {
        "eos_id": student.tokenizer.stop_ids,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }

    def draw(shared: Tree, prompts: TokenBatch) -> TokenBatch:
        params, key = shared
        return sample(student.model, params, prompts, key, **decoding).batch

    return draw
