"""What the stages have in common below the command line: rows in, a trained text model out.

The same functions train on a user's data (`jaxalign sft`, ...) and in the main job (`jaxalign
rlhf`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches import PairLogps, SharedPreferenceBatch
from jaxalign.config import DPOSettings, FitConfig, KTOSettings, RewardSettings
from jaxalign.data.batching import (
    batch_indices,
    comparison_batch,
    evaluation_batches,
    mismatched_rows,
    shared_lengths,
    shared_preference_batch,
    token_batch,
    unpaired_batch,
)
from jaxalign.data.chat import TokenRow
from jaxalign.data.preferences import Groups
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.heads import character_features, token_features
from jaxalign.scoring import (
    head_scores,
    pooled_texts,
    response_logps_of,
    text_logps,
    text_logps_and_collisions,
    text_scores,
)
from jaxalign.stages.run import Run
from jaxalign.stages.text_batches import TextBatches, counted
from jaxalign.stages.text_models import TextModel, shallow, with_heads
from jaxalign.train.layouts import pad_rows, trim_rows

BAG = ("tokens", "pairs", "runs")  # the trained weights of the score head's bag
TRAINED = (*BAG, "readout", "bias")
SPACE = "Ġ"  # how byte-level vocabularies spell a space
# Tokens and rows of a scoring pass, at most; all passes over some rows have one shape.
SCORING_TOKENS = 16_384
SCORING_ROWS = 256


def longest(rows: Sequence[TokenRow]) -> int:
    """Length of the longest row."""
    return max(len(row) for row in rows)


def train_sft(
    run: Run,
    name: str,
    policy: TextModel,
    batches: TextBatches,
    settings: FitConfig,
    *,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """Next-token cross-entropy on the responses of `bucketed` or `packed` rows."""

    def evaluate(params):
        return {
            "perplexity": perplexity(
                run, dataclasses.replace(policy, params=params), evaluation_rows
            )
        }

    params = run.fit(
        name,
        objectives.sft(text_logps(policy.model)),
        policy.trained,
        batches.batch,
        settings,
        frozen=policy.frozen,
        evaluate=evaluate if evaluation_rows else None,
        evaluate_every=max(settings.updates // 5, 1),
        tokens_per_step=batches.tokens,
        prepare=counted,
    )
    return policy.with_trained(params)


def train_reward(
    run: Run,
    name: str,
    base: TextModel,
    rows: Sequence[TokenRow],
    groups: Groups,
    settings: RewardSettings,
) -> tuple[TextModel, float]:
    """Bradley-Terry on compared texts: `train_scores` on groups.

    Args:
      groups: who was preferred to whom; `groups.texts` are positions in `rows`.
    """
    groups_per_batch = settings.fit.rows // groups.texts.shape[1]
    length = longest(rows)

    def batch(number: int):
        chosen = batch_indices(number, len(groups.texts), groups_per_batch, run.seed)
        return comparison_batch(
            [[rows[i] for i in group] for group in groups.texts[chosen]],
            groups.preferences[chosen],
            margins=None if groups.margins is None else groups.margins[chosen],
            pad_id=base.tokenizer.pad_id,
            length=length,
            index=groups.texts[chosen],
        )

    return train_scores(run, name, base, rows, settings, objective=objectives.reward, batches=batch)


def train_scores(
    run: Run,
    name: str,
    base: TextModel,
    rows: Sequence[TokenRow],
    settings: RewardSettings,
    *,
    objective: Callable,
    batches: Callable[[int], Any],
) -> tuple[TextModel, float]:
    """A model of the scores of whole texts, scaled to mean 0 and deviation 1 over `rows`.

    Args:
      base: where trunk and vocabulary come from.
      rows: all texts.
      settings: of head, loss and loop.
      objective: `objectives.reward` or `objectives.ranking`.
      batches: batch number -> what the objective takes.

    Returns:
      The reward model, and the deviation that its scores had before: times that, a difference of
      scores is the log-odds of a preference again.
    """
    model = with_heads(
        base if settings.layers is None else shallow(base, settings.layers),
        ("score",),
        run.key(f"{name}/init"),
        score_pooling=settings.pooling,
        score_bag=settings.bag,
        score_characters=settings.bag_characters if settings.bag else 0,
        score_bag_buckets=settings.bag_buckets,
        score_bag_power=settings.bag_power,
        dropout=settings.dropout,
    )
    if settings.bag:
        model = with_rarity(model, rows)
    scores_of, params, frozen = text_scores(model.model), model.trained, model.frozen
    if settings.trunk == "frozen":
        pooled = by_rows(run, pooled_texts(model.model), model.params, rows, base.tokenizer.pad_id)
        scores_of, frozen = head_scores(model.model.config), {"pooled": pooled}
        params = {"score": model.params["score"]}
    loss = objective(
        scores_of,
        centering=settings.centering,
        l2=settings.bag_l2 if settings.bag else 0.0,
        penalised=lambda params: {k: v for k, v in params["score"].items() if k in BAG},
    )
    params = run.fit(name, loss, params, batches, settings.fit, frozen=frozen)
    trained = dataclasses.replace(model, params={**model.params, **params})
    scores = score_rows(run, trained, rows)
    return standardised(trained, scores), float(scores.std())


def with_rarity(reward: TextModel, rows: Sequence[TokenRow]) -> TextModel:
    """The bag's frozen factors: inverse document frequencies, and how tokens are spelled.

      log((1 + N) / (1 + number of texts with the feature)) + 1

    BOS and EOS are spelled as a space: they are borders of words.

    Source: Sparck Jones 1972, https://doi.org/10.1108/eb026526, smoothed as in scikit-learn.
    """
    config, tokenizer, head = reward.model.config, reward.tokenizer, dict(reward.params["score"])
    counts = {name: np.zeros(head[name].shape) for name in BAG if name in head}
    if config.score_characters:
        head["spelling"] = spelling(tokenizer, config.score_characters, config.vocab_size)
    for index in evaluation_batches(len(rows), SCORING_ROWS):
        part = token_batch([rows[i] for i in index], pad_id=tokenizer.pad_id, length=longest(rows))
        features = bag_features(config, head, pad_rows(part, SCORING_ROWS)[0])
        for name, (buckets, present) in jax.device_get(features).items():
            for found, real in zip(buckets[: len(index)], present, strict=False):
                counts[name][np.unique(found[real])] += 1
    for name, count in counts.items():
        head[f"{name}_rarity"] = np.float32(np.log((1 + len(rows)) / (1 + count)) + 1)
    return dataclasses.replace(reward, params=reward.params | {"score": head})


@functools.partial(jax.jit, static_argnums=0)
def bag_features(config: TransformerConfig, head: dict, batch) -> dict:
    """What the bag of that score head counts in the texts."""
    features = token_features(batch.tokens, batch.mask, config.score_bag_buckets)
    if not config.score_characters:
        return features
    codes = head["spelling"].astype(np.uint32)[batch.tokens]
    return features | character_features(codes, batch.mask, config.score_bag_buckets)


def spelling(tokenizer: Tokenizer, longest_token: int, vocab_size: int) -> np.ndarray:
    """`[V, longest_token]` float32 characters of every token, 0 after its last.

    The model's V may be larger than the tokenizer's: what it lacks is spelled as nothing.
    """
    codes = np.zeros((vocab_size, longest_token), np.float32)
    borders = (tokenizer.bos_id, *tokenizer.stop_ids)
    for number in range(tokenizer.vocab_size):
        text = SPACE if number in borders else tokenizer.token(number)[:longest_token]
        codes[number, : len(text)] = [ord(character) for character in text]
    codes[tokenizer.pad_id] *= tokenizer.pad_id in borders
    return codes


def standardised(reward: TextModel, scores: np.ndarray) -> TextModel:
    """The same ranking with mean 0 and deviation 1 over the texts that got these scores.

    The score is linear in every trained weight of its head, so the scale goes into all of them and
    the shift into the bias.
    """
    deviation = scores.std() or 1.0  # a model that tells no texts apart stays as it is
    head = {
        name: value if name not in TRAINED else jax.tree.map(lambda x: x / deviation, value)
        for name, value in reward.params["score"].items()
    }
    shift = np.float32(scores.mean() / deviation)
    if "readout" in head:
        head["readout"] = head["readout"] | {"bias": head["readout"]["bias"] - shift}
    else:
        head["bias"] = head["bias"] - shift
    return dataclasses.replace(reward, params=reward.params | {"score": head})


def train_dpo(
    run: Run,
    name: str,
    policy: TextModel,
    chosen: Sequence[TokenRow],
    rejected: Sequence[TokenRow],
    settings: DPOSettings,
    *,
    temperature: float,
    gold: Sequence[TokenRow] | None = None,
    score_reference: Callable[..., np.ndarray] | None = None,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
) -> TextModel:
    """A loss on pairs from the policy, which is the reference; its log-probabilities are computed
    once, and not at all for a loss without a reference.

    The policy is the distribution at that temperature, in the loss as in sampling. Without
    dropout, so that policy and reference are the same function at the first step; only a trained
    adapter that goes on with `lora.dropout` differs from itself by that noise.

    Args:
      gold: best responses, for the losses that imitate one.
      score_reference: `response_logps`, which is the default, or one that keeps what it computes.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    named = objectives.PAIR_LOSSES[settings.loss_name]
    gold = gold if named.needs("gold_logps") else None
    sides = [side for side in (chosen, rejected, gold) if side is not None]
    lengths = shared_lengths(list(zip(*sides, strict=True)))
    reference = None
    if settings.uses_reference:
        reference = pair_logps(
            functools.partial(score_reference or response_logps, run, policy),
            (chosen, rejected),
            ld_alpha=settings.ld_alpha,
            temperature=temperature,
        )
    elif settings.reference_free:
        reference = zero_logps(len(chosen))

    def batch(number: int):
        index = batch_indices(number, len(chosen), settings.fit.rows, run.seed)
        pairs: SharedPreferenceBatch = shared_preference_batch(
            [[side[i] for i in index] for side in sides],
            pad_id=policy.tokenizer.pad_id,
            lengths=lengths,
            index=index,
        )
        return dataclasses.replace(pairs, reference=jax.tree.map(lambda x: x[index], reference))

    loss = objectives.paired(
        (text_logps_and_collisions if settings.wpo else text_logps)(
            policy.model, temperature=temperature
        ),
        settings.loss_name,
        ld_alpha=settings.ld_alpha,
        wpo=settings.wpo,
        axis_name=run.layout.axis_name,
        **settings.hyperparameters,
    )
    params = run.fit(
        name,
        loss,
        policy.trained,
        batch,
        settings.fit,
        frozen=policy.frozen,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        **running_shift_of(named),
    )
    return policy.with_trained(params)


