"""Batches of the methods that learn from given responses: texts, pairs, labelled ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import objectives
from jaxalign.batches.preferences import PairLogps, PreferenceBatch
from jaxalign.commands.explain.batch import (
    Prepared,
    chosen_rows,
    frozen,
    optimizer_of_updates,
    policy_of,
    shift_of,
    with_statistics,
)
from jaxalign.config.explain import ExplainConfig
from jaxalign.data.batching import (
    mismatched_rows,
    preference_batch,
    token_batch,
    unpaired_batch,
)
from jaxalign.data.records import Preference, PromptCompletion, Unpaired
from jaxalign.errors import UserError
from jaxalign.explanation import explain_pairs, explain_texts, explain_unpaired
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.dpo import no_reference
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.models.functions import text_logps, text_logps_and_collisions
from jaxalign.objectives.pair_losses import PAIR_LOSSES, UNPAIRED_LOSSES
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

    def explain(state, key):
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
    given = read_rows(data, Preference, tokenizer=policy.tokenizer, log=None)
    rows, index = chosen_rows(config, given.tokens, "pairs")
    chosen, rejected = zip(*rows, strict=True)
    batch = preference_batch(chosen, rejected, pad_id=policy.tokenizer.pad_id, index=index)
    reference = frozen(config, "reference", policy)
    read = jax.jit(text_logps(reference.model, temperature=config.temperature))
    sides = [read(reference.params, side) for side in (batch.chosen, batch.rejected)]
    settings = config.dpo
    summed = frozen_sums(config, batch, sides)
    batch = dataclasses.replace(batch, reference=summed)
    model = text_logps(policy.model, temperature=config.temperature)
    paired = functools.partial(
        objectives.paired,
        loss=settings.loss_name,
        ld_alpha=settings.ld_alpha,
        wpo=settings.wpo,
        **settings.hyperparameters,
    )
    make_loss = aligned(paired, policy, batch, config.temperature) if settings.wpo else paired
    shown = sides if settings.uses_reference else None
    named = PAIR_LOSSES[settings.loss_name]
    sums = {"per_token": named.per_token, "ld_alpha": settings.ld_alpha}
    beta = settings.hyperparameters["beta"]

    def explain(state, key):
        make = with_statistics(make_loss, state.statistics)
        return explain_pairs(make, model, state.params, batch, shown, beta=beta, key=key, **sums)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=optimizer_of_updates(policy, settings.fit.optimizer, "dpo"),
        shift=shift_of(config, policy, named, settings.fit),
    )


def aligned(paired, policy: TextModel, batch: PreferenceBatch, temperature: float):
    """`token_logps -> loss_fn` of WPO, whose alignment has no gradient and is read once."""
    read = jax.jit(text_logps_and_collisions(policy.model, temperature=temperature))
    collisions = [read(policy.params, side)[1] for side in (batch.chosen, batch.rejected)]

    def make_loss(token_logps):
        return paired(lambda *given: (token_logps(*given), jnp.concatenate(collisions)))

    return make_loss


def frozen_sums(config: ExplainConfig, batch, sides) -> PairLogps | None:
    """Summed log-probabilities of the reference as the loss takes them."""
    settings = config.dpo
    if PAIR_LOSSES[settings.loss_name].needs("gold_logps"):
        raise UserError(f"loss {settings.loss_name} reads three responses; explain shows pairs")
    masks = (batch.chosen.response_mask, batch.rejected.response_mask)
    if settings.ld_alpha is not None:
        public = np.minimum(*(mask.sum(axis=1) for mask in masks))
        sums = [
            length_desensitised_logps(side, mask, public, alpha=settings.ld_alpha)
            for side, mask in zip(sides, masks, strict=True)
        ]
    else:
        sums = [sequence_logps(side, mask) for side, mask in zip(sides, masks, strict=True)]
    pair = PairLogps(chosen=sums[0], rejected=sums[1])
    if settings.uses_reference:
        return pair
    return no_reference(pair) if settings.reference_free else None


def labelled(config: ExplainConfig) -> Prepared:
    """A loss on responses of the data that are labelled good or bad."""
    policy = policy_of(config)
    data, settings = fitting(config.data, policy), config.kto
    named = UNPAIRED_LOSSES[settings.loss]
    given = read_rows(data, Unpaired, tokenizer=policy.tokenizer, log=None)
    everything = given.texts
    rows, index = chosen_rows(config, everything, "labelled responses")
    others = None
    if named.needs("kl"):  # paired within the data, as a run does it
        mismatched = mismatched_rows(everything, max_length=longest(everything))
        others = [mismatched[i] for i in index]
    batch = unpaired_batch(
        rows,
        np.array([given.records[i].label for i in index]),
        None,
        pad_id=policy.tokenizer.pad_id,
        length=longest([*rows, *(others or ())]),
        index=index,
        mismatched=others,
    )
    reference = frozen(config, "reference", policy)
    read = jax.jit(text_logps(reference.model, temperature=config.temperature))
    shown = read(reference.params, batch.responses)
    batch = dataclasses.replace(
        batch, reference=sequence_logps(shown, batch.responses.response_mask)
    )
    if batch.mismatched is not None:
        theirs = read(reference.params, batch.mismatched)
        summed = sequence_logps(theirs, batch.mismatched.response_mask)
        batch = dataclasses.replace(batch, mismatched_reference=summed)
    model = text_logps(policy.model, temperature=config.temperature)
    make_loss = functools.partial(
        objectives.unpaired, loss=settings.loss, **settings.hyperparameters
    )
    beta = settings.hyperparameters["beta"]

    def explain(state, key):
        make = with_statistics(make_loss, state.statistics)
        return explain_unpaired(make, model, state.params, batch, shown, beta=beta, key=key)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=optimizer_of_updates(policy, settings.fit.optimizer, "kto"),
        shift=shift_of(config, policy, named, settings.fit),
    )
