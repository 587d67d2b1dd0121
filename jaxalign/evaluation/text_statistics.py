"""Statistics of samples: variety, length, repetition, copying, perplexity."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

Tokens = Sequence[Hashable]


def ngrams(tokens: Tokens, n: int) -> list[tuple]:
    """All n-grams of a text, in order; none if the text is shorter.

    >>> ngrams("abc", 2)
    [('a', 'b'), ('b', 'c')]
    """
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def distinct(samples: Iterable[Tokens], n: int) -> float:
    """Distinct-n: different over all n-grams of the samples, in (0, 1]; NaN if there are none.

    It falls as samples are added, so compare only methods with equally many tokens.

    Source: Li et al. 2016, https://arxiv.org/abs/1510.03055, section 5.

    >>> distinct(["abab"], 2)  # ab, ba, ab
    0.6666666666666666
    """
    grams = [gram for sample in samples for gram in ngrams(sample, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repeated(samples: Iterable[Tokens], n: int) -> float:
    """Share of n-grams that occurred earlier in the same sample; NaN if there are none.

    >>> repeated(["abab", "cdef"], 2)  # one of six
    0.16666666666666666
    """
    total = again = 0
    for sample in samples:
        grams = ngrams(sample, n)
        total += len(grams)
        again += len(grams) - len(set(grams))
    return again / total if total else float("nan")


def copied_ngrams(samples: Iterable[Tokens], training: Iterable[Tokens], n: int) -> float:
    """Share of the samples' n-grams found in a training text; NaN if there are none."""
    known = {gram for text in training for gram in ngrams(text, n)}
    copied = [gram in known for sample in samples for gram in ngrams(sample, n)]
    return float(np.mean(copied)) if copied else float("nan")


def copied_whole(samples: Sequence[Tokens], training: Iterable[Tokens]) -> float:
    """Share of samples that stand, whole and in order, inside one training text.

    Empty samples count as not copied. NaN if there are no samples.

    >>> copied_whole(["bcd", "abd"], ["abcde"])
    0.5
    """
    if not samples:
        return float("nan")
    characters: dict[Hashable, str] = {}
    corpus = "\0".join(_as_text(text, characters) for text in training)
    copied = [len(sample) > 0 and _as_text(sample, characters) in corpus for sample in samples]
    return float(np.mean(copied))


def sample_statistics(
    samples: Sequence[Tokens],
    *,
    ended: Sequence[bool] | None = None,
    training: Sequence[Tokens] | None = None,
    copy_n: int = 5,
) -> dict[str, float | None]:
    """Statistics of samples for a result row: those that need tokens only.

    Args:
      samples: token ids (or words) of each response, without EOS and padding.
      ended: whether each sample ended by itself, not at the token limit; None: not known.
      training: token ids of the texts trained on; None: copying is not measured.
      copy_n: length of the runs for `copied`.

    Returns:
      `distinct_1`, `distinct_2`, `repeated_3` in [0, 1]; `length` in tokens; `ended`, `copied`
      (n-grams), `copied_whole` (samples) in [0, 1] or None.
    """
    lengths = [len(sample) for sample in samples]
    return {
        "distinct_1": distinct(samples, 1),
        "distinct_2": distinct(samples, 2),
        "repeated_3": repeated(samples, 3),
        "length": float(np.mean(lengths)) if lengths else float("nan"),
        "ended": None if ended is None or not len(ended) else float(np.mean(ended)),
        "copied": None if training is None else copied_ngrams(samples, training, copy_n),
        "copied_whole": None if training is None else copied_whole(samples, training),
    }


def _as_text(tokens: Tokens, characters: dict[Hashable, str]) -> str:
    """One character a token, so that a run of tokens is a substring; never the separator."""
    return "".join(characters.setdefault(token, chr(len(characters) + 1)) for token in tokens)


def perplexity(logps: np.ndarray, tokens: int) -> float:
    """exp of the mean negative log-probability of a token.

      exp( -(1 / N) sum_t log p(y_t) )

    Args:
      logps: `[...]` nats, of tokens or summed over texts.
      tokens: N, how many tokens they are of.

    >>> round(perplexity(np.log([0.25, 0.25]), tokens=2), 6)
    4.0
    """
    return float(np.exp(-logps.sum() / tokens))
