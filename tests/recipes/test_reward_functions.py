"""Reward functions in plain Python: what they get, what they may return, and runs that learn from
them alone and beside a reward model.
"""

import array
import collections
import dataclasses
import functools
import itertools
import json
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.advantages import ADVANTAGES
from jaxalign.batches.preferences import OnlineBatch, ScoredResponses
from jaxalign.cli import dispatch, main
from jaxalign.commands.explain.run_directory import of_run
from jaxalign.commands.explain.samples import decisions
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.grpo import GRPOConfig
from jaxalign.config.model import ModelConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.data.formats import load_records
from jaxalign.data.records import Prompt, PromptRow
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import StepRefused, UserError
from jaxalign.losses import GROUP_LOSSES
from jaxalign.losses.group_methods import with_parts
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_functions import check_columns, function_scores, load_function
from jaxalign.recipes.reward_sources import RewardSource, judges_of, load_sources
from jaxalign.recipes.text_models import new_text_model, save_text_model
from jaxalign.rollouts.groups import GroupSamples, group_advantages, response_batch
from jaxalign.rollouts.pairs import scored_pairs
from jaxalign.rollouts.text import ScoredSamples, text_experience
from jaxalign.sampling import Samples
from jaxalign.train.lines import read_lines
from jaxalign.train.loop import fit
from jaxalign.train.metrics import read_metrics
from tests.metric_lines import lines_without_times

TOKENIZER = train_bpe(["the film is good"], 270)
EOS = TOKENIZER.eos_id


def load(tmp_path, text, name=""):
    file = tmp_path / "rewards.py"
    file.write_text(text)
    return load_function(f"{file}{name}", "reward", {})


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("def reward(:", "", r"rewards.py does not run: SyntaxError: .*line 1"),
        ("x = 1\ny = {}['k']", "", r"rewards.py does not run: KeyError: 'k' \(line 2\)"),
        ("def tone(responses): ...", "", "has no function reward; it has tone"),
        ("", ":tone", "rewards.py:tone: .* has no function tone; it has none"),
        ("reward = 3", "", r"is a int, no function; wanted def NAME\(prompts, responses, "),
        ("class reward:\n    def __call__(self, responses): ...", "", "is a class; give an object"),
        (
            "from functools import partial\nasync def f(responses): ...\nreward = partial(f)",
            "",
            "is an async function",
        ),
        ("class R:\n    async def __call__(self, responses): ...\nreward = R()", "", "is an async"),
        ("reward = max", "", "does not say which arguments it takes; wanted def NAME"),
        ("reward = len", "", r"takes \(obj, /\); wanted def NAME"),
        ("def reward(*arguments): ...", "", r"takes \(\*arguments\); wanted def NAME"),
        (
            "import functools\ndef f(responses): ...\nreward = functools.partial(f, responses=[])",
            "",
            "takes .*; wanted def NAME",
        ),
        ("import sys\nsys.exit()", "", r"rewards.py does not run: SystemExit: *\(line 2\)"),
        ("async def reward(responses): ...", "", "is an async function; write it with def instead"),
        ("def reward(prompts, texts): ...", "", r"takes \(prompts, texts\); wanted def NAME"),
        ("def reward(responses, /): ...", "", r"takes \(responses, /\); wanted def NAME"),
    ],
)
def test_a_file_without_the_function_is_one_line(tmp_path, text, name, message):
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, text, name)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"--rewards: no\.py does not exist"):
        load_function("no.py:f", "rewards", {})


def test_a_file_is_a_module_of_its_own(tmp_path):
    """Dataclasses with annotations as text look their module up while the file runs and later."""
    text = (
        "from __future__ import annotations\nimport dataclasses, pickle\n"
        "@dataclasses.dataclass\nclass Point:\n    x: float\n"
        "def reward(responses): return [pickle.loads(pickle.dumps(Point(2.0))).x]\n"
    )
    assert function_scores(load(tmp_path, text), [], ["a"], {}).tolist() == [2.0]
    assert not list(tmp_path.rglob("*.pyc"))


def test_scores_of_all_kinds():
    def reward(responses):
        return [1, True, None, float("nan"), np.float32(0.5), np.bool_(True), Fraction(1, 4)]

    expected = [1, 1, np.nan, np.nan, 0.5, 1, 0.25]
    np.testing.assert_array_equal(function_scores(reward, [], ["a"] * 7, {}), expected)
    for given in (
        np.array([1.0, 2.0]),
        np.array([True, 2], object),
        array.array("d", [1, 2]),
        jnp.array([1.0, 2.0]),
        jnp.array([1.0, 2.0], jnp.bfloat16),
        [jnp.float32(1), np.array(2.0)],
        [Decimal(1), 2],
        range(1, 3),
        (x for x in (1.0, 2.0)),
        map(float, "12"),
        collections.deque([1, 2]),
        {1.0: "a", 2.0: "b"}.keys(),
    ):
        found = function_scores(lambda responses, a=given: a, [], ["a", "b"], {})
        assert found.tolist() == [1.0, 2.0]
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    found = function_scores(lambda responses: masked, [], ["a", "b"], {})
    np.testing.assert_array_equal(found, [1, np.nan])


