"""The human ratings as data of a language task: tokenizer, token rows, prompts, comparisons."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from jaxalign.config.rlhf import RLHFConfig
from jaxalign.data.batching import truncated_row
from jaxalign.data.chat import TokenRow, text_row
from jaxalign.data.preferences import (
    Groups,
    Pairs,
    cross_block_groups,
    mixed_pairs,
    same_block_groups,
)
from jaxalign.data.ratings import Ratings, load_ratings
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.errors import UserError

Text = TypeVar("Text", str, TokenRow)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Splits of the ratings, and the policy's texts as token rows.

    policy, validation, judge, evaluation: disjoint movie sentences with their ratings.
    rated: policy and validation together, what the reward model learns from.
    tokenizer: learned from the policy's texts, or of the model that it starts from.
    rows: of `rated`, in its order, so those of the policy come first.
    evaluation_rows: of `evaluation`.
    sft_rows: the policy's rows, then the product sentences if they are used.
    max_length: longest row.
    lowercase: texts are read in lower case.
    """

    policy: Ratings
    validation: Ratings
    rated: Ratings
    judge: Ratings
    evaluation: Ratings
    tokenizer: Tokenizer
    rows: list[TokenRow]
    evaluation_rows: list[TokenRow]
    sft_rows: list[TokenRow]
    max_length: int
    lowercase: bool

    def token_rows(self, texts: Sequence[str]) -> list[TokenRow]:
        """Token rows of texts: BOS, text, EOS; a text that is too long is cut."""
        texts = [text.lower() for text in texts] if self.lowercase else texts
        return [truncated_row(text_row(text, self.tokenizer), self.max_length) for text in texts]

    @property
    def policy_rows(self) -> list[TokenRow]:
        """Token rows of the texts of `policy`."""
        return self.rows[: len(self.policy)]


def first_tokens(rows: Sequence[TokenRow], tokens: tuple[int, int]) -> list[np.ndarray]:
    """Prompts: BOS and the first tokens of each text, one length after the other in turn.

    A text needs one more token than its prompt, or there is nothing to continue.

    Args:
      rows: whole texts.
      tokens: fewest and most tokens of a prompt, without BOS.
    """
    fewest, most = tokens
    lengths = [1 + fewest + i % (most - fewest + 1) for i in range(len(rows))]
    pairs = zip(rows, lengths, strict=True)
    return [row.tokens[:length] for row, length in pairs if len(row) > length + 1]


def spread(texts: Sequence[Text], number: int | None) -> list[Text]:
    """A number of texts at equal distances in the order of sentiment; None: all."""
    if number is None or number >= len(texts):
        return list(texts)
    return [texts[i * len(texts) // number] for i in range(number)]


def read_corpus(config: RLHFConfig, tokenizer: Tokenizer | None = None) -> Corpus:
    """Splits and tokenizer of the data set, which is prepared on first use."""
    movies, products = load_ratings("movies"), load_ratings("products")
    policy = movies.part("policy")
    product_texts = products.part("policy", "policy_validation").texts if config.products else []
    texts = [*policy.texts, *product_texts]
    tokenizer = tokenizer or train_tokenizer(
        [text.lower() for text in texts] if config.lowercase else texts,
        vocab_size=config.tokenizer.vocab_size,
        kind=config.tokenizer.kind,
    )
    corpus = Corpus(
        policy=policy,
        validation=movies.part("policy_validation"),
        rated=movies.part("policy", "policy_validation"),
        judge=movies.part("judge"),
        evaluation=movies.part("evaluation"),
        tokenizer=tokenizer,
        rows=[],
        evaluation_rows=[],
        sft_rows=[],
        max_length=config.max_length,
        lowercase=config.lowercase,
    )
    rows = corpus.token_rows(corpus.rated.texts)
    return dataclasses.replace(
        corpus,
        rows=rows,
        evaluation_rows=corpus.token_rows(corpus.evaluation.texts),
        sft_rows=[*rows[: len(policy)], *corpus.token_rows(product_texts)],
    )


def comparison_groups(
    ratings: Ratings, *, groups: int, group_size: int, same_rater_share: float, seed: int
) -> Groups:
    """Groups within blocks (the same people) and across blocks, shuffled."""
    within = round(groups * same_rater_share)
    parts = []
    if within:
        parts.append(same_block_groups(ratings, within, group_size, seed))
    if within < groups:
        parts.append(cross_block_groups(ratings, groups - within, group_size, seed))
    order = np.random.default_rng(seed).permutation(groups)
    return Groups(
        np.concatenate([part.texts for part in parts])[order],
        np.concatenate([part.preferences for part in parts])[order],
    )


def human_pairs(corpus: Corpus, config: RLHFConfig) -> Pairs:
    """Preference pairs of single people, of rated texts that fit the length whole."""
    pairs = mixed_pairs(
        corpus.rated, config.pairs, config.seed, same_rater_share=config.same_rater_share
    )
    whole = np.array([row.tokens[-1] == corpus.tokenizer.eos_id for row in corpus.rows])
    index = np.flatnonzero(whole[pairs.chosen] & whole[pairs.rejected])
    if not len(index):
        raise UserError(
            f"each of the {len(pairs)} human pairs has a text of more than max_length "
            f"{config.max_length} tokens; raise pairs or max_length, in another --output"
        )
    return pairs.take(index)
