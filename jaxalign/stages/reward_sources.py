"""What judges the samples of a run: reward models, on the device, and functions, on the host."""

import dataclasses
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxalign.advantages import weighted_scores
from jaxalign.batches import TokenBatch
from jaxalign.config import PlaceConfig
from jaxalign.data.chat import answer_text
from jaxalign.data.records import PromptRow, Said
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import StepRefused
from jaxalign.scoring import ScoreColumns
from jaxalign.stages.reward_functions import (
    FUNCTION,
    check_columns,
    check_function,
    function_scores,
    is_function,
    load_function,
    takes,
)
from jaxalign.stages.text_models import TextModel, load_text_model
from jaxalign.text_rollouts import ScoredSamples

# metrics `scores/...` of the stages, which no source may take the name of
TAKEN = ("mean", "std", "std_within_groups", "equal_groups", "opponent", "tied", "unjudged")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardSource:
    """A judge, its weight in the sum of scores, and its name in the metrics.

    judge: reward model, or a function `(prompts, responses, **columns) -> scores`.
    """

    judge: Any
    weight: float = 1.0
    name: str = "reward"


Reward = TextModel | Callable[..., Any] | Sequence[RewardSource]


def sources_of(reward: Reward) -> tuple[RewardSource, ...]:
    """The sources of a run; a model or a function alone weighs 1.

    >>> [source.weight for source in sources_of(lambda responses: [0.0 for _ in responses])]
    [1.0]
    """
    sources = tuple(reward) if isinstance(reward, Sequence) else (RewardSource(judge=reward),)
    for source in sources:
        if inspect.isroutine(source.judge):
            check_function(source.judge, f"reward {source.name}")
    return sources


def has_functions(sources: Sequence[RewardSource]) -> bool:
    """Whether anything judges on the host, so that texts and columns of prompts are needed."""
    return any(is_function(source.judge) for source in sources)


