"""Distillation on text: responses from the data or of the student, the teacher's logits, a step."""

import functools
from collections.abc import Sequence
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
from jaxalign.recipes.iterations import prompt_batches
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.sampling import sample
from jaxalign.train.loop import mean_metrics
from jaxalign.train.step import TrainState, loss_sums


def train_distillation(
    run: Run,
    name: str,
    student: TextModel,
    teacher: TextModel,
    rows: Sequence[TokenRow],
    settings: DistillSettings,
    *,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    max_new_tokens: int,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """The student from the teacher's distributions, resuming where an earlier run stopped.

    The student has no dropout: it is the same distribution in sampling and in the loss.

    Args:
      rows: prompts with responses.
      settings: loss and loop.
      prompts: what the student continues by itself; token ids, BOS included.
      temperature: of teacher and student, in sampling and training.
      max_new_tokens: longest response of the student.
      evaluation_rows: held out; their divergence is measured along the way.
    """
    student = with_heads(student, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    size, tokenizer = settings.fit.rows, student.tokenizer
    length = longest([*rows, *evaluation_rows])
    teach = teaching(run, teacher, student.model.config.vocab_size)
    draw = run.layout.rows(
        sampling(student, temperature=temperature, max_new_tokens=max_new_tokens)
    )
    samples = run.key(f"{name}/samples")

    ask = prompt_batches(run, prompts, tokenizer.pad_id, size=size)

    def answered(number: int) -> TokenBatch:
        index = batch_indices(number, len(rows), size, run.seed)
        chosen = [rows[i] for i in index]
        return token_batch(chosen, pad_id=tokenizer.pad_id, length=length, index=index)

    def batch(number: int) -> tuple[bool, TokenBatch]:
        on_policy = settings.is_on_policy(number)
        return on_policy, ask(number)[0] if on_policy else answered(number)

    def prepare(state: TrainState, given: tuple[bool, TokenBatch]):
        on_policy, responses = given
        if on_policy:
            key = jax.random.fold_in(samples, state.step)
            responses = draw((state.all_params, key), responses)
        measured = {
            "distill/on_policy": float(on_policy),
            "response/length": float(responses.response_mask.sum(axis=1).mean()),
        }
        return teach(responses), measured

    loss = objectives.distillation(
        text_divergences(student.model, temperature=temperature),
        settings.declared_loss,
    )
    sums = run.layout.sums(functools.partial(loss_sums, loss_fn=loss))

    def evaluate(params) -> dict[str, float]:
        parts = [
            token_batch([evaluation_rows[i] for i in index], pad_id=tokenizer.pad_id, length=length)
            for index in evaluation_batches(len(evaluation_rows), size)
        ]
        padded = -(-size // len(run.layout.devices)) * len(run.layout.devices)
        found = mean_metrics(
            sums, (params, samples), (teach(pad_rows(part, padded)[0]) for part in parts)
        )
        return {"validation/loss": found["loss"]}

    params = run.fit(
        name,
        loss,
        student.trained,
        batch,
        settings.fit,
        frozen=student.frozen,
        prepare=prepare,
        evaluate=evaluate if evaluation_rows else None,
        evaluate_every=max(settings.fit.updates // 5, 1),
    )
    return student.with_trained(params)


def teaching(run: Run, teacher: TextModel, vocab_size: int):
    """`TokenBatch -> DistillationBatch`: the teacher's pass over some responses.

    Models of one family may be padded to other sizes: of ids that are no tokens as many are left
    out or put behind as make the student's number of logits.
    """
    logits_of_teacher = text_logits(teacher.model)

    def resized(params, rows):
        logits = logits_of_teacher(params, rows)[..., :vocab_size]
        more = vocab_size - logits.shape[-1]
        return jnp.pad(logits, ((0, 0), (0, 0), (0, more)), constant_values=NO_TOKEN)

    logits = run.layout.rows(resized)
    frozen = run.layout.place(teacher.params)
    return lambda rows: DistillationBatch(rows=rows, teacher_logits=logits(frozen, rows))


def sampling(student: TextModel, *, temperature: float, max_new_tokens: int):
    """`((params, key), prompts) -> TokenBatch` with the student's responses."""
    decoding: dict[str, Any] = {
        "eos_id": student.tokenizer.stop_ids,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }

    def draw(shared, prompts: TokenBatch) -> TokenBatch:
        params, key = shared
        return sample(student.model, params, prompts, key, **decoding).batch

    return draw
