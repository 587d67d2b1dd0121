"""Sampled responses with scores, KL, perplexity and statistics, and a policy's row of results."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.data.batching import prompt_batch
from jaxalign.data.chat import TokenIds
from jaxalign.data.example_order import evaluation_batches
from jaxalign.evaluation.judges import Scorer
from jaxalign.evaluation.text_statistics import perplexity, sample_statistics
from jaxalign.evaluation.win_rates import win_rate
from jaxalign.kl import fused_exact_kl
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.models.functions import CHUNK, logps_of
from jaxalign.models.transformer import LanguageModel, Outputs
from jaxalign.numerics.masking import masked_sum
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.sampling import sample


@pytree
class SampleBatch:
    """Samples of a policy, a row each, with the scores and log-probabilities of frozen models.

    tokens, response_mask: `[N, T]`.
    reward_scores: `[N]` reward-model scores.
    kl: `[N]` exact KL to the reference in nats, summed over the response's tokens.
    kl_estimate: `[N]` log-ratio of the drawn tokens to the reference (k1), summed.
    reference_logps: `[N]` log-probability of the response under the reference.
    """

    tokens: jax.Array
    response_mask: jax.Array
    reward_scores: jax.Array
    kl: jax.Array
    kl_estimate: jax.Array
    reference_logps: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSetup:
    """Prompts, judges and models that every policy is evaluated with; of these, training reads the
    reward model alone.

    prompts: N token prompts, BOS included.
    judge, rule: scorers of whole texts.
    reward: the reward model; reported apart, never as a win rate.
    reference: what KL is measured to.
    training: token ids of the texts trained on, to tell copies.
    temperature, max_new_tokens: of all samples.
    rows: samples drawn at the same time.
    """

    prompts: Sequence[TokenIds]
    judge: Scorer
    rule: Scorer
    reward: TextModel
    reference: TextModel
    training: Sequence[Sequence[int]]
    temperature: float
    max_new_tokens: int
    rows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSamples:
    """Samples of one method with their scores, `[N, S]` each: S samples for each of N prompts.

    responses: token ids without the one that ended it, which `ends` holds: one or none.
    ended: whether a response ended by itself.
    kl, kl_estimate, reference_logps: nats, summed over the tokens of a response.
    tokens: how many a response has.
    """

    texts: list[list[str]]
    responses: list[list[list[int]]]
    ends: list[list[list[int]]]
    ended: np.ndarray
    judge_scores: np.ndarray
    rule_scores: np.ndarray
    reward_scores: np.ndarray
    kl: np.ndarray
    kl_estimate: np.ndarray
    reference_logps: np.ndarray
    tokens: np.ndarray


def make_sample_batch(
    policy: LanguageModel,
    reward: LanguageModel,
    *,
    temperature: float,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
) -> Callable[[tuple[Any, ...], TokenBatch], SampleBatch]:
    """Sampling of one scored response to every prompt: `(shared, prompts) -> SampleBatch`.

    Args:
      policy: the architecture of policy and reference.
      reward: that of the reward model.
      temperature, max_new_tokens, eos_id: of `sample`.

    Returns:
      A function for `Layout.rows`; `shared` is (policy, reference and reward parameters, key).
    """
    decoding = {"max_new_tokens": max_new_tokens, "eos_id": eos_id, "temperature": temperature}

    def sample_batch(shared: tuple[Any, ...], prompts: TokenBatch) -> SampleBatch:
        params, reference_params, reward_params, key = shared
        samples = sample(policy, params, prompts, key, **decoding)
        rows = samples.batch
        ours, theirs = (
            policy.apply({"params": p}, rows.tokens, rows.mask) for p in (params, reference_params)
        )
        reference_logps = logps_of(theirs, rows.tokens, temperature=temperature)
        kl = token_kl(ours, theirs, temperature=temperature)
        mask = rows.response_mask
        return SampleBatch(
            tokens=rows.tokens,
            response_mask=mask,
            reward_scores=reward.apply({"params": reward_params}, rows.tokens, rows.mask).scores,
            kl=masked_sum(kl, mask, axis=1),
            kl_estimate=masked_sum(samples.logps - reference_logps, mask, axis=1),
            reference_logps=masked_sum(reference_logps, mask, axis=1),
        )

    return sample_batch


def token_kl(policy: Outputs, reference: Outputs, *, temperature: float) -> jax.Array:
    """`[B, T]` exact KL of two models' next-token distributions in nats, at that temperature."""
    assert policy.unembedding is not None and reference.unembedding is not None
    return fused_exact_kl(
        policy.hidden,
        policy.unembedding,
        reference.hidden,
        reference.unembedding,
        softcaps=(policy.softcap, reference.softcap),
        token_ranges=policy.token_ranges,
        temperature=temperature,
        chunk_size=CHUNK,
    )


