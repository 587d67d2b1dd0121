"""Scorers of texts for evaluation alone: ridge regression and a rule-based lexicon."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.errors import UserError

Scorer = Callable[[Sequence[str]], np.ndarray]


class RidgeJudge:
    """Ridge regression of the mean human rating on TF-IDF weights of words and word pairs.

      min_w sum_i (y_i - w . x_i - b)^2 + alpha |w|^2

    Fit on texts that no policy or reward model was trained on. Scores are on the scale of the
    ratings. It is a judge of sentiment, as its raters were: it knows nothing of grammar.

    Args:
      alpha: ridge penalty.
    """

    def __init__(self, alpha: float = 1.0):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge

        self._features = TfidfVectorizer(
            ngram_range=(1, 2), token_pattern=r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]", sublinear_tf=True
        )
        self._ridge = Ridge(alpha=alpha)

    def fit(self, texts: Sequence[str], ratings: np.ndarray) -> "RidgeJudge":
        """The judge, fitted to one mean rating per text."""
        if len(texts) != len(ratings):
            raise UserError(f"the judge got {len(texts)} texts and {len(ratings)} mean ratings")
        self._ridge.fit(self._features.fit_transform(texts), np.asarray(ratings, np.float64))
        return self

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Predicted mean ratings `[N]` of texts."""
        if not len(texts):
            return np.zeros(0)
        return np.asarray(self._ridge.predict(self._features.transform(texts)), np.float64)


def rule_based_scorer() -> Scorer:
    """VADER's compound score in [-1, 1], from a lexicon and rules: a judge that learned nothing.

    Source: Hutto and Gilbert 2014, https://ojs.aaai.org/index.php/ICWSM/article/view/14550.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as missing:
        raise UserError(
            "the rule-based judge needs vaderSentiment: pip install vaderSentiment"
        ) from missing
    analyzer = SentimentIntensityAnalyzer()

    def scores(texts: Sequence[str]) -> np.ndarray:
        return np.array([analyzer.polarity_scores(text)["compound"] for text in texts], np.float64)

    return scores
