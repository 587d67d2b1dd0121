"""Short flags: which field each is in every command."""

import shlex

import pytest

from jaxalign import cli
from jaxalign import config as configurations
from jaxalign.cli import CONFIGS, DEFAULTS, REFUSED, dispatch
from jaxalign.config.common import SHORT_FLAGS, SHORT_NAMES, short_flags
from jaxalign.config.field_texts import example_of
from jaxalign.config.field_types import hints_of
from jaxalign.config.flags import flags_of
from jaxalign.config.options import RunOptions
from tests.folders import ROOT

ROWS = ("epochs", "steps", "batch_size", "eval_every", "save_every")
OPTIMIZER = ("learning_rate", "warmup")
ITERATIONS = {"epochs": "prompt_epochs", "steps": "iterations"}
VALUES = {"epochs": ("2.5", 2.5), "learning_rate": ("0.125", 0.125)}  # of the others 64


def of_rows(section):
    return {name: f"{section}.{name}" for name in ROWS} | of_optimizer(section)


def of_iterations(section, batch_size):
    cadence = {name: name for name in ("eval_every", "save_every")}
    fields = ITERATIONS | cadence | {"batch_size": batch_size}
    return {short: f"{section}.{name}" for short, name in fields.items()} | of_optimizer(section)


def of_optimizer(section):
    fields = zip(OPTIMIZER, ("learning_rate", "warmup_steps"), strict=True)
    return {short: f"{section}.optimizer.{name}" for short, name in fields}


BOTH = {"max_length": "data.max_length", "seed": "seed"}
# command and what stands beside it: the field of every short flag
MEANT = {
    "sft": of_rows("fit") | BOTH,
    "reward": of_rows("reward.fit") | BOTH,
    "reward --loss process": of_rows("process.fit") | BOTH,
    "dpo": of_rows("dpo.fit") | BOTH,
    "kto": of_rows("kto.fit") | BOTH,
    "online": of_rows("online.fit") | BOTH,
    "distill": of_rows("distill.fit") | BOTH,
    "ppo": of_iterations("ppo", "batch_size") | BOTH,
    "grpo": of_iterations("grpo", "prompts") | BOTH,
    "rlhf": {"seed": "seed", "max_length": "max_length"},
    "evaluate --on prompts --reward rewards.py": BOTH,
    "generate": {"seed": "seed"},
    "export": {},
    "ratings": {"seed": "seed"},
    "explain": {"learning_rate": "dpo.fit.optimizer.learning_rate"} | BOTH,
    "explain --method kto": {"learning_rate": "kto.fit.optimizer.learning_rate"} | BOTH,
    "explain --method grpo": {"learning_rate": "grpo.optimizer.learning_rate"} | BOTH,
    "ppo --config ppo_cartpole": {
        **{"steps": "total_steps", "learning_rate": "ppo.learning_rate"},
        **{"save_every": "save_every", "seed": "seeds"},
    },
    "ppo --config ppo_digits": {
        **{"steps": "updates", "learning_rate": "ppo.learning_rate"},
        **{"save_every": "save_every", "seed": "seeds", "batch_size": "batch_size"},
    },
}


@pytest.fixture
def read(monkeypatch):
    """Reads a command line: its configuration and options, nothing run."""
    found = []
    monkeypatch.setattr(cli, "run_configured", lambda *given: found.append(given))
    monkeypatch.chdir(ROOT)

    def parsed(*words):
        dispatch([*words])
        return found.pop()

    return parsed


def field(settings, name):
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


@pytest.mark.parametrize("command", MEANT)
def test_a_short_flag_is_the_field_that_it_says(command, read):
    words = command.split()
    for short, name in MEANT[command].items():
        word, value = VALUES.get(short, ("64", 64))
        if name == "save_every":  # of control and images: a multiple of log_every
            word, value = "320", 320
        settings, _ = read(*words, f"--{short}", word)
        assert field(settings, name) == ((value,) if name == "seeds" else value)
        assert settings == read(*words, f"--{name}", word)[0]


@pytest.mark.parametrize("command", DEFAULTS)
def test_a_command_has_no_other_short_flags(command):
    default = cli.named_config(DEFAULTS[command])
    named = short_flags(type(default))
    usable = {
        name
        for name, fields in named.items()
        if sum(field not in REFUSED.get(command, ()) for field in fields) == 1
        or command in ("reward", "explain")
    }
    assert usable == {
        short for words in MEANT if words.split()[0] == command for short in MEANT[words]
    }


def test_every_short_flag_is_a_field_of_its_block():
    for block, fields in SHORT_FLAGS.items():
        assert set(fields) <= set(SHORT_NAMES)
        assert set(fields.values()) <= set(hints_of(block)), block


@pytest.mark.parametrize(
    ("word", "steps", "share"), [("1", 1, None), ("0", 0, None), ("0.1", None, 0.1)]
)
def test_a_warm_up_is_steps_or_a_share(word, steps, share, read):
    for command, section in (("sft", "fit"), ("ppo", "ppo"), ("reward", "reward.fit")):
        settings, _ = read(command, "--warmup", word)
        optimizer = field(settings, f"{section}.optimizer")
        assert (optimizer.warmup_steps, optimizer.warmup_share) == (steps, share)


def test_a_flag_stands_in_place_of_what_says_the_same_in_other_words(read, tmp_path):
    file = tmp_path / "config.py"
    fit = "FitConfig(steps=9, optimizer=OptimizerConfig(warmup_steps=3))"
    file.write_text(
        "from jaxalign.config import FitConfig, OptimizerConfig, SFTConfig\n"
        f"def get_config():\n    return SFTConfig(fit={fit})\n"
    )
    settings, options = read("sft", "--config", str(file), "--epochs", "2", "--warmup", "0.5")
    assert (settings.fit.steps, settings.fit.epochs) == (None, 2.0)
    assert settings.fit.optimizer.warmup_share == 0.5
    assert settings.fit.optimizer.warmup_steps is None
    assert options == RunOptions(config=str(file))
    kept, _ = read("sft", "--config", str(file), "--fit.epochs", "None")
    assert kept.fit.steps == 9


@pytest.mark.parametrize("name", CONFIGS)
def test_the_example_of_a_command_is_one(name, read):
    command, *words = shlex.split(example_of(getattr(configurations, name)))[1:]
    settings, _ = read(command, *words)
    assert type(settings).__name__ == name and command == CONFIGS[name][0]
    assert len(flags_of(type(settings))) > 2
