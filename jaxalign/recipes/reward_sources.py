"""Sources of rewards: reward models on the device and Python functions on the host."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.advantages.reward_sums import reward_sums
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import answer_text
from jaxalign.data.conversations import TextOrMessages
from jaxalign.data.records import PromptRow
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import StepRefused, UserError
from jaxalign.models.functions import ScoreColumns
from jaxalign.numerics.bounds import LARGEST
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_functions import (
    FUNCTION,
    check_columns,
    check_function,
    file_and_name,
    function_scores,
    is_function,
    load_function,
    takes,
)
from jaxalign.recipes.text_models import TextModel, load_text_model
from jaxalign.rollouts.text import ScoredSamples

MOST_UNJUDGED = 3  # in a row, after which a run stops; a shorter run after its last one
AGAIN = "mend it and run the same command again to go on"
# metrics `scores/...` of the stages, which no source may take the name of
TAKEN = ("mean", "std", "std_within_groups", "equal_groups", "opponent", "tied", "unjudged")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardSource:
    """A reward model or function, its weight in the sum of scores, and its name in the metrics.

    judge: reward model, or a function `(prompts, responses, **columns) -> scores`.
    """

    judge: Any
    weight: float = 1.0
    name: str = "reward"


Reward = TextModel | Callable[..., Any] | Sequence[RewardSource]


def sources_of(reward: Reward) -> tuple[RewardSource, ...]:
    """Reward sources of a run; a model or a function alone has weight 1.

    >>> [source.weight for source in sources_of(lambda responses: [0.0 for _ in responses])]
    [1.0]
    """
    sources = tuple(reward) if isinstance(reward, Sequence) else (RewardSource(judge=reward),)
    for source in sources:
        if is_function(source.judge) or not hasattr(source.judge, "params"):
            check_function(source.judge, f"reward {source.name}")
        if not abs(source.weight) <= LARGEST:
            raise UserError(
                f"reward {source.name} weighs {source.weight}; give a number between "
                f"{-LARGEST:,.0f} and {LARGEST:,.0f}"
            )
    if not any(source.weight for source in sources):
        raise UserError("all rewards weigh 0: nothing is learned")
    return sources


def has_functions(sources: Sequence[RewardSource]) -> bool:
    """Whether any source is a Python function, which needs texts and columns of prompts."""
    return any(is_function(source.judge) for source in sources)


def load_sources(
    reward: str, rewards: Mapping[str, float], *, place: PlaceConfig | None = None
) -> tuple[RewardSource, ...]:
    """Reward sources that a configuration names, by what `load_text_model` takes or FILE.py:NAME.

    A source is named by its directory or function; by all that the user gave where several, or a
    metric of ours, have that name.
    """
    option = "rewards" if rewards else "reward"
    weights = dict(rewards) or {reward: 1.0}
    modules: dict[str, dict[str, Any]] = {}
    judges: dict[str, Any] = {
        source: load_function(source, option, modules)
        if FUNCTION.fullmatch(source)
        else load_text_model(source, option, head="score", place=place)
        for source in weights
    }
    short = {source: _short_name(source, judge) for source, judge in judges.items()}
    counts = Counter([*short.values(), *TAKEN])
    return tuple(
        RewardSource(
            judge=judge,
            weight=weights[source],
            name=source if counts[short[source]] > 1 else short[source],
        )
        for source, judge in judges.items()
    )


def _short_name(source: str, judge: Any) -> str:
    return file_and_name(source)[1] if is_function(judge) else Path(source).resolve().name


class Judged(NamedTuple):
    """Scores of sampled responses.

    totals: `[B]` float32 weighted sums of the sources' scores; NaN where there is none.
    metrics: of the scores of each source.
    columns: `[B, F]` scores of each source; NaN where a function gave none.
    texts: the responses as functions got them; None: no function judges.
    """

    totals: np.ndarray
    metrics: dict[str, float]
    columns: np.ndarray
    texts: list[str] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judges:
    """All reward sources of a run with the prompts that samples answer; from `judges_of`.

    sources: what judges.
    tokenizer: of policy and reward models.
    asked: all prompts, as functions get them.
    rows: the columns of each.
    fields: the names of all columns.
    patience: iterations without any score after which `totals` refuses to go on.
    unjudged: such iterations in a row up to now, counted as they come.
    """

    sources: tuple[RewardSource, ...]
    tokenizer: Tokenizer
    asked: Sequence[TextOrMessages]
    rows: Sequence[Mapping[str, Any]]
    fields: Sequence[str]
    patience: int
    unjudged: list[int] = dataclasses.field(default_factory=list)

    @property
    def model(self) -> ScoreColumns:
        """The reward models in one, with a column of scores for each source."""
        judges = (source.judge for source in self.sources)
        return ScoreColumns(tuple(None if is_function(j) else j.model for j in judges))

    @property
    def params(self) -> tuple:
        """The parameters of `model`."""
        judges = (source.judge for source in self.sources)
        return tuple(None if is_function(j) else j.params for j in judges)

    def __call__(
        self, samples: TokenBatch, scores: jax.Array | np.ndarray | None, index: np.ndarray
    ) -> Judged:
        """Scores of all sources and their weighted sums.

        Args:
          samples: `[B, T]` prompts and responses.
          scores: `[B, F]` of `model`.
          index: `[B]` which of the prompts each row answers.

        Raises:
          StepRefused: see `columns` and `totals`.
        """
        texts = self.texts(samples, index) if has_functions(self.sources) else None
        columns = self.columns(scores, texts or [], index)
        totals = self.totals(columns, index)
        return Judged(totals, self.metrics(columns, totals), columns, texts)

    def columns(
        self, scores: jax.Array | np.ndarray | None, texts: list[str], index: np.ndarray
    ) -> np.ndarray:
        """Scores `[B, F]` float64 of each source; NaN where a function gave none.

        Args:
          scores, index: as in `__call__`.
          texts: `[B]` the responses, for functions.

        Raises:
          StepRefused: a model's score is not finite or beyond `LARGEST`, or a function fails.
        """
        columns = np.array(scores, np.float64)
        for i, source in enumerate(self.sources):
            if is_function(source.judge):
                columns[:, i] = self._of_function(source.judge, texts, index)
            elif (wrong := columns[~(np.abs(columns[:, i]) <= LARGEST), i]).size:
                raise StepRefused(
                    f"reward model {source.name} gives a score of {wrong[0]}; it must be finite "
                    f"and at most {LARGEST:,.0f}"
                )
        return columns

    def totals(self, columns: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Weighted sums `[B]` float32 of an iteration's scores, by `reward_sums`; NaN where there
        is none.

        Args:
          columns: `[B, F]`.
          index: `[B]` which of the prompts each row answers: those of one are compared.

        Raises:
          StepRefused: a sum is beyond `LARGEST`, or `patience` iterations in a row had no score.
        """
        totals = reward_sums(columns, np.array([s.weight for s in self.sources], float), index)
        if (wrong := totals[np.abs(totals) > LARGEST]).size:
            names = ", ".join(f"{source.weight:g} x {source.name}" for source in self.sources)
            raise StepRefused(
                f"the sum of {names} is {wrong[0]:.6g}, and at most {LARGEST:,.0f} is learned "
                "from; weigh them less, in another run directory"
            )
        self.unjudged.append(1)
        if not np.isnan(totals).all():
            self.unjudged.clear()
        if len(self.unjudged) >= self.patience:
            raise StepRefused(self._nothing(columns))
        return totals.astype(np.float32)

    def metrics(self, columns: np.ndarray, totals: np.ndarray) -> dict[str, float]:
        """`scores/NAME` and `scores/NAME/std` of each source; with functions also
        `scores/unjudged`, the share of NaN.
        """
        metrics: dict[str, float] = {}
        for source, scores in zip(self.sources, columns.T, strict=True):
            there = scores[~np.isnan(scores)]
            metrics[f"scores/{source.name}"] = mean_score(scores)
            metrics[f"scores/{source.name}/std"] = float(there.std()) if len(there) else math.nan
        if has_functions(self.sources):
            metrics["scores/unjudged"] = float(np.isnan(totals).mean())
        return metrics

    def _nothing(self, columns: np.ndarray) -> str:
        """Reason why an iteration has no score at all, for the error message."""
        silent = [
            f"{source.name} returned None or NaN for {unknown} of {len(columns)} responses"
            for source, unknown in zip(self.sources, np.isnan(columns).sum(axis=0), strict=True)
            if source.weight and unknown
        ]
        span = f"the last {self.patience} iterations" if self.patience > 1 else "this iteration"
        several = len(silent) > 1 and not np.isnan(columns).all(axis=0).any()
        rule = " (a score takes a number of each that judges others to the same prompt)" * several
        return f"no response of {span} has a score: {', '.join(silent)}{rule}; {AGAIN}"

    def texts(self, samples: TokenBatch, index: np.ndarray) -> list[str]:
        """Texts `[B]` of the responses, without special tokens; of chats, the answers alone."""
        tokens, mask = np.asarray(samples.tokens), np.asarray(samples.response_mask)
        mask = mask & ~np.isin(tokens, self.tokenizer.stop_ids)
        prompt_mask = np.asarray(samples.prompt_mask)
        ids = (
            [row[real] for row, real in zip(tokens, which, strict=True)]
            for which in (prompt_mask, mask)
        )
        texts = self.tokenizer.decode_after(*ids)
        asked = (self.asked[n] for n in index)
        pairs = zip(asked, texts, strict=True)
        return [answer_text(prompt, text, self.tokenizer) for prompt, text in pairs]

    def _of_function(
        self, function: Callable[..., Any], responses: list[str], index: np.ndarray
    ) -> np.ndarray:
        prompts = [self.asked[n] for n in index]
        columns = {
            name: [self.rows[n].get(name) for n in index]
            for name in self.fields
            if takes(function, name)
        }
        return function_scores(function, prompts, responses, columns)


