"""`jaxalign evaluate --on prompts`: rewards of sampled answers, with intervals over prompts."""

import json

import jax
import numpy as np
import pytest

from jaxalign.cli import dispatch
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.model import ModelConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.evaluation.bootstrap import mean_estimate
from jaxalign.recipes.text_models import new_text_model, save_text_model

WORDS = ["the", "film", "is", "so", "good", "so"]  # one of them twice: a prompt of two rows
REWARDS = """
def share(responses, again, prompts):
    assert prompts == again
    return [sum(c.isascii() for c in r) / max(len(r), 1) for r in responses]

def seldom(prompts, responses):
    return [1.0 if p == "film" else None for p in prompts]

def never(responses):
    return [None for r in responses]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    for number, (name, head) in enumerate((("policy", "logits"), ("judge", "score"))):
        key = jax.random.key(number)
        model = new_text_model(config, tokenizer, key, max_length=16, heads=(head,))
        save_text_model(folder / name, model)
    rows = [{"prompt": word, "again": word} for word in WORDS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    return folder


def evaluated(files, *more):
    data = ["--data.path", str(files / "prompts.jsonl"), "--max_new_tokens", "5"]
    arguments = ["evaluate", "--on", "prompts", "--model", str(files / "policy")]
    return dispatch([*arguments, *data, *more])


@pytest.fixture(scope="module")
def two_rewards(files):
    """Measures of two rewards and a KL, and the answers they are of."""
    out = files / "answers.jsonl"
    rewards = ["--rewards", f"{files / 'rewards.py'}:share", "2", str(files / "judge"), "0.5"]
    more = ["--samples", "3", "--reference", str(files / "policy"), "--responses", str(out)]
    measures = evaluated(files, *rewards, *more)
    return measures, [json.loads(line) for line in out.read_text().splitlines()], (*rewards, *more)


def test_measures_are_means_of_the_answers(two_rewards):
    measures, answers, _ = two_rewards
    assert [answer["prompt"] for answer in answers] == [word for word in WORDS for _ in range(3)]
    assert len({answer["response"] for answer in answers}) > 6
    for answer in answers:
        total = 2 * answer["scores"]["share"] + 0.5 * answer["scores"]["judge"]
        assert answer["score"] == pytest.approx(total, abs=1e-5)
    columns = {
        "score": [answer["score"] for answer in answers],
        "score/share": [answer["scores"]["share"] for answer in answers],
        "score/judge": [answer["scores"]["judge"] for answer in answers],
        "length": [answer["length"] for answer in answers],
        "ended": [answer["ended"] for answer in answers],
    }
    assert list(measures)[::3] == [*columns, "kl"]
    blocks = np.array([sorted(set(WORDS)).index(answer["prompt"]) for answer in answers])
    for name, values in columns.items():
        wanted = mean_estimate(np.array(values, float), blocks=blocks)
        assert measures[name] == pytest.approx(wanted.value, abs=1e-5)
        assert measures[f"{name}_low"] <= measures[name] <= measures[f"{name}_high"]
        # other blocks are drawn for the same prompts in another order: nearly the same interval
        spread = wanted.high - wanted.low
        assert measures[f"{name}_high"] - measures[f"{name}_low"] == pytest.approx(spread, rel=0.3)
    assert measures["kl"] == pytest.approx(0, abs=1e-5)  # the policy itself is the reference


def test_the_same_seed_gives_the_same_numbers(files, two_rewards):
    measures, _, arguments = two_rewards
    assert evaluated(files, *arguments) == measures
    assert evaluated(files, *arguments, "--seed", "1")["score"] != measures["score"]


def test_answers_without_a_score_are_left_out(files, capsys):
    measures = evaluated(files, "--reward", f"{files / 'rewards.py'}:seldom")
    assert measures["score"] == 1.0 and measures["length"] > 1
    measures = evaluated(files, "--reward", f"{files / 'rewards.py'}:never")
    assert measures["score"] is None and "score unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"on": "prompts"}, "say by what: --reward FILE.py:NAME"),
        ({"on": "prompts", "reward": "a", "rewards": {"b": 1.0}}, "--rewards are both given"),
        ({"reward": "a"}, "--on texts samples no answers; leave --reward out"),
        ({"on": "steps", "rewards": {"a": 1.0}}, "--on steps samples no answers; leave --rewards"),
        ({"samples": 2}, "leave --samples out"),
        ({"seed": 1}, "leave --seed out"),
        ({"max_new_tokens": 9}, "leave --max_new_tokens out"),
        ({"responses": "a"}, "leave --responses out"),
        ({"on": "texts", "reference": "a"}, "has no use for a reference"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, line):
    with pytest.raises(UserError, match=line):
        EvaluateConfig(**fields)
