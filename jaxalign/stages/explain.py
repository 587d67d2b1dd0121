"""`jaxalign explain`: one batch of a method, token by token, as a page."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import objectives
from jaxalign.advantages import missing_eos_penalty, shaped_rewards
from jaxalign.batches import PairLogps
from jaxalign.config import OptimizerConfig
from jaxalign.config_explain import ExplainConfig
from jaxalign.data.batching import batch_indices, preference_batch, prompt_batch, token_batch
from jaxalign.data.records import Preference, Prompt, PromptCompletion
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.explanation import (
    Explanation,
    Sum,
    explain_decisions,
    explain_pairs,
    explain_responses,
    explain_texts,
)
from jaxalign.group_rollouts import learned_scores, response_batch, sample_groups
from jaxalign.kl import k1
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.dpo import no_reference
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.objectives.pair_losses import PAIR_LOSSES
from jaxalign.report.explanation import explanation_page
from jaxalign.rollouts import minibatch
from jaxalign.scoring import text_decisions, text_logps, text_policy
from jaxalign.stages.explain_run import of_run
from jaxalign.stages.run import optimizer_of
from jaxalign.stages.text_models import TextModel, load_text_model, with_heads
from jaxalign.stages.user_data import fitting, read_records, token_rows
from jaxalign.text_rollouts import sample_and_score, text_experience
from jaxalign.train.checkpoints import write_atomically
from jaxalign.train.checks import (
    checked,
    truncated_fields,
    watched,
    watched_decisions,
    watched_ratios,
)
from jaxalign.train.step import initial_state, train_step

ROUNDING = 1e-5  # of float32 sums in another order, relative to the loss or to 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch with all that a step on it needs.

    params: of the policy. batch: of the method. model: what the objective reads.
    make_loss: `model -> loss_fn`. watch: the model with conditions, for `--check`.
    explain: `(params, key) -> Explanation`. optimizer: of the method's settings.
    """

    tokenizer: Tokenizer
    params: Any
    batch: Any
    model: Callable
    make_loss: Callable
    explain: Callable[[Any, jax.Array], Explanation]
    optimizer: OptimizerConfig
    watch: Callable[[Callable], Callable] = lambda model: model


def run(config: ExplainConfig) -> Explanation:
    """Write the page, print the sums that were compared and what `--check` found."""
    config = of_run(config) if config.run else config
    prepare = {"sft": texts, "dpo": pairs, "ppo": decisions, "grpo": groups}
    prepared = prepare[config.method](config)
    constant = dataclasses.replace(prepared.optimizer, schedule="constant", warmup_steps=0)
    optimizer = optimizer_of(constant, max(config.updates, 1))
    step = functools.partial(train_step, optimizer=optimizer)
    plain = jax.jit(functools.partial(step, loss_fn=prepared.make_loss(prepared.model)))
    state = initial_state(prepared.params, optimizer, jax.random.key(config.seed))
    for _ in range(config.updates):
        state, _ = plain(state, prepared.batch)
    explanation = prepared.explain(state.params, jax.random.fold_in(state.key, state.step))
    result = plain(state, prepared.batch)
    of_step = Sum(name="loss of the step", loss=float(result[1]["loss"]), table=explanation.loss)
    explanation = dataclasses.replace(explanation, sums=[*explanation.sums, of_step])
    findings = []
    if config.check:
        loss = watched(prepared.make_loss(prepared.watch(prepared.model)))
        findings = check(functools.partial(step, loss_fn=loss), state, prepared.batch, result)
    finish(config, explanation, prepared.tokenizer, findings)
    return explanation


def check(watched_step, state, batch, result) -> list[tuple[str, str | None]]:
    """What was looked for, and what was found of it: None where all is well.

    The page shows the numbers of the plain step, whether it is checked or not. The watched one is
    another program, which the compiler fuses in its own way: it may differ by rounding.
    """
    message, watched_result = checked(watched_step, state, batch)
    loss, watched_loss = (float(metrics["loss"]) for _, metrics in (result, watched_result))
    apart = abs(loss - watched_loss) > ROUNDING * max(1.0, abs(loss))
    other = f"loss {watched_loss:.9g} under checks, {loss:.9g} without" if apart else None
    return [
        ("NaN, empty mask, ratio overflow", message),
        ("dtypes that truncate", ", ".join(truncated_fields(batch)) or None),
        ("a loss that changes under checks", other),
    ]