def check_fields(sources: Sequence[RewardSource], records: Sequence[PromptRow], where: str) -> None:
    """Check that rows have the fields that reward functions need; `where` names the rows."""
    for source in sources:
        if is_function(source.judge):
            check_columns(source.judge, [record.columns for record in records], where)


def judges_of(
    reward: Reward,
    tokenizer: Tokenizer,
    prompts: Prompts,
    *,
    iterations: int = MOST_UNJUDGED,
) -> Judges:
    """Reward sources of a run, with the prompts as they read them.

    Args:
      reward: a reward model, a function, or several `RewardSource`.
      tokenizer: of policy and reward models.
      prompts: that samples answer.
      iterations: that the run has to do; after `MOST_UNJUDGED` without a score, or after all of
        them, it stops.

    Raises:
      UserError: a function needs a column that the rows lack.
    """
    sources = sources_of(reward)
    records = prompts.records
    if records is None:
        records = [PromptRow(text) for text in tokenizer.decode_all(prompts.ids)]
    rows = [record.columns for record in records]
    check_fields(sources, records, "the data")
    return Judges(
        sources=sources,
        tokenizer=tokenizer,
        asked=[record.prompt for record in records],
        rows=rows,
        fields=sorted({name for row in rows for name in row}),
        patience=max(1, min(MOST_UNJUDGED, iterations)),
    )


def with_total_scores(
    judges: Judges, scored: ScoredSamples, index: np.ndarray
) -> tuple[ScoredSamples, Judged]:
    """Samples with the weighted sums of all sources' scores, and what the sources said."""
    judged = judges(scored.samples.batch, scored.scores, index)
    totals: Any = judged.totals
    return dataclasses.replace(scored, scores=totals), judged


def mean_score(scores: np.ndarray) -> float:
    """Mean of the scores that are not NaN; NaN where all are."""
    there = scores[~np.isnan(scores)]
    return float(there.mean()) if len(there) else math.nan
