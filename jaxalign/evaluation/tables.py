"""Result tables from lists of dicts: for the terminal (rich), for a README (markdown)."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, object]
DASH = "–"
LARGEST = 1e38  # numbers beyond are none: no metric is so large


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """Column of a result table: where its number stands, how it is printed, what it means."""

    key: str
    title: str
    explanation: str
    form: str = ".2f"  # a format specification; "" for text
    scale: float = 1.0  # the number is multiplied by this before printing
    better: int = 0  # 1: higher is better, -1: lower, 0: neither

    def text(self, row: Row) -> str:
        """The number with its interval, if the row has one; a dash if it is absent or NaN.

        >>> METHOD_COLUMNS[1].text({"win_rate": 0.71, "win_rate_low": 0.67, "win_rate_high": 0.75})
        '71.0 [67.0, 75.0]'
        """
        return " ".join(part for part in (self.value_text(row), self.spread_text(row)) if part)

    def spread_text(self, row: Row) -> str:
        """The interval, or the standard deviation over seeds, if the row has one."""
        low, high, sd = (row.get(f"{self.key}_{end}") for end in ("low", "high", "sd"))
        if number(low) is not None and number(high) is not None:
            return f"[{self.number_text(low)}, {self.number_text(high)}]"
        return "" if number(sd) is None else f"± {self.number_text(sd).lstrip('+')}"

    def cell(self, row: Row) -> list[str]:
        """The lines of a narrow cell: the number, and below it the interval if there is one."""
        return [part for part in (self.value_text(row), self.range_text(row)) if part]

    def range_text(self, row: Row) -> str:
        """`spread_text` without brackets, to stand below the number.

        >>> METHOD_COLUMNS[1].range_text({"win_rate_low": 0.67, "win_rate_high": 0.75})
        '67.0 – 75.0'
        """
        return self.spread_text(row).strip("[]").replace(", ", " – ")

    def value_text(self, row: Row) -> str:
        """The number alone."""
        return self.number_text(row.get(self.key))

    def number_text(self, value: object) -> str:
        """Any number printed as this column prints them."""
        if not self.form:
            return DASH if value is None else str(value)
        finite = number(value)
        if finite is None:
            return DASH
        text = format(finite * self.scale, self.form)
        return text.replace("-", "−")


def number(value: object) -> float | None:
    """Value of a row as a finite float; None for None, NaN, text, and what is beyond float32."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    if isinstance(value, int) and abs(value) > LARGEST:
        return None
    finite = float(value)  # pyright: ignore[reportArgumentType]
    return finite if math.isfinite(finite) and abs(finite) <= LARGEST else None


def present(columns: Iterable[Column], rows: Sequence[Row]) -> list[Column]:
    """Columns that at least one row has a number for."""
    return [column for column in columns if any(column.value_text(row) != DASH for row in rows)]