def train_unpaired(
    run: Run,
    name: str,
    policy: TextModel,
    rows: Sequence[TokenRow],
    labels: Sequence[bool],
    settings: KTOSettings,
    *,
    temperature: float,
    score_reference: Callable[..., np.ndarray] | None = None,
) -> TextModel:
    """A loss on labelled responses from the policy, which is the reference; its log-probabilities
    are computed once. As `train_dpo` otherwise.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    named = objectives.UNPAIRED_LOSSES[settings.loss]
    good, length = np.asarray(labels, bool), longest(rows)
    score = functools.partial(score_reference or response_logps, run, policy)
    reference = score(rows, temperature=temperature)
    others: list[TokenRow] | None = None
    other_logps = None
    if named.needs("kl"):
        others = mismatched_rows(rows, max_length=length)
        other_logps = score(others, temperature=temperature)

    def batch(number: int):
        index = batch_indices(number, len(rows), settings.fit.rows, run.seed)
        return unpaired_batch(
            [rows[i] for i in index],
            good[index],
            reference[index],
            pad_id=policy.tokenizer.pad_id,
            length=length,
            index=index,
            mismatched=None if others is None else [others[i] for i in index],
            mismatched_reference=None if other_logps is None else other_logps[index],
        )

    logps = text_logps(policy.model, temperature=temperature)
    params = run.fit(
        name,
        objectives.unpaired(
            logps, settings.loss, axis_name=run.layout.axis_name, **settings.hyperparameters
        ),
        policy.trained,
        batch,
        settings.fit,
        frozen=policy.frozen,
        measure=objectives.mismatched_log_ratios(logps) if named.needs("kl") else None,
        **running_shift_of(named),
    )
    return policy.with_trained(params)


def running_shift_of(named: objectives.NamedLoss) -> dict[str, Any]:
    """What `Run.fit` is told of the running mean that a loss reads, if it reads one."""
    if not named.needs("shift"):
        return {}
    return {"statistics": objectives.no_shift(), "track": objectives.track_shift}


def pair_logps(
    score: Callable[..., np.ndarray],
    sides: tuple[Sequence[TokenRow], Sequence[TokenRow]],
    *,
    ld_alpha: float | None,
    temperature: float,
) -> PairLogps:
    """Response log-probabilities of both sides, `[N]`; with `ld_alpha` those of LD-DPO.

    What LD-DPO counts in full is a prefix, so its sums are a mixture of those over the prefixes
    and those over all.

    Args:
      score: `(rows, temperature=...) -> [N]`, of a model.
    """
    logps: list[Any] = [score(side, temperature=temperature) for side in sides]
    if ld_alpha is not None:
        counts = [np.array([row.is_response.sum() for row in side]) for side in sides]
        for number, side in enumerate(sides):
            prefixes = [
                first_responses(row, public)
                for row, public in zip(side, np.minimum(*counts), strict=True)
            ]
            prefix_logps = score(prefixes, temperature=temperature)
            logps[number] = ld_alpha * logps[number] + (1 - ld_alpha) * prefix_logps
    return PairLogps(chosen=logps[0], rejected=logps[1])


def zero_logps(rows: int) -> PairLogps:
    """The reference of a loss that is made reference-free: `[N]` zeros a side."""
    zeros: Any = np.zeros(rows, np.float32)
    return PairLogps(chosen=zeros, rejected=zeros)


def first_responses(row: TokenRow, count: int) -> TokenRow:
    """The same tokens; only the first `count` of the response's count as response."""
    return TokenRow(row.tokens, row.is_response & (np.cumsum(row.is_response) <= count))


