"""Distillation on text: responses from the data or of the student, the teacher's logits, a step."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches import DistillationBatch, TokenBatch
from jaxalign.config_distill import DistillSettings
from jaxalign.data.batching import batch_indices, evaluation_batches, token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.errors import UserError
from jaxalign.sampling import sample
from jaxalign.scoring import text_divergences, text_logits
from jaxalign.stages.run import Run
from jaxalign.stages.text_models import TextModel, with_heads
from jaxalign.stages.training import longest, prompt_batches
from jaxalign.train.layouts import pad_rows
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
    temperature: float,
    max_new_tokens: int,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """The student from the teacher's distributions, resuming where an earlier run stopped.

    The student has no dropout: it is the same distribution in sampling and in the loss.

    Args:
      rows: prompts with responses; the student's samples continue their prompts.
      settings: loss and loop.
      temperature: of teacher and student, in sampling and training.
      max_new_tokens: longest response of the student.
      evaluation_rows: held out; their divergence is measured along the way.
    """
    student = with_heads(student, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    size, tokenizer = settings.fit.batch_size, student.tokenizer
    prompts = prompts_of(rows) if settings.on_policy else []
    length = longest([*rows, *evaluation_rows])
    sampled = max(map(len, prompts)) + max_new_tokens if prompts else 0
    check_memory(settings, max(length, sampled), tokenizer.vocab_size)
    teach = teaching(run, teacher)
    draw = run.layout.rows(
        sampling(student, temperature=temperature, max_new_tokens=max_new_tokens)
    )
    samples = run.key(f"{name}/samples")

    asked = prompt_batches(run, prompts, pad_id=tokenizer.pad_id, batch_size=size)

    def answered(number: int) -> TokenBatch:
        index = batch_indices(number, len(rows), size, run.seed)
        chosen = [rows[i] for i in index]
        return token_batch(chosen, pad_id=tokenizer.pad_id, length=length, index=index)

    def batch(number: int) -> tuple[bool, TokenBatch]:
        on_policy = settings.is_on_policy(number)
        return on_policy, (asked if on_policy else answered)(number)

    def prepare(state: TrainState, given: tuple[bool, TokenBatch]):
        on_policy, responses = given
        if on_policy:
            key = jax.random.fold_in(samples, state.step)
            responses = draw((state.params, key), responses)
        measured = {
            "distill/on_policy": float(on_policy),
            "response/length": float(responses.response_mask.sum(axis=1).mean()),
        }
        return teach(responses), measured

    loss = objectives.distillation(
        text_divergences(student.model, temperature=temperature),
        settings.loss,
        **settings.hyperparameters,
    )
    sums = run.layout.sums(functools.partial(loss_sums, loss_fn=loss))

    def evaluate(params) -> dict[str, float]:
        parts = evaluation_parts(evaluation_rows, tokenizer.pad_id, length=length, size=size)
        found = mean_metrics(sums, (params, samples), map(teach, parts))
        return {"validation/loss": found["loss"]}

    params = run.fit(
        name,
        loss,
        student.params,
        batch,
        settings.fit,
        prepare=prepare,
        evaluate=evaluate if evaluation_rows else None,
        evaluate_every=max(settings.fit.steps // 5, 1),
    )
    return dataclasses.replace(student, params=params)


def teaching(run: Run, teacher: TextModel):
    """`TokenBatch -> DistillationBatch`: the teacher's pass over some responses."""
    logits = run.layout.rows(text_logits(teacher.model))
    frozen = run.layout.place(teacher.params)
    return lambda rows: DistillationBatch(rows=rows, teacher_logits=logits(frozen, rows))


def sampling(student: TextModel, *, temperature: float, max_new_tokens: int):
    """`((params, key), prompts) -> TokenBatch` with the student's responses."""
    decoding: dict[str, Any] = {
        "eos_id": student.tokenizer.eos_id,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }

    def draw(shared, prompts: TokenBatch) -> TokenBatch:
        params, key = shared
        return sample(student.model, params, prompts, key, **decoding).batch

    return draw


def evaluation_parts(rows: Sequence[TokenRow], pad_id: int, *, length: int, size: int):
    """Batches of one shape that go through all rows once."""
    for index in evaluation_batches(len(rows), size):
        part = token_batch([rows[i] for i in index], pad_id=pad_id, length=length, index=index)
        yield pad_rows(part, size)[0]


def prompts_of(rows: Sequence[TokenRow]) -> list[list[int]]:
    """What stands before the first response token of every row."""
    prompts = [row.tokens[: int(np.argmax(row.is_response))].tolist() for row in rows]
    if not all(prompts):
        raise UserError(
            "a text without a prompt cannot be sampled in a vocabulary without a BOS token; give "
            "rows with prompt and completion, or set --distill.on_policy 0"
        )
    return prompts


def check_memory(settings: DistillSettings, length: int, vocabulary: int) -> None:
    """The teacher's float32 logits of a batch must fit the memory that is allowed for them."""
    size: Any = settings.fit.batch_size
    needed = 4 * size * length * vocabulary / 2**30
    if needed > settings.max_logits_gib:
        raise UserError(
            f"the teacher's logits of {size} responses of {length} tokens from {vocabulary} words "
            f"take {needed:.3g} GiB, distill.max_logits_gib is {settings.max_logits_gib:g}; lower "
            "distill.fit.batch_size or data.max_length, or raise it"
        )
