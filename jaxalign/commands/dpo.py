"""`jaxalign dpo`: a policy from a user's preferences, by DPO or another loss on pairs."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxalign.config.defaults import following
from jaxalign.config.dpo import DPOConfig
from jaxalign.data.chat import TokenRow
from jaxalign.data.records import GoldPreference, Preference
from jaxalign.evaluation.bootstrap import mean_estimate, prompt_blocks
from jaxalign.objectives import PAIR_LOSSES
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.preferences import pair_logps, train_dpo
from jaxalign.recipes.reference_cache import kept_of
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.scoring import response_logps
from jaxalign.recipes.text_models import TextModel, load_text_model, start_of
from jaxalign.recipes.user_data import fitting, read_held_out, read_rows


def run(config: DPOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    fit = following(config.dpo.fit, "dpo", start_of(policy, config.lora))
    data = fitting(config.data, policy)
    loss = config.dpo.loss_name
    kind = GoldPreference if PAIR_LOSSES[loss].needs("gold_logps") else Preference
    rows = read_rows(data, kind, tokenizer=policy.tokenizer, log=directory)
    chosen, rejected, *gold = zip(*rows.tokens, strict=True)
    held_out = read_held_out(data, Preference, tokenizer=policy.tokenizer, log=directory)
    settled = fit.settled(len(chosen) / fit.settings.rows)
    config = dataclasses.replace(config, dpo=dataclasses.replace(config.dpo, fit=settled))
    inputs = inputs_of(
        models={"policy": policy},
        data=rows.records,
        held_out=held_out.records,
        adapter=config.adapter,
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        score_reference = kept_of(config)
        policy = with_adapters(policy, config.adapter, config.lora, run.key("lora"))
        trained = train_dpo(
            run,
            "dpo",
            policy,
            chosen,
            rejected,
            config.dpo,
            temperature=config.temperature,
            gold=gold[0] if gold else None,
            score_reference=score_reference,
        )
        scorers = []
        if len(held_out):
            accuracy = implicit_accuracy(
                run,
                trained,
                policy if config.dpo.uses_reference else None,
                held_out.tokens,
                blocks=prompt_blocks([record.prompt for record in held_out.records]),
                temperature=config.temperature,
                per_token=PAIR_LOSSES[loss].per_token,
                ld_alpha=config.dpo.ld_alpha,
                score_reference=score_reference,
            )
            scorers = [{"scorer": "implicit reward of the policy", **accuracy}]
        return finish(
            run,
            trained,
            {"method": "DPO" if loss == "dpo" else f"DPO ({loss})"},
            reward_model=scorers,
        )


def implicit_accuracy(
    run: Run,
    policy: TextModel,
    reference: TextModel | None,
    pairs: list[tuple[TokenRow, ...]],
    *,
    blocks: np.ndarray,
    temperature: float,
    per_token: bool = False,
    ld_alpha: float | None = None,
    score_reference: Callable[..., np.ndarray] = response_logps,
) -> dict:
    """Share of pairs whose chosen side has the larger implicit reward, with its interval: the
    log-ratio to the reference, as the loss weighs its tokens.

    Args:
      policy: the trained policy.
      reference: None compares the policy's own log-probabilities.
      pairs: chosen and rejected rows.
      blocks: `[N]` which of the pairs belong to one prompt.
      temperature: of both distributions.
      per_token: whether the loss compares means over tokens.
      ld_alpha: weight of the tokens beyond the shorter response; None: all count alike.
      score_reference: `response_logps`, or one that keeps what it computes.
    """
    chosen, rejected = zip(*pairs, strict=True)
    sides = chosen, rejected

    def logps(score: Callable[..., np.ndarray], model: TextModel) -> list[np.ndarray]:
        scored = functools.partial(score, run, model)
        found = pair_logps(scored, sides, ld_alpha=ld_alpha, temperature=temperature)
        return [np.asarray(side) for side in (found.chosen, found.rejected)]

    rewards = logps(response_logps, policy)
    if reference is not None:
        starts = logps(score_reference, reference)
        rewards = [ours - theirs for ours, theirs in zip(rewards, starts, strict=True)]
    if per_token:
        counts = [[max(row.is_response.sum(), 1) for row in side] for side in sides]
        rewards = [side / np.array(count) for side, count in zip(rewards, counts, strict=True)]
    right = 0.5 + 0.5 * np.sign(rewards[0] - rewards[1])
    return mean_estimate(right, blocks=blocks).columns("pair_accuracy")