class Rude:
    """Neither a number nor to be shown."""

    def __str__(self):
        raise RuntimeError("no")

    def item(self):
        raise KeyError("no")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"returned 'None' \(NoneType\), wanted a list of 2 numbers"),
        (1.0, r"returned '1.0' \(float\), wanted a list of 2 numbers"),
        (np.array(1.0), r"wanted a list of 2 numbers"),
        ([1.0], "returned 1 scores for 2 responses"),
        ([1.0, "0.5"], r"returned '0.5' \(str\) for response 1, wanted a number, or None"),
        ([[1.0], 2.0], r"returned '\[1.0\]' \(list\) for response 0, wanted a number, or None"),
        ([1.0, -np.inf], "returned '-inf' .* for response 1, wanted a number between -1,000,"),
        (
            [10**400, 1.0],
            "for response 0, wanted a number between -1,000,000,000 and 1,000,000,000",
        ),
        ([1e39, 1.0], "for response 0, wanted a number between"),  # more than float32 holds
        ([1.0, -3e38], "for response 1, wanted a number between"),  # its square is more
        (
            [10**5000, 1.0],
            r"returned '\(no text: ValueError\)' \(int\) .*, wanted a number between",
        ),
        ([Decimal("1e999"), 1.0], "for response 0, wanted a number between"),
        ([Fraction(10**400), 1.0], "for response 0, wanted a number between"),
        ([Decimal("sNaN"), 1.0], "for response 0, wanted a number, or None"),
        ([1j, 1.0], "for response 0, wanted a number, or None"),
        ([Rude(), 1.0], r"returned '\(no text: RuntimeError\)' \(Rude\) for response 0, wanted"),
        ({"a": 1.0, "b": 2.0}, r"\(dict\), wanted a list of 2 numbers"),
        ({1.0, 2.0}, r"\(set\), wanted a list of 2 numbers"),
        ("12", r"returned '12' \(str\), wanted a list of 2 numbers"),
        (b"12", r"\(bytes\), wanted a list of 2 numbers"),
        (itertools.count(), "returned more than 2 scores for 2 responses"),
    ],
)
def test_a_wrong_result_is_one_line(returned, message):
    def reward(responses):
        return returned

    with pytest.raises(StepRefused, match=message) as error:
        function_scores(reward, [], ["a", "b"], {})
    assert str(error.value).startswith(f"{__file__}: reward returned ")
    assert "\n" not in str(error.value) and "run the same command again" in str(error.value)


def test_what_a_function_raises_is_told_with_its_line(tmp_path):
    reward = load(tmp_path, "def reward(responses):\n    return [int(r) for r in responses]\n")
    with pytest.raises(StepRefused, match=r"rewards.py: reward raised ValueError: .*\(line 2\)"):
        function_scores(reward, [], ["x"], {})


@pytest.mark.parametrize(
    "error", ["SystemExit(0)", "GeneratorExit", "Own('no\\nway\\x1b[3m' + 999 * 'x')", "Rude()"]
)
def test_no_exception_ends_the_run_unseen(tmp_path, error):
    """Not one that is no `Exception`, nor one without a text."""
    text = (
        "class Own(BaseException): ...\n"
        "class Rude(Exception):\n    def __str__(self): raise SystemExit\n"
        f"def reward(responses):\n    raise {error}\n"
    )
    with pytest.raises(
        StepRefused, match=r"rewards.py: reward raised \w+: .*\(line 5\); mend"
    ) as e:
        function_scores(load(tmp_path, text), [], ["x"], {})
    assert str(e.value).isprintable() and len(str(e.value)) < 500
    lazy = load(tmp_path, f"def reward(responses):\n    yield 1.0\n    yield {'1 / 0'}\n")
    with pytest.raises(StepRefused, match=r"reward raised ZeroDivisionError: .*\(line 3\)"):
        function_scores(lazy, [], ["x", "y"], {})


@pytest.mark.slow
def test_a_function_that_goes_elsewhere_takes_nobody_with_it(tmp_path):
    here = os.getcwd()
    reward = load(tmp_path, "import os\nos.chdir('/')\ndef reward(responses):\n    os.chdir('/')\n")
    assert os.getcwd() == here
    with pytest.raises(StepRefused):
        function_scores(reward, [], ["x"], {})
    assert os.getcwd() == here


def test_a_function_may_not_change_the_precision_of_training(tmp_path):
    text = "import jax\ndef reward(responses):\n    jax.config.update('jax_enable_x64', True)\n"
    with pytest.raises(StepRefused, match=r"raised ValueError: jax_enable_x64 is training's too"):
        function_scores(load(tmp_path, text), [], ["x"], {})
    with pytest.raises(UserError, match=r"does not run: ValueError: jax_enable_x64 is training's"):
        load(tmp_path, "import jax\njax.config.update('jax_enable_x64', True)\n")
    assert not jax.config.jax_enable_x64


