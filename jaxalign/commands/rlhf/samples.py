"""What is measured on a policy's samples: judges, reward model, exact KL, perplexity,
statistics.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.data.batching import evaluation_batches, prompt_batch
from jaxalign.data.chat import TokenIds
from jaxalign.evaluation.judges import Scorer
from jaxalign.evaluation.text_statistics import perplexity, sample_statistics
from jaxalign.evaluation.win_rates import win_rate
from jaxalign.kl import fused_exact_kl
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.models.functions import CHUNK, logps_of
from jaxalign.numerics.masking import masked_sum
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.sampling import sample


@pytree
class Measured:
    """Samples of a policy, a row each, with what the frozen models say.

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
class Panel:
    """Everything that policies are compared by; nobody here took part in training, but the reward.

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
class Sampled:
    """A method's samples, `[N, S]` each: S samples for each of N prompts.

    responses: token ids without the one that ended it, which `ends` holds: one or none.
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


def sample_and_measure(
    policy, reward, *, temperature: float, max_new_tokens: int, eos_id: int | tuple[int, ...]
):
    """`(shared, prompts) -> Measured`; `shared` is (policy, reference, reward parameters, key)."""

    def measured(shared, prompts: TokenBatch) -> Measured:
        params, reference_params, reward_params, key = shared
        drawn = sample(
            policy,
            params,
            prompts,
            key,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            temperature=temperature,
        )
        rows = drawn.batch
        ours, theirs = (
            policy.apply({"params": p}, rows.tokens, rows.mask) for p in (params, reference_params)
        )
        fused = {"temperature": temperature, "chunk_size": CHUNK}
        reference_logps = logps_of(theirs, rows.tokens, temperature=temperature)
        kl = fused_exact_kl(
            ours.hidden,
            ours.unembedding,
            theirs.hidden,
            theirs.unembedding,
            softcaps=(ours.softcap, theirs.softcap),
            token_ranges=ours.token_ranges,
            **fused,
        )
        mask = rows.response_mask
        return Measured(
            tokens=rows.tokens,
            response_mask=mask,
            reward_scores=reward.apply({"params": reward_params}, rows.tokens, rows.mask).scores,
            kl=masked_sum(kl, mask, axis=1),
            kl_estimate=masked_sum(drawn.logps - reference_logps, mask, axis=1),
            reference_logps=masked_sum(reference_logps, mask, axis=1),
        )

    return measured


class Sampler:
    """Draws and measures samples of any policy of the reference's architecture, compiled once."""

    def __init__(self, run: Run, panel: Panel):
        self.panel = panel
        self.length = max(len(prompt) for prompt in panel.prompts)
        self.measure = run.layout.rows(
            sample_and_measure(
                panel.reference.model,
                panel.reward.model,
                temperature=panel.temperature,
                max_new_tokens=panel.max_new_tokens,
                eos_id=panel.reference.tokenizer.stop_ids,
            )
        )

    def __call__(self, params, key, *, samples: int = 1, prompts: int | None = None) -> Sampled:
        """`samples` responses to each of the first `prompts` prompts."""
        panel = self.panel
        repeated = [p for p in panel.prompts[:prompts] for _ in range(samples)]
        params = {name: params[name] for name in panel.reference.params}
        shared = (params, panel.reference.params, panel.reward.params, key)
        parts = []
        for index in evaluation_batches(len(repeated), panel.rows):
            chosen = [repeated[i] for i in index]
            pad_id = panel.reference.tokenizer.pad_id
            batch = prompt_batch(chosen, pad_id=pad_id, length=self.length, index=index)
            batch, real = pad_rows(batch, panel.rows)
            parts.append(trim_rows(self.measure(shared, batch), real))
        return self._sampled(jax.tree.map(lambda *x: np.concatenate(x), *parts), repeated, samples)

    def _sampled(self, measured: Measured, prompts, samples: int) -> Sampled:
        panel, tokenizer = self.panel, self.panel.reference.tokenizer
        drawn = [
            row[mask].tolist()
            for row, mask in zip(measured.tokens, measured.response_mask, strict=True)
        ]
        ends = [row[-1:] if row[-1:] and row[-1] in tokenizer.stop_ids else [] for row in drawn]
        responses = [row[: len(row) - len(end)] for row, end in zip(drawn, ends, strict=True)]
        texts = [tokenizer.decode([*p, *row]) for p, row in zip(prompts, responses, strict=True)]

        def fold(values):
            return np.asarray(values).reshape(-1, samples)

        def nested(items):
            return [items[i : i + samples] for i in range(0, len(items), samples)]

        return Sampled(
            texts=nested(texts),
            responses=nested(responses),
            ends=nested(ends),
            ended=fold([len(end) for end in ends]) > 0,
            judge_scores=fold(panel.judge(texts)),
            rule_scores=fold(panel.rule(texts)),
            reward_scores=fold(measured.reward_scores),
            kl=fold(measured.kl),
            kl_estimate=fold(measured.kl_estimate),
            reference_logps=fold(measured.reference_logps),
            tokens=fold(measured.response_mask.sum(axis=1)),
        )


def result_row(method: str, sampled: Sampled, baseline: Sampled, panel: Panel) -> dict:
    """One row of the result table: a method's samples against the baseline's on the same
    prompts.
    """
    flat = [response for group in sampled.responses for response in group]
    statistics = sample_statistics(
        flat, ended=sampled.ended.ravel().tolist(), training=panel.training
    )
    judged = win_rate(sampled.judge_scores, baseline.judge_scores).columns("win_rate")
    ruled = win_rate(sampled.rule_scores, baseline.rule_scores).columns("rule_win_rate")
    return {
        "method": method,
        **judged,
        **ruled,
        "judge_score": float(sampled.judge_scores.mean()),
        "reward_score": float(sampled.reward_scores.mean()),
        "kl": float(sampled.kl.mean()),
        "kl_per_token": float(sampled.kl.sum() / sampled.tokens.sum()),
        "kl_estimate": float(sampled.kl_estimate.mean()),
        "sample_perplexity": perplexity(sampled.reference_logps, sampled.tokens.sum()),
        **statistics,
    }