def finish(config: ExplainConfig, explanation: Explanation, tokenizer, findings) -> None:
    """Write the page and say what stands on it."""
    page = explanation_page(config.method, explanation, tokenizer, findings)
    write_atomically(Path(config.output), page.encode())
    for total in explanation.sums:
        verdict = "equal" if total.agrees else "DIFFERENT"
        print(f"{total.name}: {total.loss:.7g}, from the table {total.table:.7g}: {verdict}")
    for name, found in findings:
        print(f"check: {name}: {found or 'nothing found'}")
    print(config.output)


def chosen_rows(config: ExplainConfig, rows: list, kind: str) -> tuple[list, np.ndarray]:
    """The rows of that batch in the order of a run with this seed."""
    if not rows:
        raise UserError(f"--data.path {config.data.path} holds no {kind}")
    index = batch_indices(config.batch, len(rows), config.rows, config.seed)
    return [rows[i] for i in index], index


def policy_of(config: ExplainConfig) -> TextModel:
    """The policy, without dropout."""
    policy = load_text_model(config.policy, "policy", head="logits")
    heads = ("logits", "value") if config.method == "ppo" else ("logits",)
    return with_heads(policy, heads, jax.random.key(config.seed), dropout=0.0)


def frozen(config: ExplainConfig, option: str, policy: TextModel) -> TextModel:
    """Another policy, or the same one where the option is empty."""
    folder = getattr(config, option)
    return load_text_model(folder, option, head="logits") if folder else policy


def texts(config: ExplainConfig) -> Prepared:
    """Supervised fine-tuning on rows of the data."""
    policy = policy_of(config)
    data = fitting(config.data, policy)
    records = read_records(data, PromptCompletion, tokenizer=policy.tokenizer, log=None)
    rows, index = chosen_rows(config, token_rows(records, policy.tokenizer), "texts")
    batch = token_batch([row for (row,) in rows], pad_id=policy.tokenizer.pad_id, index=index)
    model = text_logps(policy.model, temperature=config.temperature)

    def explain(params, key):
        return explain_texts(objectives.sft, model, params, batch, key=key)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=objectives.sft,
        explain=explain,
        optimizer=config.dpo.fit.optimizer,
    )


def pairs(config: ExplainConfig) -> Prepared:
    """A preference loss on pairs of the data."""
    policy = policy_of(config)
    data = fitting(config.data, policy)
    records = read_records(data, Preference, tokenizer=policy.tokenizer, log=None)
    rows, index = chosen_rows(config, token_rows(records, policy.tokenizer), "pairs")
    chosen, rejected = zip(*rows, strict=True)
    batch = preference_batch(chosen, rejected, pad_id=policy.tokenizer.pad_id, index=index)
    reference = frozen(config, "reference", policy)
    read = jax.jit(text_logps(reference.model, temperature=config.temperature))
    sides = [read(reference.params, side) for side in (batch.chosen, batch.rejected)]
    settings = config.dpo
    summed = frozen_sums(config, batch, sides)
    batch = dataclasses.replace(batch, reference=summed)
    model = text_logps(policy.model, temperature=config.temperature)
    make_loss = functools.partial(
        objectives.paired,
        loss=settings.loss_name,
        ld_alpha=settings.ld_alpha,
        wpo=settings.wpo,
        **settings.hyperparameters,
    )
    shown = sides if settings.uses_reference else None
    beta = settings.hyperparameters["beta"]

    def explain(params, key):
        return explain_pairs(make_loss, model, params, batch, shown, beta=beta, key=key)

    return Prepared(
        tokenizer=policy.tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=settings.fit.optimizer,
    )


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