@pytest.mark.slow
def test_ctrl_c_stays_what_it_is(tmp_path):
    text = "def reward(responses):\n    raise KeyboardInterrupt\n"
    with pytest.raises(KeyboardInterrupt):
        function_scores(load(tmp_path, text), [], ["x"], {})
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, "raise KeyboardInterrupt\n")


CALLABLE = """
import functools

def scored(responses, style="plain", **columns):
    return [(style, sorted(columns), len(r))[2] + (style == "bound") for r in responses]

def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments, **named):
        return [2 * score for score in function(*arguments, **named)]
    return wrapper

def narrow(function):
    @functools.wraps(function)
    def wrapper(responses):
        return function(responses, answer="x")
    return wrapper

class Judge:
    model = params = "something of the user's"
    def __init__(self, more=0): self.more = more
    def __call__(self, responses): return [len(r) + self.more for r in responses]
    def method(self, responses): return self(responses)
    @staticmethod
    def static(responses): return [len(r) for r in responses]

plain = scored
partial = functools.partial(scored, style="bound")
twice_partial = functools.partial(partial, unused=1)
instance = Judge(2)
method = Judge(3).method
static = Judge.static
cached = functools.partial(functools.lru_cache(lambda more: lambda responses: [1]), 1)()

@decorated
def wrapped(responses): return [len(r) for r in responses]

@narrow
def narrowed(responses, answer): return [len(r) + len(answer) for r in responses]

of_instance = decorated(Judge(1))
"""


@pytest.mark.parametrize(
    ("name", "score"),
    [
        *(("plain", 2), ("partial", 3), ("twice_partial", 3), ("instance", 4), ("method", 5)),
        *(("static", 2), ("cached", 1), ("wrapped", 4), ("narrowed", 3), ("of_instance", 6)),
    ],
)
def test_whatever_can_be_called_judges(tmp_path, name, score):
    """What `functools.partial` binds no column replaces; decorators are called as they are."""
    function = load(tmp_path, CALLABLE, f":{name}")
    judges = judges_of(
        [RewardSource(judge=function)],
        TOKENIZER,
        Prompts(ids=[[1]], records=[PromptRow("p", {"style": "of the row"})]),
    )
    rows = response_rows("xy")
    assert judges(rows, np.zeros((1, 1)), np.array([0]))[0].tolist() == [score]
    (source,) = load_sources(f"{tmp_path / 'rewards.py'}:{name}", {})
    assert source.name == name


def test_completions_come_as_trl_gives_them():
    """https://huggingface.co/docs/trl/grpo_trainer: text for a text, messages for messages."""
    seen = {}

    def trl(prompts, completions, **kwargs):
        seen.update(prompts=prompts, completions=completions, others=sorted(kwargs))
        return [float(len(c if isinstance(c, str) else c[0]["content"])) for c in completions]

    judges = judges_of(trl, TOKENIZER, TWO)
    totals, *_ = judges(response_rows("four", "b", "cd"), np.zeros((3, 1)), NUMBERS)
    assert totals.tolist() == [4, 1, 2]
    assert seen["completions"] == [[{"role": "assistant", "content": "four"}], "b", "cd"]
    assert seen["others"] == ["answer", "responses", "tags"]

    def by_keyword(**kwargs):  # also the way TRL calls
        return [float(len(c)) for c in kwargs["completions"]]

    assert function_scores(by_keyword, ["a"], ["cd"], {}).tolist() == [2]

    def alone(completions): ...

    with pytest.raises(UserError, match=r"has a field 'completions', a name that .*alone gets"):
        check_columns(alone, [{"completions": []}], "a.jsonl")
    check_columns(lambda responses, **columns: [], [{"completions": []}], "a.jsonl")


def test_missing_columns_are_named():
    def reward(prompts, responses, answer, style="plain", **columns): ...

    check_columns(reward, [{"answer": 1}, {"answer": 2, "more": 3}], "a.jsonl")
    with pytest.raises(
        UserError, match=r"reward needs the field 'answer', which no row of a.jsonl"
    ):
        check_columns(reward, [{"style": "x"}], "a.jsonl")
    with pytest.raises(UserError, match=r"'answer', which 1 of 2 rows of a.jsonl lack"):
        check_columns(reward, [{"answer": "x"}, {}], "a.jsonl")
    with pytest.raises(UserError, match=r"a.jsonl has a field 'responses', a name that .*reward"):
        check_columns(reward, [{"answer": 1, "responses": []}], "a.jsonl")


def test_rows_keep_their_other_fields_where_they_are_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x", "answer": {"value": [1]}}\n')
    assert load_records(path, PromptRow).records == [PromptRow("x", {"answer": {"value": [1]}})]
    assert load_records(path, Prompt).records == [Prompt("x")]


