"""Accuracy of trained models on held-out pairs and labelled responses."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign.batches.preferences import PairLengths
from jaxalign.data.chat import TokenRow
from jaxalign.diagnostics import concordance
from jaxalign.evaluation.bootstrap import mean_estimate
from jaxalign.losses.dpo import log_ratios, no_reference
from jaxalign.losses.length_normalised_dpo import per_token as mean_of_tokens
from jaxalign.recipes.preferences import pair_logps
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import response_logps, score_rows
from jaxalign.recipes.text_models import TextModel

Pairs = Sequence[tuple[TokenRow, ...]]


def pair_accuracy(run: Run, reward: TextModel, pairs: Pairs, *, blocks: np.ndarray) -> dict:
    """Share of pairs whose chosen side scores higher, ties half, with a 95% bootstrap interval.

    Args:
      pairs: chosen and rejected rows.
      blocks: `[N]` which of the pairs belong to one prompt; the interval is over prompts.
    """
    scores = score_rows(run, reward, [row for pair in pairs for row in pair]).reshape(-1, 2)
    return _accuracy(concordance(scores[:, 0], scores[:, 1]), blocks)


def implicit_accuracy(
    run: Run,
    policy: TextModel,
    reference: TextModel | None,
    pairs: Pairs,
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
    sums = {"ld_alpha": ld_alpha, "temperature": temperature}

    def logps(score: Callable[..., np.ndarray], model: TextModel):
        return pair_logps(functools.partial(score, run, model), (chosen, rejected), **sums)

    ours = logps(response_logps, policy)
    start = no_reference(ours) if reference is None else logps(score_reference, reference)
    rewards = log_ratios(ours, start)
    if per_token:
        counts: Any = [np.array([row.is_response.sum() for row in s]) for s in (chosen, rejected)]
        rewards = mean_of_tokens(rewards, PairLengths(chosen=counts[0], rejected=counts[1]))
    return _accuracy(np.asarray(concordance(rewards.chosen, rewards.rejected)), blocks)


def label_accuracy(
    run: Run,
    policy: TextModel,
    reference: TextModel,
    rows: Sequence[TokenRow],
    *,
    labels: np.ndarray,
    blocks: np.ndarray,
    temperature: float,
    score_reference: Callable[..., np.ndarray] = response_logps,
) -> dict:
    """Share of responses that the policy made likelier if labelled good, less likely if bad, with
    its interval.

    Args:
      labels: `[N]` bool, true where the response is good.
      blocks: `[N]` which of the responses answer one prompt.
      score_reference: `response_logps`, or one that keeps what it computes.
    """
    ours = response_logps(run, policy, rows, temperature=temperature)
    start = score_reference(run, reference, rows, temperature=temperature)
    likelier, less_likely = concordance(ours, start), concordance(start, ours)
    return _accuracy(np.where(labels, likelier, less_likely), blocks)


def _accuracy(right: np.ndarray, blocks: np.ndarray) -> dict:
    return mean_estimate(right, blocks=blocks).columns("pair_accuracy")