def rich_table(rows: Sequence[Row], columns: Sequence[Column], *, title: str = "") -> "Table":
    """The columns that any row fills, for `rich.print`, intervals below their numbers."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    filled = present(columns, rows)
    for column in filled:
        parts = [*column.title.split(), *(part for row in rows for part in column.cell(row))]
        justify = "right" if column.form else "left"
        table.add_column(column.title, justify=justify, width=max(map(len, parts)))
    for row in rows:
        table.add_row(*(escape("\n".join(column.cell(row))) for column in filled))
    return table


_WIN = (
    "Share of held-out prompts on which {judge} scores the method's continuation above the "
    "supervised model's (ties half). 50% means no difference. Interval: 95%, bootstrap over "
    "prompts."
)

METHOD_COLUMNS: tuple[Column, ...] = (
    Column(key="method", title="method", form="", explanation="How the policy was made."),
    Column(
        key="win_rate",
        title="win rate, %",
        form=".1f",
        scale=100,
        better=1,
        explanation=_WIN.format(
            judge="the judge (ridge regression on human ratings of texts no policy was trained on)"
        ),
    ),
    Column(
        key="rule_win_rate",
        title="win rate (rules), %",
        form=".1f",
        scale=100,
        better=1,
        explanation=_WIN.format(judge="a rule-based scorer that learned nothing (VADER)"),
    ),
    Column(
        key="judge_score",
        title="judge score",
        form="+.2f",
        better=1,
        explanation="Mean score of the samples by the judge, on the scale of the human ratings.",
    ),
    Column(
        key="reward_score",
        title="reward score",
        form="+.2f",
        better=1,
        explanation="Mean score by the reward model. PPO and best of n maximise it, so for them it "
        "measures how hard they tried, not how good they are.",
    ),
    Column(
        key="mean_return",
        title="mean return",
        form=".1f",
        better=1,
        explanation="Mean reward summed over an episode, over the last episodes of training.",
    ),
    Column(
        key="solved_at_step",
        title="solved at step",
        form=",.0f",
        better=-1,
        explanation="Environment steps after which the mean return first counted as solving the "
        "task.",
    ),
    Column(
        key="accuracy",
        title="accuracy, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="Share of test examples that get the right class. ±: standard deviation over "
        "seeds.",
    ),
    Column(
        key="macro_recall",
        title="macro recall, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="Mean over the classes of the share of a class that is found, so that rare "
        "classes count as much as common ones.",
    ),
    Column(
        key="worst_recall",
        title="worst recall, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="That share for the class that is found least.",
    ),
    Column(
        key="kl",
        title="KL, nats",
        explanation="KL divergence from the reference model per sample: how far the method moved. "
        " Best of n: ln n − (n − 1)/n, an upper bound.",
    ),
    Column(
        key="perplexity",
        title="ppl of human texts, T = 1",
        form=".0f",
        better=-1,
        explanation="Perplexity of held-out human texts under the method: rises as it forgets how "
        "people write. At temperature 1, the one that people's texts are learned at, whatever the "
        "policy samples at.",
    ),
    Column(
        key="sample_perplexity",
        title="ppl of samples",
        form=".0f",
        explanation="Perplexity of the method's samples under the supervised model, at the "
        "temperature that they are drawn at. Very low: "
        "stock phrases; very high: no longer the language it came from.",
    ),
    Column(
        key="base_perplexity",
        title="ppl of samples, base, T = 1",
        form=".0f",
        explanation="Perplexity of the samples under the model that everything started from, "
        "before any of this, at temperature 1.",
    ),
    Column(
        key="distinct_2",
        title="distinct-2",
        better=1,
        explanation="Different pairs of adjacent tokens over all such pairs. A fall "
        "means the samples grow alike. Methods have equally many samples.",
    ),
    Column(
        key="length",
        title="length, tokens",
        form=".1f",
        explanation="Mean length. A judge can be won over by length alone; watch it move.",
    ),
    Column(
        key="copied",
        title="copied, %",
        form=".1f",
        scale=100,
        better=-1,
        explanation="Share of the samples' runs of five tokens found word for word in a training "
        "text: memory, not skill.",
    ),
)

MORE_METHOD_COLUMNS: tuple[Column, ...] = (
    METHOD_COLUMNS[0],
    Column(
        key="kl_estimate",
        title="KL (sampled), nats",
        explanation="KL again, estimated by the mean log-ratio of the samples; noisier than the "
        "exact sum over the vocabulary.",
    ),
    Column(
        key="kl_per_token",
        title="KL per token",
        form=".3f",
        explanation="KL divided by the number of tokens: comparable between lengths.",
    ),
    Column(
        key="distinct_1",
        title="distinct-1",
        better=1,
        explanation="The same for single tokens.",
    ),
    Column(
        key="repeated_3",
        title="repeated-3",
        explanation="Share of token triples that occurred before in the same sample.",
    ),
    Column(
        key="ended",
        title="ended, %",
        form=".0f",
        scale=100,
        explanation="Share of samples that ended by themselves before the token limit.",
    ),
    Column(
        key="copied_whole",
        title="copied whole, %",
        form=".1f",
        scale=100,
        better=-1,
        explanation="Share of samples that stand as a whole inside a training text.",
    ),
)

SCORER_COLUMNS: tuple[Column, ...] = (
    Column(key="scorer", title="scorer", form="", explanation="What gives the score."),
    Column(
        key="pair_accuracy",
        title="pairs, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="Share of pairs of held-out texts put in the order that people put them in, by "
        "mean ratings where there are ratings; 50% is chance. Interval: 95%, bootstrap.",
    ),
    Column(
        key="pair_accuracy_gap1",
        title="clear pairs, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="The same for pairs whose mean ratings differ by more than 1 point.",
    ),
    Column(
        key="pair_accuracy_within",
        title="pairs, same raters, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="The same for pairs of texts that were rated by the same people: closer, "
        "harder pairs.",
    ),
    Column(
        key="kendall_tau",
        title="Kendall's τ",
        better=1,
        explanation="Mean over the rankings: pairs in the right order less those in the wrong one, "
        "over all pairs. 1 is the ranking itself, 0 chance. Interval: 95%, bootstrap.",
    ),
    Column(
        key="step_accuracy",
        title="steps, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="Share of held-out steps whose predicted chance is on the side of 1/2 that "
        "their label is on. Interval: 95%, bootstrap over solutions.",
    ),
    Column(
        key="right_steps_found",
        title="right steps found, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="The same for the steps labelled right alone.",
    ),
    Column(
        key="wrong_steps_found",
        title="wrong steps found, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="The same for the steps labelled wrong alone; where these are few, the share "
        "of all steps says little.",
    ),
    Column(
        key="recall_positive",
        title="recall +, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="Of the texts people clearly liked (mean above 0.5), the share scored as "
        "positive.",
    ),
    Column(
        key="recall_negative",
        title="recall −, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="Of the texts people clearly disliked (mean below −0.5), the share scored "
        "negative.",
    ),
    Column(
        key="macro_recall",
        title="macro recall, %",
        form=".1f",
        scale=100,
        better=1,
        explanation="The mean of the two recalls, so that neither class can be bought with the "
        "other.",
    ),
    Column(
        key="spearman",
        title="Spearman",
        better=1,
        explanation="Rank correlation with the mean human rating.",
    ),
)