def response_rows(*texts, ends=True):
    """One prompt token and the text of each response, with EOS."""
    parts = [(TOKENIZER.encode(text) + [EOS] * ends, True) for text in texts]
    return token_batch([token_row(([1], False), part) for part in parts], pad_id=0)


ASK = [{"role": "user", "content": "2 + 2?"}]
RECORDS = [PromptRow("a  b", {"answer": "4", "tags": ["x"]}), PromptRow(ASK, {"answer": "5"})]
NUMBERS = np.array([1, 0, 0])
TWO = Prompts(ids=[[1], [1]], records=RECORDS)


def test_functions_get_texts_prompts_and_columns_as_the_data_have_them():
    calls = []

    def greedy(prompts, responses, **columns):
        calls.append((prompts, responses, columns))
        return [0.0] * len(responses)

    def spoils(responses, tags, prompts):
        prompts[0].append("spoiled")
        tags[1].append("spoiled")
        return [0.0] * len(responses)

    sources = [RewardSource(judge=greedy), RewardSource(judge=spoils, name="spoils")]
    records = [RECORDS[0], dataclasses.replace(RECORDS[1], columns={"answer": "5", "tags": []})]
    judges = judges_of(sources, TOKENIZER, Prompts(ids=TWO.ids, records=records))
    rows = response_rows(" four", "<eos> x", "")
    for _ in range(2):
        judges(rows, np.zeros((3, 2)), NUMBERS)
    assert calls[0] == calls[1]  # what the other one did to its arguments stays with it
    assert calls[0][0] == [ASK, "a  b", "a  b"]
    assert calls[0][1] == ["four", "<eos> x", ""]  # the space belongs to the conversation's cue
    assert calls[0][2] == {"answer": ["5", "4", "4"], "tags": [[], ["x"], ["x"]]}
    templated = dataclasses.replace(TOKENIZER, chat_template="...")
    judges_of(sources, templated, Prompts(ids=TWO.ids, records=records))(
        rows, np.zeros((3, 2)), NUMBERS
    )
    assert calls[-1][1][0] == " four"  # a template's header holds what it wants before an answer


def test_a_field_that_some_rows_lack_is_none_there():
    def reward(responses, tags=None):
        assert tags == [None, ["x"], ["x"]]
        return [1.0] * 3

    judges = judges_of(reward, TOKENIZER, TWO)
    assert judges(response_rows("a", "b", "c"), np.zeros((3, 1)), NUMBERS)[0].tolist() == [1, 1, 1]


def test_without_rows_functions_get_decoded_prompts():
    def reward(prompts, responses):
        return [len(prompt) for prompt in prompts]

    judges = judges_of(reward, TOKENIZER, Prompts(ids=[[1, *TOKENIZER.encode("the film")], [1]]))
    totals, *_ = judges(response_rows("a", "b", "c"), np.zeros((3, 1)), NUMBERS)
    assert totals.tolist() == [0, 8, 8]
    with pytest.raises(UserError, match="needs the field 'answer', which no row of the data has"):
        judges_of(lambda responses, answer: [], TOKENIZER, Prompts(ids=[[1]]))


def mixed(second, third):
    model = type("Reward", (), {"model": None, "params": None})
    sources = [
        RewardSource(judge=model, weight=0.5, name="model"),
        RewardSource(judge=second, weight=-2.0, name="second"),
        RewardSource(judge=third, weight=0.0, name="third"),
    ]
    return judges_of(sources, TOKENIZER, TWO)


def test_the_score_is_the_weighted_sum_of_the_judges():
    """0.5 x model - 2 x second; third is only measured.

    The second judged one of the two responses to prompt 0: the other one has no score, or it would
    have won by that.
    """
    judges = mixed(lambda responses: [1.0, None, 0.25], lambda responses: [None, 4, 6])
    scores = np.array([[3.0, np.nan, np.nan]] * 3)
    totals, metrics, *_ = judges(response_rows("a", "b", "c"), scores, NUMBERS)
    assert totals.dtype == np.float32 and str(totals.tolist()) == "[-0.5, nan, 1.0]"
    means = {"scores/model": 3.0, "scores/second": 0.625, "scores/third": 5.0}
    deviations = {"scores/model/std": 0.0, "scores/second/std": 0.375, "scores/third/std": 1.0}
    assert metrics == means | deviations | {"scores/unjudged": pytest.approx(1 / 3)}


def test_nobody_can_judge():
    sources = [
        RewardSource(judge=lambda responses: [None, 1.0, None], name="a"),
        RewardSource(judge=lambda responses: [None, 1.0, None], name="b"),
    ]
    judges = judges_of(sources, TOKENIZER, TWO)
    totals, metrics, *_ = judges(response_rows("a", "b", "c"), np.zeros((3, 2)), NUMBERS)
    np.testing.assert_array_equal(totals, [np.nan, 2.0, np.nan])
    assert metrics["scores/unjudged"] == pytest.approx(2 / 3) and metrics["scores/a"] == 1.0


