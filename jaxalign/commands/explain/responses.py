"""Batches of SFT, of losses on pairs and of losses on labelled responses, from rows of data."""

import dataclasses
import functools

import jax

from jaxalign.commands.explain.batch import (
    Prepared,
    chosen_rows,
    optimizer_of_updates,
    other_policy,
    policy_of,
    score_of,
    with_shift,
)
from jaxalign.config.explain import ExplainConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.formats import AnyRecord
from jaxalign.data.preference_batches import preference_batch
from jaxalign.data.records import Preference, PromptCompletion, Unpaired
from jaxalign.errors import UserError
from jaxalign.explanation import explain_pairs, explain_texts, explain_unpaired
from jaxalign.models.functions import text_logps
from jaxalign.recipes.preferences import (
    pair_objective,
    pair_reference,
    unpaired_objective,
    with_mismatched,
)
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.sft import sft_objective
from jaxalign.recipes.text_models import TextModel
from jaxalign.recipes.user_data import Rows, read_split, with_max_length


def texts(config: ExplainConfig) -> Prepared:
    """Batch of supervised fine-tuning, from texts of the data."""
    policy = policy_of(config)
    read = rows_trained_on(config, PromptCompletion, policy)
    rows, index = chosen_rows(config, read.texts, "texts")
    return Prepared(
        policy=policy,
        batch=token_batch(rows, pad_id=policy.tokenizer.pad_id, index=index),
        objective=sft_objective(policy),
        explain=explain_texts,
        optimizer=optimizer_of_updates(policy, config.dpo.fit.optimizer, "dpo"),
    )


def pairs(config: ExplainConfig) -> Prepared:
    """Batch of a preference loss, from pairs of the data."""
    policy = policy_of(config)
    pairs_read = rows_trained_on(config, Preference, policy)
    rows, index = chosen_rows(config, pairs_read.tokens, "pairs")
    chosen, rejected = zip(*rows, strict=True)
    batch = preference_batch(chosen, rejected, pad_id=policy.tokenizer.pad_id, index=index)
    settings, loss = config.dpo, config.dpo.declared_loss
    if loss.needs("gold_logps"):
        raise UserError(f"loss {loss.name} reads three responses; explain shows pairs")
    given = {"temperature": config.temperature}
    reference = other_policy(config, "reference", policy)
    summed = pair_reference(score_of(reference), (chosen, rejected), settings, **given)
    shown = None
    if settings.uses_reference:
        read = jax.jit(text_logps(reference.model, **given))
        shown = tuple(read(reference.params, side) for side in (batch.chosen, batch.rejected))
    prepared = Prepared(
        policy=policy,
        batch=dataclasses.replace(batch, reference=summed),
        objective=pair_objective(policy, settings, temperature=config.temperature),
        explain=functools.partial(
            explain_pairs,
            reference=shown,
            beta=loss.reward_scale,
            per_token=loss.per_token,
            ld_alpha=settings.ld_alpha,
        ),
        optimizer=optimizer_of_updates(policy, settings.fit.optimizer, "dpo"),
    )
    return with_shift(prepared, config, settings.fit)


def labelled_responses(config: ExplainConfig) -> Prepared:
    """Batch of KTO, BCO and the like, from responses of the data that are labelled good or bad."""
    policy = policy_of(config)
    settings = config.kto
    read = rows_trained_on(config, Unpaired, policy)
    everything = read.texts
    _, index = chosen_rows(config, everything, "labelled responses")
    given = {"temperature": config.temperature}
    reference = other_policy(config, "reference", policy)
    labels = [record.label for record in read.records]
    data = with_mismatched(everything, labels, settings).take(index)
    data = data.scored(score_of(reference), temperature=config.temperature)
    length = longest([*data.rows, *(data.mismatched or ())])
    batch = data.batch(index=index, pad_id=policy.tokenizer.pad_id, length=length)
    shown = jax.jit(text_logps(reference.model, **given))(reference.params, batch.responses)
    beta = settings.declared_loss.reward_scale
    prepared = Prepared(
        policy=policy,
        batch=batch,
        objective=unpaired_objective(policy, settings, temperature=config.temperature),
        explain=functools.partial(explain_unpaired, reference=shown, beta=beta),
        optimizer=optimizer_of_updates(policy, settings.fit.optimizer, "kto"),
    )
    return with_shift(prepared, config, settings.fit)


def rows_trained_on(
    config: ExplainConfig, kind: type[AnyRecord], policy: TextModel
) -> Rows[AnyRecord]:
    """The rows of the data without those that a run holds out for evaluation."""
    data = with_max_length(config.data, policy)
    return read_split(data, kind, seed=config.seed, tokenizer=policy.tokenizer, log=None)[0]