class EvaluationSampler:
    """Sampler of any policy of the reference's architecture, with scores; compiled once."""

    def __init__(self, run: Run, setup: EvaluationSetup):
        self.setup = setup
        self.length = max(len(prompt) for prompt in setup.prompts)
        self.measure = run.layout.rows(
            make_sample_batch(
                setup.reference.model,
                setup.reward.model,
                temperature=setup.temperature,
                max_new_tokens=setup.max_new_tokens,
                eos_id=setup.reference.tokenizer.stop_ids,
            )
        )

    def __call__(
        self,
        params: Mapping[str, Any],
        key: jax.Array,
        *,
        samples: int = 1,
        prompts: int | None = None,
    ) -> MethodSamples:
        """Samples of a policy with their scores: `samples` responses to each of the first `prompts`
        prompts.
        """
        setup = self.setup
        repeated = [p for p in setup.prompts[:prompts] for _ in range(samples)]
        params = {name: params[name] for name in setup.reference.params}
        shared = (params, setup.reference.params, setup.reward.params, key)
        parts = []
        for index in evaluation_batches(len(repeated), setup.rows):
            chosen = [repeated[i] for i in index]
            pad_id = setup.reference.tokenizer.pad_id
            batch = prompt_batch(chosen, pad_id=pad_id, length=self.length, index=index)
            batch, real = pad_rows(batch, setup.rows)
            parts.append(trim_rows(self.measure(shared, batch), real))
        return self._samples(jax.tree.map(lambda *x: np.concatenate(x), *parts), repeated, samples)

    def _samples(
        self, batch: SampleBatch, prompts: Sequence[TokenIds], count: int
    ) -> MethodSamples:
        setup, tokenizer = self.setup, self.setup.reference.tokenizer
        token_lists = [
            row[mask].tolist() for row, mask in zip(batch.tokens, batch.response_mask, strict=True)
        ]
        ends = [
            row[-1:] if row[-1:] and row[-1] in tokenizer.stop_ids else [] for row in token_lists
        ]
        responses = [row[: len(row) - len(end)] for row, end in zip(token_lists, ends, strict=True)]
        texts = [tokenizer.decode([*p, *row]) for p, row in zip(prompts, responses, strict=True)]

        def fold(values: Any) -> np.ndarray:
            return np.asarray(values).reshape(-1, count)

        def nested(items: list) -> list[list]:
            return [items[i : i + count] for i in range(0, len(items), count)]

        return MethodSamples(
            texts=nested(texts),
            responses=nested(responses),
            ends=nested(ends),
            ended=fold([len(end) for end in ends]) > 0,
            judge_scores=fold(setup.judge(texts)),
            rule_scores=fold(setup.rule(texts)),
            reward_scores=fold(batch.reward_scores),
            kl=fold(batch.kl),
            kl_estimate=fold(batch.kl_estimate),
            reference_logps=fold(batch.reference_logps),
            tokens=fold(batch.response_mask.sum(axis=1)),
        )


def result_row(
    method: str, samples: MethodSamples, baseline: MethodSamples, setup: EvaluationSetup
) -> dict:
    """One row of the result table: a method's samples against the baseline's on the same
    prompts.
    """
    flat = [response for group in samples.responses for response in group]
    statistics = sample_statistics(
        flat, ended=samples.ended.ravel().tolist(), training=setup.training
    )
    by_judge = win_rate(samples.judge_scores, baseline.judge_scores).columns("win_rate")
    by_rule = win_rate(samples.rule_scores, baseline.rule_scores).columns("rule_win_rate")
    return {
        "method": method,
        **by_judge,
        **by_rule,
        "judge_score": float(samples.judge_scores.mean()),
        "reward_score": float(samples.reward_scores.mean()),
        "kl": float(samples.kl.mean()),
        "kl_per_token": float(samples.kl.sum() / samples.tokens.sum()),
        "kl_estimate": float(samples.kl_estimate.mean()),
        "sample_perplexity": perplexity(samples.reference_logps, samples.tokens.sum()),
        **statistics,
    }