def load_sources(
    reward: str, rewards: Mapping[str, float], *, place: PlaceConfig | None = None
) -> tuple[RewardSource, ...]:
    """The sources that a configuration names: what `load_text_model` takes, or FILE.py:NAME.

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
    short = {
        source: judge.__name__ if is_function(judge) else Path(source).resolve().name
        for source, judge in judges.items()
    }
    counts = Counter([*short.values(), *TAKEN])
    return tuple(
        RewardSource(
            judge=judge,
            weight=weights[source],
            name=source if counts[short[source]] > 1 else short[source],
        )
        for source, judge in judges.items()
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judges:
    """All sources of a run, with the prompts that samples answer; made by `judges_of`.

    sources: what judges.
    tokenizer: of policy and reward models.
    asked: all prompts, as functions get them.
    rows: the columns of each.
    fields: the names of all columns.
    """

    sources: tuple[RewardSource, ...]
    tokenizer: Tokenizer
    asked: Sequence[Said]
    rows: Sequence[Mapping[str, Any]]
    fields: Sequence[str]

    @property
    def model(self) -> ScoreColumns:
        """What scores on the device, a column a source."""
        judges = (source.judge for source in self.sources)
        return ScoreColumns(tuple(None if is_function(j) else j.model for j in judges))

    @property
    def params(self) -> tuple:
        """The parameters of `model`."""
        judges = (source.judge for source in self.sources)
        return tuple(None if is_function(j) else j.params for j in judges)

    def __call__(
        self, samples: TokenBatch, scores, numbers: np.ndarray
    ) -> tuple[np.ndarray, dict[str, float]]:
        """The weighted sums of the scores, and the mean of each source.

        Where some sources give no score, the sum is over the others.

        Args:
          samples: `[B, T]` prompts and responses.
          scores: `[B, F]` of `model`.
          numbers: `[B]` which of the prompts each row answers.

        Returns:
          `[B]` float32, NaN where no source that weighs anything gives a score; and
          `scores/NAME` of each source, with functions also `scores/unjudged`, the share of NaN.

        Raises:
          StepRefused: a model's score is not finite, or a function fails.
        """
        columns = np.array(scores, np.float32)
        functions = [i for i, source in enumerate(self.sources) if is_function(source.judge)]
        responses = self._responses(samples, numbers) if functions else []
        for i, source in enumerate(self.sources):
            if i in functions:
                columns[:, i] = self._of_function(source.judge, responses, numbers)
            elif not np.isfinite(columns[:, i]).all():
                raise StepRefused(f"reward model {source.name} gives scores that are not finite")
        used = [i for i, source in enumerate(self.sources) if source.weight != 0]
        weights = jnp.array([float(self.sources[i].weight) for i in used])
        sums, judged = weighted_scores(jnp.asarray(columns[:, used].T), weights)
        totals = np.where(judged, sums, np.float32(np.nan))
        names = (f"scores/{source.name}" for source in self.sources)
        metrics = dict(zip(names, map(mean_score, columns.T), strict=True))
        if functions:
            metrics["scores/unjudged"] = float(np.isnan(totals).mean())
        return totals, metrics

    def _responses(self, samples: TokenBatch, numbers: np.ndarray) -> list[str]:
        tokens, mask = np.asarray(samples.tokens), np.asarray(samples.response_mask)
        mask = mask & ~np.isin(tokens, self.tokenizer.stop_ids)
        prompt_mask = np.asarray(samples.prompt_mask)
        ids = (
            [row[real] for row, real in zip(tokens, which, strict=True)]
            for which in (prompt_mask, mask)
        )
        texts = self.tokenizer.decode_after(*ids)
        asked = (self.asked[n] for n in numbers)
        pairs = zip(asked, texts, strict=True)
        return [answer_text(prompt, text, self.tokenizer) for prompt, text in pairs]

    def _of_function(self, function, responses: list[str], numbers: np.ndarray) -> np.ndarray:
        prompts = [self.asked[n] for n in numbers]
        columns = {
            name: [self.rows[n].get(name) for n in numbers]
            for name in self.fields
            if takes(function, name)
        }
        return function_scores(function, prompts, responses, columns)


def check_fields(sources: Sequence[RewardSource], records: Sequence[PromptRow], where: str) -> None:
    """The rows have the fields that the functions need; `where` names them in the error."""
    for source in sources:
        if is_function(source.judge):
            check_columns(source.judge, [record.columns for record in records], where)


def judges_of(
    reward: Reward,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    records: Sequence[PromptRow] | None,
) -> Judges:
    """The judges of a run, ready for samples.

    Args:
      reward: a reward model, a function, or several `RewardSource`.
      tokenizer: of policy and reward models.
      prompts: token ids.
      records: the rows that they come from; None: functions get the prompts decoded, no columns.

    Raises:
      UserError: a function needs a column that the rows lack.
    """
    sources = sources_of(reward)
    if records is None:
        asked = prompts if has_functions(sources) else []
        records = [PromptRow(text) for text in tokenizer.decode_all(asked)]
    rows = [record.columns for record in records]
    check_fields(sources, records, "the data")
    return Judges(
        sources=sources,
        tokenizer=tokenizer,
        asked=[record.prompt for record in records],
        rows=rows,
        fields=sorted({name for row in rows for name in row}),
    )


def judged_samples(
    judges: Judges, scored: ScoredSamples, numbers: np.ndarray
) -> tuple[ScoredSamples, dict[str, float]]:
    """The samples with what all judges together say of each, and the mean of each source."""
    totals: Any
    totals, metrics = judges(scored.samples.batch, scored.scores, numbers)
    return dataclasses.replace(scored, scores=totals), metrics


def mean_score(scores: np.ndarray) -> float:
    """Of those that are no NaN; NaN where all are."""
    there = scores[~np.isnan(scores)]
    return float(there.mean()) if len(there) else math.nan
