"""Distillation on text: responses from the data or of the student, the teacher's logits, a step."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign import objectives
from jaxalign.batches.preferences import DistillationBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.distill import DistillSettings
from jaxalign.data.batching import batch_indices, evaluation_batches, token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.layouts.layout import pad_rows
from jaxalign.logprobs import NO_TOKEN
from jaxalign.models.functions import text_divergences, text_logits
from jaxalign.numerics.types import Params, Tree
from jaxalign.recipes.prompts import Prompts, prompt_batches
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.stage import Evaluation, Learner, fit_batches
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.sampling import sample
from jaxalign.train.loop import mean_metrics
from jaxalign.train.step import TrainState, loss_sums

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
        """Those rows."""
        chosen = [self.rows[i] for i in index]
        return token_batch(chosen, pad_id=self.pad_id, length=self.length, index=index)


def train_distillation(
    run: Run,
    name: str,
    student: TextModel,
    *,
    teacher: TextModel,
    rows: Sequence[TokenRow],
    settings: DistillSettings,
    prompts: Prompts,
    temperature: float,
    max_new_tokens: int,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """The student from the teacher's distributions, resuming where an earlier run stopped.

    The student has no dropout: it is the same distribution in sampling and in the loss.

    Args:
      teacher: reads the same tokens.
      rows: prompts with responses.
      settings: loss and loop.
      prompts: what the student continues by itself.
      temperature: of teacher and student, in sampling and training.
      max_new_tokens: longest response of the student.
      evaluation_rows: held out; their divergence is measured along the way.
    """
    student = with_heads(student, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    pad_id, size = student.tokenizer.pad_id, settings.fit.rows
    length = longest([*rows, *evaluation_rows])
    shape = {"pad_id": pad_id, "length": length, "size": size}
    answers = Responses(rows=rows, **shape)
    ask = prompt_batches(prompts, seed=run.seed, pad_id=pad_id, size=size)
    teach = teaching(run, teacher, student.model.config.vocab_size)
    draw = run.layout.rows(
        sampling(student, temperature=temperature, max_new_tokens=max_new_tokens)
    )
    loss = objectives.distillation(
        text_divergences(student.model, temperature=temperature),
        settings.declared_loss,
    )
    samples = run.key(f"{name}/samples")

    def batch(number: int) -> tuple[bool, TokenBatch]:
        if settings.is_on_policy(number):
            return True, ask(number)[0]
        return False, answers.batch(batch_indices(number, len(rows), size, run.seed))

    evaluation = None
    if evaluation_rows:
        sums = run.layout.sums(functools.partial(loss_sums, loss_fn=loss))
        held_out = Responses(rows=evaluation_rows, **shape)
        measure = _held_out_loss(sums, held_out, teach, samples, devices=len(run.layout.devices))
        evaluation = Evaluation(metrics=measure, every=max(settings.fit.updates // 5, 1))
    params = fit_batches(
        run,
        name,
        Learner(params=student.trained, frozen=student.frozen, loss_fn=loss),
        batch,
        settings=settings.fit,
        prepare=_taught(draw, teach, samples),
        evaluation=evaluation,
    )
    return student.with_trained(params)


def _taught(
    draw: Callable, teach: Teach, samples: jax.Array
) -> Callable[[TrainState, tuple[bool, TokenBatch]], tuple[DistillationBatch, dict[str, float]]]:
    """Responses of the data, or of the student of the moment, with the teacher's logits."""

    def prepare(
        state: TrainState, given: tuple[bool, TokenBatch]
    ) -> tuple[DistillationBatch, dict[str, float]]:
        on_policy, responses = given
        if on_policy:
            key = jax.random.fold_in(samples, state.step)
            responses = draw((state.all_params, key), responses)
        measured = {
            "distill/on_policy": float(on_policy),
            "response/length": float(responses.response_mask.sum(axis=1).mean()),
        }
        return teach(responses), measured

    return prepare


def _held_out_loss(
    sums: Callable, held_out: Responses, teach: Teach, samples: jax.Array, *, devices: int
) -> Callable[[Any], dict[str, float]]:
    """The divergence of some parameters on held-out responses."""
    padded = -(-held_out.size // devices) * devices

    def evaluate(params: Any) -> dict[str, float]:
        parts = map(held_out.batch, evaluation_batches(len(held_out.rows), held_out.size))
        taught = (teach(pad_rows(part, padded)[0]) for part in parts)
        return {"validation/loss": mean_metrics(sums, (params, samples), taught)["loss"]}

    return evaluate


def teaching(run: Run, teacher: TextModel, vocab_size: int) -> Teach:
    """`TokenBatch -> DistillationBatch`: the teacher's pass over some responses.

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
    """`((params, key), prompts) -> TokenBatch` with the student's responses."""
    decoding: dict[str, Any] = {
        "eos_id": student.tokenizer.stop_ids,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }

    def draw(shared: Tree, prompts: TokenBatch) -> TokenBatch:
        params, key = shared
        return sample(student.model, params, prompts, key, **decoding).batch

    return draw