@pytest.mark.slow
def test_a_model_always_judges():
    judges = mixed(lambda responses: [1.0] * 3, lambda responses: [1.0] * 3)
    for score in (np.nan, np.inf, -np.inf, 3e38, -1.1e9):
        with pytest.raises(
            StepRefused, match=r"reward model model gives a score of .*; it must be"
        ):
            judges(response_rows("a", "b", "c"), np.full((3, 3), score), NUMBERS)


def test_a_sum_beyond_what_can_be_learned_from_is_named():
    """1e9 - 2 x (-1e9), each of which passes."""
    judges = mixed(lambda responses: [-1e9] * 3, lambda responses: [1.0] * 3)
    message = "the sum of 0.5 x model, -2 x second, 0 x third is 2e.09, and at most 1,000,000,000"
    with pytest.raises(StepRefused, match=message):
        judges(response_rows("a", "b", "c"), np.zeros((3, 3)), NUMBERS)


@pytest.mark.parametrize(
    ("weights", "message"),
    [((0.0, 0.0), "all rewards weigh 0"), ((1.0, np.inf), "reward b weighs inf; give a number")],
)
def test_weights_must_say_something(weights, message):
    sources = [
        RewardSource(judge=lambda responses: [], weight=weight, name=name)
        for name, weight in zip("ab", weights, strict=True)
    ]
    with pytest.raises(UserError, match=message):
        judges_of(sources, TOKENIZER, Prompts(ids=[[1]], records=RECORDS))


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "patience"), [(100, 3), (3, 3), (2, 2), (1, 1)])
def test_a_run_without_any_score_stops(rounds, patience):
    """After three rounds in a row, or as many as there are; one score starts the count again."""
    answers = iter([[None, None, np.nan]] * (patience - 1) + [[None, 1.0, None]] * (patience > 1))
    said = functools.partial(next, answers, [np.nan, None, None])
    sources = [
        RewardSource(judge=lambda responses: said(), name="tone"),
        RewardSource(judge=lambda responses: [1, 1, 1], weight=0.0, name="length"),
    ]
    judges = judges_of(sources, TOKENIZER, TWO, iterations=rounds)
    given = response_rows("a", "b", "c"), np.zeros((3, 2)), NUMBERS
    for _ in range(2 * patience - 1 - (patience == 1)):
        judges(*given)
    message = "no response of .* has a score: tone returned None or NaN for 3 of 3 responses; mend"
    with pytest.raises(StepRefused, match=message):
        judges(*given)


def group_samples(scores):
    """Four responses of one to three tokens in two groups."""
    rows = response_rows("a", "b", "ab", "c", ends=False)
    shape = rows.tokens.shape
    logps = -0.1 * jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    logps = jnp.where(rows.response_mask, logps, 0)
    scored = ScoredSamples(
        samples=Samples(batch=rows, logps=logps),
        scores=jnp.array(scores),
        values=jnp.zeros(shape),
        reference_logps=logps,
    )
    return GroupSamples(scored=scored, behaviour_logps=logps, entropies=-logps)


def compared(scores, method, *, group_size=4):
    """`response_batch` of responses with these scores."""
    compare = functools.partial(
        response_batch, method=method, group_size=group_size, eos_id=EOS, longest=3
    )
    return jax.device_get(jax.jit(compare)(group_samples(scores)))


@pytest.mark.slow
def test_a_response_that_nobody_judged_is_not_there():
    """Mean of 1 and 3 is 2, deviation (ddof 1) is sqrt 2; the fourth is alone in its group."""
    method = with_parts(GROUP_LOSSES["grpo"], missing_eos_penalty=0.5)  # of all that have a score
    batch, metrics = compared([1.0, np.nan, 3.0, np.nan], method)
    expected = [-np.sqrt(0.5), 0, np.sqrt(0.5), 0]
    np.testing.assert_allclose(batch.advantages, expected, rtol=1e-6)
    assert batch.mask.any(axis=1).tolist() == [True, False, True, False]
    assert metrics["scores/mean"] == 2 and metrics["scores/std"] == 1
    assert metrics["scores/std_within_groups"] == 1 and metrics["scores/equal_groups"] == 0
    batch, metrics = compared([1.0, np.nan, np.nan, np.nan], method, group_size=2)
    assert not batch.advantages.any() and metrics["scores/equal_groups"] == 1