def by_rows(run: Run, fn, shared, rows: Sequence[TokenRow], pad_id: int) -> np.ndarray:
    """`fn(shared, TokenBatch) -> [B, ...]` over any number of rows, in passes of one shape."""
    compiled = run.rows(fn)
    length, parts = longest(rows), []
    size = min(SCORING_ROWS, SCORING_TOKENS // length) or 1
    for index in evaluation_batches(len(rows), size):
        batch = token_batch([rows[i] for i in index], pad_id=pad_id, length=length, index=index)
        batch, real = pad_rows(batch, size)
        parts.append(trim_rows(compiled(shared, batch), real))
    return np.concatenate(parts)


def score_rows(run: Run, reward: TextModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """`[N]` reward-model scores."""
    return by_rows(run, text_scores(reward.model), reward.params, rows, reward.tokenizer.pad_id)


def response_logps(
    run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
) -> np.ndarray:
    """`[N]` log-probabilities of the responses in nats."""
    summed = response_logps_of(policy.model, temperature=temperature)
    return by_rows(run, summed, policy.params, rows, policy.tokenizer.pad_id)


def perplexity(
    run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
) -> float:
    """exp of the mean negative log-probability of a response token (EOS included)."""
    tokens = sum(int(row.is_response.sum()) for row in rows)
    logps = response_logps(run, policy, rows, temperature=temperature)
    return float(np.exp(-logps.sum() / tokens))