def sampled(config: ExplainConfig, policy: TextModel, sample_from, *, repeats: int = 1):
    """Responses to prompts of the data, sampled and scored.

    Args:
      config: says who samples, who scores, and from which prompts.
      policy: stands for a behaviour policy or a reference that is not given.
      sample_from: `sample_and_score`, or `sample_groups`.
      repeats: responses to each prompt, in rows side by side.
    """
    reward = load_text_model(config.reward, "reward", head="score")
    behaviour, reference = (frozen(config, name, policy) for name in ("behaviour", "reference"))
    heads = policy.model.config.heads_out
    if behaviour.model.config.heads_out != heads:
        behaviour = with_heads(behaviour, heads, jax.random.key(config.seed))
    tokenizer = policy.tokenizer
    records = read_records(fitting(config.data, policy), Prompt, tokenizer=tokenizer, log=None)
    rows, _ = chosen_rows(config, token_rows(records, tokenizer), "prompts")
    ids = [row.tokens.tolist() for (row,) in rows for _ in range(repeats)]
    collect = sample_from(
        behaviour.model,
        reference.model,
        reward.model,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        eos_id=tokenizer.eos_id,
    )
    key = jax.random.fold_in(jax.random.key(config.seed), config.batch)
    shared = (behaviour.params, reference.params, reward.params, key)
    return jax.jit(collect)(shared, prompt_batch(ids, pad_id=tokenizer.pad_id))


def decisions(config: ExplainConfig) -> Prepared:
    """PPO on responses sampled for prompts of the data."""
    policy = policy_of(config)
    tokenizer, settings = policy.tokenizer, config.ppo
    scored = sampled(config, policy, sample_and_score)
    rows = scored.samples.batch
    scores = missing_eos_penalty(
        scored.scores,
        rows.tokens,
        rows.response_mask,
        eos_id=tokenizer.eos_id,
        penalty=settings.missing_eos_penalty,
    )
    shaping = {"kl_coef": settings.kl_coef}
    batch = text_experience(
        scored, scores, gamma=settings.gamma, gae_lambda=settings.gae_lambda, **shaping
    )
    batch = minibatch(batch, jnp.arange(len(rows.tokens)))
    kl = k1(scored.samples.logps, scored.reference_logps)
    recorded = {
        "reference": scored.reference_logps,
        "KL": kl,
        "reward": shaped_rewards(scores, kl, rows.response_mask, **shaping),
    }
    clip = {"clip_range": settings.clip_range, "dual_clip": settings.dual_clip}
    values = {"value_clip_range": settings.value_clip_range}
    make_loss = functools.partial(
        objectives.ppo,
        value_coef=settings.value_coef,
        entropy_coef=settings.entropy_coef,
        **clip,
        **values,
    )
    model = text_policy(policy.model, temperature=config.temperature)

    def explain(params, key):
        return explain_decisions(
            make_loss, model, params, batch, clip=clip, recorded=recorded, key=key, **values
        )

    return Prepared(
        tokenizer=tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=settings.optimizer,
        watch=watched_ratios,
    )


def groups(config: ExplainConfig) -> Prepared:
    """A critic-free policy gradient on groups of responses to prompts of the data."""
    policy = policy_of(config)
    tokenizer, settings = policy.tokenizer, config.grpo
    method = settings.method
    limits = {"eos_id": tokenizer.eos_id, "longest": config.max_new_tokens}
    samples = sampled(config, policy, sample_groups, repeats=settings.group_size)
    batch, _ = response_batch(samples, method, group_size=settings.group_size, **limits)
    scores = {
        "score": samples.scored.scores,
        "learned score": learned_scores(samples, method, **limits),
    }
    recorded = {"KL": k1(samples.behaviour_logps, samples.scored.reference_logps)}
    make_loss = functools.partial(
        objectives.group_policy_gradient, method=method, length=config.max_new_tokens
    )
    model = text_decisions(policy.model, temperature=config.temperature)

    def explain(params, key):
        shown = {"method": method, "recorded": recorded, "totals": scores}
        return explain_responses(make_loss, model, params, batch, key=key, **shown)

    return Prepared(
        tokenizer=tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=settings.optimizer,
        watch=lambda model: watched_decisions(model, batch),
    )