COMPARED = {  # of scores 1 and 3, of responses of one and two tokens
    "batch": [-np.sqrt(0.5), np.sqrt(0.5)],
    "centred": [-1, 1],
    "leave_one_out": [-2, 2],
    "best_of_group": [0, 2],
    "length_weighted": [-4 / 3, 2 / 3],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_no_comparison_counts_what_nobody_judged(name):
    method = dataclasses.replace(GROUP_LOSSES["grpo"], advantages=ADVANTAGES[name])
    batch, _ = compared([1.0, np.nan, 3.0, np.nan], method)
    first, second = COMPARED[name]
    np.testing.assert_allclose(batch.advantages, [first, 0, second, 0], rtol=1e-6)


@pytest.mark.slow
def test_tokens_of_a_response_that_nobody_judged_are_not_whitened_with_the_others():
    method = GROUP_LOSSES["reinforce_plus_plus"]
    batch, _ = compared([1.0, np.nan, 3.0, 5.0], method, group_size=1)
    advantages, mask = np.asarray(batch.advantages), np.asarray(batch.mask)
    # returns: 1 (one token), 3, 3 (two tokens), 5 (one token); variance 2
    np.testing.assert_allclose(advantages[mask], np.array([-2, 0, 0, 2]) / np.sqrt(2), atol=1e-6)
    assert not mask[1].any() and not advantages[1].any()


@pytest.mark.slow
def test_experience_leaves_out_what_nobody_judged():
    scored = group_samples([1.0, np.nan, 3.0, 5.0]).scored
    given = {"kl_coef": 0.0, "gamma": 1.0, "gae_lambda": 1.0}
    experience = text_experience(scored, scored.scores, **given)
    assert experience.mask.any(axis=1).tolist() == [True, False, True, True]
    assert np.asarray(experience.returns).sum(axis=1).tolist() == [1, 0, 6, 5]


@pytest.mark.slow
def test_a_pair_weighs_nothing_if_one_side_was_not_judged():
    rows = response_rows("a", "b", "c")
    sides = [
        ScoredResponses(responses=rows, scores=jnp.array(scores), reference=jnp.zeros(3))
        for scores in ([1.0, np.nan, 2.0], [3.0, 1.0, np.nan])
    ]
    batch = OnlineBatch(first=sides[0], second=sides[1], weights=jnp.ones(3))
    found = scored_pairs(batch, missing_eos=1.0, eos_id=EOS)
    assert found.weights.tolist() == [1, 0, 0]
    assert found.first.scores.tolist() == [1, 0, 0] and found.second.scores.tolist() == [3, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("score", "penalty", "rest"), [(0.26, 0.25, 0.01), (1000.3, 1000.0, 0.3)])
def test_scores_that_a_penalty_makes_equal_are_equal(score, penalty, rest):
    """0.26 less a penalty of 0.25 is 0.01, though float32 says 0.00999999: nothing is learned."""
    ends, cut = response_rows("a", "bc"), response_rows("a", "bc", ends=False)
    batch = OnlineBatch(
        first=ScoredResponses(responses=cut, scores=jnp.full(2, score), reference=jnp.zeros(2)),
        second=ScoredResponses(
            responses=ends, scores=jnp.array([rest, rest / 2]), reference=jnp.zeros(2)
        ),
        weights=jnp.ones(2),
    )
    found = scored_pairs(batch, missing_eos=penalty, eos_id=EOS)
    first, second = (np.asarray(side.scores) for side in (found.first, found.second))
    assert first[0] == second[0] and first[1] > second[1]
    np.testing.assert_allclose(first, rest, rtol=1e-3)

    samples = group_samples([score, rest, score, rest])
    learned = samples.scored.scores - jnp.array([penalty, 0, penalty, 0])
    for name in ("grpo", "dapo"):
        advantages, equal = group_advantages(samples, learned, GROUP_LOSSES[name], group_size=4)
        assert equal.all() and not np.asarray(advantages).any()
        apart = learned.at[0].add(rest / 100)
        advantages, equal = group_advantages(samples, apart, GROUP_LOSSES[name], group_size=4)
        assert not equal.any() and np.asarray(advantages).any()


def test_one_option_says_what_judges():
    for config in (GRPOConfig, ExplainConfig):
        with pytest.raises(UserError, match="--reward a and --rewards are both given"):
            config(reward="a", rewards={"b": 1.0})
    with pytest.raises(UserError, match=r"^rewards b is inf; it must be a finite number"):
        GRPOConfig(rewards={"b": float("inf")})
    with pytest.raises(UserError, match=r"^rewards weighs b by -1e\+10; give a number between -1,"):
        GRPOConfig(rewards={"a": 1.0, "b": -1e10})
    with pytest.raises(UserError, match="rewards weighs everything by 0"):
        GRPOConfig(rewards={"b": 0.0})
    with pytest.raises(UserError, match=r"--reward is empty; give .* or FILE\.py:NAME, a function"):
        load_sources("", {})


def test_sources_are_named_apart(tmp_path):
    for file in ("a.py", "b.py"):
        (tmp_path / file).write_text("def reward(responses): ...\ndef mean(responses): ...\n")
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    weights = {str(a): 1.0, f"{a}:mean": 2.0, f"{b}:reward": 3.0}
    sources = load_sources("", weights)
    assert [source.name for source in sources] == list(weights)  # all taken, twice or by us
    assert [source.weight for source in sources] == [1, 2, 3]
    assert load_sources(str(a), {})[0].name == "reward"


@pytest.mark.slow
def test_the_loop_saves_the_state_before_a_refused_step():
    saved = []

    class Checkpoints:
        def restore(self, template):
            return None

        def save(self, step, state, *, beside=()):
            saved.append((step, state))

        def check(self):
            pass

        def wait(self):
            saved.append("waited")

    def step(state, batch):
        if batch == 3:
            raise StepRefused("no")
        return state + 1, {"loss": 0.0}

    lines = []
    with pytest.raises(StepRefused, match=r"^step 4: no$"):
        fit(
            0, step, lambda i: i, steps=9, checkpoints=Checkpoints(), save_every=100,
            on_metrics=lambda done, metrics: lines.append(done),
        )  # fmt: skip
    assert saved == [(3, 3), "waited"] and lines == [1, 2, 3]


REWARDS = '''
from pathlib import Path

calls = 0


def ascii(prompts, responses, again, **columns):
    """The share of ASCII characters."""
    global calls
    calls += 1
    assert prompts == again and len(prompts) == len(responses)
    if calls > 2 and Path(__file__).with_name("broken").exists():
        raise RuntimeError("the grader is\\naway")
    return [sum(c.isascii() for c in r) / max(len(r), 1) for r in responses]


def picky(responses):
    """The same; what is short cannot be judged."""
    return [sum(c.isascii() for c in r) / len(r) if len(r) > 2 else None for r in responses]
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny policy and a tiny reward model, data and functions."""
    folder = tmp_path_factory.mktemp("files")
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    for name, head in (("policy", "logits"), ("judge", "score")):
        model = new_text_model(config, TOKENIZER, jax.random.key(0), max_length=16, heads=(head,))
        save_text_model(folder / name, model)
    rows = [{"prompt": word, "again": word} for word in ["the", "film", "is", "so", "good"]]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    return folder


def common(files):
    data = ["--policy", str(files / "policy"), "--data.path", str(files / "prompts.jsonl")]
    return [*data, "--max_new_tokens", "6"]


def optimizer(prefix, rate):
    name = f"--{prefix}.optimizer"
    return [
        f"{name}.learning_rate",
        rate,
        f"{name}.schedule",
        "constant",
        f"{name}.warmup_steps",
        "0",
    ]


@pytest.mark.slow
def test_grpo_learns_from_a_mixture_and_goes_on_after_a_failure(files, tmp_path, capsys):
    """On eight devices; the grader fails in the third round, and none before is made again."""
    own = f"{files / 'rewards.py'}:ascii"
    arguments = [
        *("grpo", *common(files), "--rewards", own, "2.0", str(files / "judge"), "0.5"),
        *("--grpo.iterations", "10", "--grpo.prompts", "16", "--grpo.group_size", "4"),
        *("--grpo.kl_coef", "0.0", "--place.layout", "pmap", "--grpo.minibatches", "4"),
        *optimizer("grpo", "4e-2"),
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    results = dispatch([*arguments, "--output", str(whole)])
    assert np.isfinite(results["rows"][0]["reward_score"])
    (files / "broken").touch()
    with pytest.raises(SystemExit):
        main([*arguments, "--output", str(parts)])
    (files / "broken").unlink()
    told = capsys.readouterr().err.splitlines()[-1]
    assert "rewards.py: ascii raised RuntimeError: the grader is away (line 13); mend it" in told
    assert [line["step"] for line in read_metrics(parts)] == [1, 2]
    kept = {path.name for path in (parts / "checkpoints" / "grpo").iterdir()}
    assert kept == {"2", "model"}  # what makes a model of it beside the state
    dispatch([*arguments, "--output", str(parts)])
    models = [(run / "model" / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert models[0] == models[1] and lines_without_times(whole) == lines_without_times(parts)
    lines = lines_without_times(whole)
    assert lines[-1]["scores/ascii"] > lines[0]["scores/ascii"] + 0.2
    for line in lines:
        total = 2.0 * line["scores/ascii"] + 0.5 * line["scores/judge"]
        assert line["scores/mean"] == pytest.approx(total, abs=1e-5)
        assert line["scores/unjudged"] == 0


def check_kept_samples(run, *, iterations, responses, evaluations):
    """That `samples.jsonl` has what the metrics are means of, and the same held-out prompts."""
    lines = read_lines(run / "samples.jsonl")
    metrics = {(line["step"], "loss" not in line): line for line in read_metrics(run)}
    held_out = [line for line in lines if line.get("evaluation")]
    drawn = [line for line in lines if not line.get("evaluation")]
    assert len(drawn) == iterations * responses and len(held_out) == 5 * len(evaluations)
    assert list(dict.fromkeys(line["step"] for line in held_out)) == evaluations
    prompts = ["the", "film", "is", "so", "good"]
    assert [line["prompt"] for line in held_out] == prompts * len(evaluations)
    for (step, is_evaluation), of_step in metrics.items():
        own = [
            line
            for line in lines
            if line["step"] == step and bool(line.get("evaluation")) == is_evaluation
            if not line.get("opponent")
        ]
        prefix = "eval/" * is_evaluation
        scores = [line["score"] for line in own if line["score"] is not None]
        assert of_step[f"{prefix}scores/mean"] == pytest.approx(np.mean(scores), abs=1e-5)
        for name in ("length", "ended"):
            mean = np.mean([line[name] for line in own])
            assert of_step[f"{prefix}response/{name}"] == pytest.approx(mean, abs=1e-5)
        for line in own:
            assert line["prompt"] == prompts[line["prompt_index"]]
            assert line["scores"] == {"picky": line["score"]}


@pytest.mark.slow
def test_ppo_learns_from_a_function(files, tmp_path):
    run = str(tmp_path / "ppo")
    arguments = [
        *("ppo", *common(files), "--reward", f"{files / 'rewards.py'}:picky", "--output", run),
        *("--ppo.iterations", "8", "--ppo.batch_size", "64", "--ppo.kl_coef", "0.0"),
        *("--ppo.missing_eos_penalty", "0.0"),
        *("--place.layout", "device", *optimizer("ppo", "1e-2")),
        *("--data.evaluation_path", str(files / "prompts.jsonl"), "--ppo.eval_every", "4"),
    ]
    dispatch(arguments)
    check_kept_samples(Path(run), iterations=8, responses=64, evaluations=[0, 4, 8])
    lines = [line for line in read_metrics(run) if "loss" in line]
    assert all(line["ppo/explained_variance"] <= 1 for line in lines)
    assert lines[-1]["scores/mean"] > lines[0]["scores/mean"] + 0.2
    assert lines[0]["scores/mean"] == pytest.approx(lines[0]["scores/picky"], rel=1e-6)
    assert any(0 < line["scores/unjudged"] < 0.5 for line in lines)
    own = f"{files / 'rewards.py'}:picky"  # code that a run names is not run unasked
    batch = decisions(of_run(ExplainConfig(run=run, reward=own, rows=8))).batch
    for row, mask, returns in zip(batch.actions, batch.mask, batch.returns, strict=True):
        if mask.any():  # the last token's return is the score
            text = TOKENIZER.decode(row[mask])
            share = sum(c.isascii() for c in text) / len(text)
            assert returns[mask][-1] == pytest.approx(share, abs=1e-6)


@pytest.mark.slow
def test_online_learns_from_a_function(files, tmp_path):
    run = str(tmp_path / "online")
    arguments = [
        *("online", *common(files), "--reward", f"{files / 'rewards.py'}:picky", "--output", run),
        *("--online.fit.steps", "24", "--online.fit.batch_size", "32"),
        *("--online.fit.log_every", "1", "--place.layout", "device"),
        *optimizer("online.fit", "4e-2"),
        *("--data.evaluation_path", str(files / "prompts.jsonl")),
    ]
    dispatch(arguments)
    check_kept_samples(Path(run), iterations=24, responses=64, evaluations=[24])
    scores = [line["scores/picky"] for line in read_metrics(run) if "loss" in line]
    assert scores[-1] > scores[0] + 0.15


@pytest.mark.slow
def test_the_same_command_again_does_not_end_a_run_that_nobody_judges(files, tmp_path, capsys):
    """What is left of the rounds may be less than the patience; no model is written in the end."""
    (tmp_path / "none.py").write_text("def reward(responses): return [None] * len(responses)")
    arguments = [
        *("online", *common(files), "--reward", str(tmp_path / "none.py")),
        *("--output", str(tmp_path / "run"), "--online.fit.steps", "4"),
        *("--online.fit.batch_size", "32", "--online.fit.log_every", "1"),
        *("--place.layout", "device", *optimizer("online.fit", "4e-2")),
    ]
    spans = ((3, "the last 3 iterations"), (4, "the last 2 iterations"), (4, "this iteration"))
    for step, span in spans:
        with pytest.raises(SystemExit):
            main(arguments)
        written = capsys.readouterr().err
        *_, told = written.splitlines()
        assert told.startswith(f"jaxalign: step {step}: no response of {span} has a score: ")
        assert "NaN or Inf" not in written  # of TensorBoard's writer
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_mistakes_come_before_sampling(files, tmp_path, capsys):
    run = tmp_path / "run"
    (tmp_path / "needs.py").write_text("def reward(responses, answer): ...\n")
    start = ["ppo", *common(files), "--output", str(run)]
    with pytest.raises(SystemExit):
        main([*start, "--reward", str(tmp_path / "needs.py")])
    told = capsys.readouterr().err
    assert "needs.py: reward needs the field 'answer', which no row of" in told
    assert "prompts.jsonl has" in told and told.count("\n") == 1
    other = new_text_model(
        ModelConfig(width=16, layers=1, heads=2),
        train_bpe(["other words"], 262),
        jax.random.key(0),
        max_length=16,
        heads=("score",),
    )
    save_text_model(tmp_path / "other", other)
    sources = [str(tmp_path / "other"), "1", f"{files / 'rewards.py'}:picky", "1"]
    with pytest.raises(SystemExit):
        main([*start, "--rewards", *sources])
    assert "--policy and --rewards have different vocabularies" in capsys.readouterr().err
    assert not Path(run / "config.json").exists()
