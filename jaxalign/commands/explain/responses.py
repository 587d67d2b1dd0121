"""Batches of the methods that learn from given responses: texts, pairs, labelled ones."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign import objectives
from jaxalign.batches.preferences import PreferenceBatch
from jaxalign.commands.explain.batch import (
    Prepared,
    chosen_rows,
    frozen,
    optimizer_of_updates,
    policy_of,
    score_of,
    shift_of,
    with_statistics,
)
from jaxalign.config.explain import ExplainConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.preference_batches import preference_batch
from jaxalign.data.records import Preference, PromptCompletion, Unpaired
from jaxalign.errors import UserError
from jaxalign.explanation import explain_pairs, explain_texts, explain_unpaired
from jaxalign.models.functions import text_logps, text_logps_and_collisions
from jaxalign.numerics.types import Tree
from jaxalign.recipes.preferences import pair_loss, pair_reference, with_mismatched
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.text_models import TextModel
from jaxalign.recipes.user_data import fitting, read_rows


def texts(config: ExplainConfig) -> Prepared:
    """Supervised fine-tuning on rows of the data."""
    policy = policy_of(config)
    data = fitting(config.data, policy)
    read = read_rows(data, PromptCompletion, tokenizer=policy.tokenizer, log=None)
    rows, index = chosen_rows(config, read.texts, "texts")
    batch = token_batch(rows, pad_id=policy.tokenizer.pad_id, index=index)
    model = text_logps(policy.model, temperature=config.temperature)

    def explain(state: Tree, key: jax.Array):
        return explain_texts(objectives.sft, model, state.params, batch, key=key)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=objectives.sft,
        explain=explain,
        optimizer=optimizer_of_updates(policy, config.dpo.fit.optimizer, "dpo"),
    )


def pairs(config: ExplainConfig) -> Prepared:
    """A preference loss on pairs of the data."""
    policy = policy_of(config)
    data = fitting(config.data, policy)
    pairs_read = read_rows(data, Preference, tokenizer=policy.tokenizer, log=None)
    rows, index = chosen_rows(config, pairs_read.tokens, "pairs")
    chosen, rejected = zip(*rows, strict=True)
    batch = preference_batch(chosen, rejected, pad_id=policy.tokenizer.pad_id, index=index)
    settings, loss = config.dpo, config.dpo.declared_loss
    if loss.needs("gold_logps"):
        raise UserError(f"loss {loss.name} reads three responses; explain shows pairs")
    reference = frozen(config, "reference", policy)
    score, given = score_of(reference), {"temperature": config.temperature}
    batch = dataclasses.replace(
        batch, reference=pair_reference(score, (chosen, rejected), settings, **given)
    )
    read = jax.jit(text_logps(reference.model, **given))
    sides = [read(reference.params, side) for side in (batch.chosen, batch.rejected)]
    model, chosen_loss = text_logps(policy.model, **given), pair_loss(settings)
    unweighted: dict[str, Any] = chosen_loss | {"wpo": False}  # rewards have no weights
    paired = functools.partial(objectives.paired, **chosen_loss)
    make_loss = aligned(paired, policy, batch, config.temperature) if settings.wpo else paired
    shown = sides if settings.uses_reference else None
    sums = {"per_token": loss.per_token, "ld_alpha": settings.ld_alpha}
    beta = loss.reward_scale

    def explain(state: Tree, key: jax.Array):
        make = with_statistics(make_loss, state.statistics)
        given = {"reference": shown, "beta": beta, "key": key}
        return explain_pairs(make, model, state.params, batch, **given, **sums)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=optimizer_of_updates(policy, settings.fit.optimizer, "dpo"),
        shift=shift_of(config, policy, loss, settings.fit),
        measure=objectives.paired_sums(model, **unweighted),
    )


def aligned(
    paired: Callable[..., Any], policy: TextModel, batch: PreferenceBatch, temperature: float
):
    """`token_logps -> loss_fn` of WPO, whose alignment has no gradient and is read once."""
    read = jax.jit(text_logps_and_collisions(policy.model, temperature=temperature))
    collisions = [read(policy.params, side)[1] for side in (batch.chosen, batch.rejected)]

    def make_loss(token_logps: Callable[..., Any]):
        return paired(lambda *given: (token_logps(*given), jnp.concatenate(collisions)))

    return make_loss


def labelled(config: ExplainConfig) -> Prepared:
    """A loss on responses of the data that are labelled good or bad."""
    policy = policy_of(config)
    data, settings = fitting(config.data, policy), config.kto
    loss = settings.declared_loss
    read = read_rows(data, Unpaired, tokenizer=policy.tokenizer, log=None)
    everything = read.texts
    _, index = chosen_rows(config, everything, "labelled responses")
    reference, given = frozen(config, "reference", policy), {"temperature": config.temperature}
    labels = [record.label for record in read.records]
    data = with_mismatched(everything, labels, settings).take(index)
    data = data.scored(score_of(reference), **given)
    length = longest([*data.rows, *(data.mismatched or ())])
    batch = data.batch(index=index, pad_id=policy.tokenizer.pad_id, length=length)
    shown = jax.jit(text_logps(reference.model, **given))(reference.params, batch.responses)
    model = text_logps(policy.model, **given)
    make_loss = functools.partial(objectives.unpaired, loss=loss)
    beta = loss.reward_scale

    def explain(state: Tree, key: jax.Array):
        make = with_statistics(make_loss, state.statistics)
        given = {"reference": shown, "beta": beta, "key": key}
        return explain_unpaired(make, model, state.params, batch, **given)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=optimizer_of_updates(policy, settings.fit.optimizer, "kto"),
        shift=shift_of(config, policy, loss, settings.fit),
        measure=objectives.unpaired_sums(model, loss),
    )
