"""The first page of a command's help: what it shows, and what would apply."""

import re

import pytest

from jaxalign.cli import (
    CONFIGS,
    DEFAULTS,
    REFUSED,
    dispatch,
    main,
    named_config,
    options_of_command,
)
from jaxalign.config.common import short_flags
from jaxalign.config.defaults import NEW, PUBLISHED
from jaxalign.config.field_types import hints_of
from jaxalign.config.flags import fields_of, flags_of
from jaxalign.config.options import RunOptions
from jaxalign.losses import PAIR_LOSSES
from tests.folders import ROOT


@pytest.fixture
def page(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(ROOT)

    def shown(*words):
        dispatch([*words, "--help"])
        return capsys.readouterr().out

    return shown


def flags_on(text):
    return re.findall(r"^  --([\w.]+)", text, re.MULTILINE)


def text_of(text, flag):
    """What a page says of one flag, on one line."""
    found = re.search(rf"^  --{re.escape(flag)} (.*\n(?:   +\S.*\n)*)", text, re.MULTILINE)
    return " ".join(found[1].split())


@pytest.mark.parametrize("command", DEFAULTS)
def test_the_first_page_is_two_screens_and_shows_nothing_that_is_refused(command, page):
    text = page(command)
    lines = text.splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: jaxalign {command} ")
    cls = type(named_config(DEFAULTS[command]))
    refused = REFUSED.get(command, ())
    known = [name for name in flags_of(cls) if name not in refused]
    options = {*hints_of(options_of_command(command))}
    assert ("output" in options) == (CONFIGS[cls.__name__][1] is not None)
    shown = flags_on(text)
    assert len(shown) == len(set(shown)) and options <= set(shown)
    assert ("data.on_long_row" in shown) == ("data.on_long_row" in known)
    for flag in set(shown) - options:
        assert set(fields_of(flag, known, short_flags(cls), command)) & {*known}


def test_short_flags_come_first_and_in_one_order(page):
    names = ["epochs", "steps", "learning_rate", "batch_size", "warmup", "eval_every"]
    names += ["save_every", "max_length", "seed", *hints_of(RunOptions)]
    for command in ("sft", "dpo", "kto", "reward", "ppo", "grpo", "online", "distill"):
        assert flags_on(page(command))[: len(names)] == names


@pytest.mark.parametrize("command", ["sft", "dpo", "kto", "ppo", "grpo", "online", "distill"])
def test_effective_defaults_are_those_of_the_tables(command, page):
    new, published, text = NEW[command], PUBLISHED[command], page(command)
    rates = re.findall(r"\d[\d.]*(?:e-\d+)?", text_of(text, "learning_rate").rpartition("(")[2])
    wanted = [published.learning_rate, published.adapter_rate, new.learning_rate]
    assert [*map(float, rates)] == wanted
    assert text_of(text, "steps").endswith(f"(small models {new.steps})")
    assert text_of(text, "epochs").endswith(f"({published.epochs:g})")
    if published.batch_size:
        assert f"({published.batch_size}" in text_of(text, "batch_size")


def test_flags_beside_help_say_what_would_apply(page):
    text = page("dpo", "--policy", "smollm2", "--lora.rank", "8")
    assert text_of(text, "learning_rate").endswith("(1e-5)")
    assert text_of(text, "max_length").endswith("(1024)")
    assert text_of(text, "lora.rank").endswith("(8)")
    assert text_of(page("dpo", "--learning_rate", "2e-6"), "learning_rate").endswith("(2e-6)")
    text = page("reward", "--loss", "process")
    assert text_of(text, "steps").endswith("(small models 300)")


def test_a_run_directory_may_hold_a_model_of_any_size(page, tmp_path):
    (tmp_path / "versions.json").touch()
    for name in (str(tmp_path), f"{tmp_path}@12"):
        text = page("dpo", "--policy", name)
        assert text_of(text, "learning_rate").endswith("with LoRA 1e-5; small models 3e-4)")


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_hyper_parameters_are_those_of_the_chosen_loss(loss, page):
    text = page("dpo", "--loss", loss)
    takes = PAIR_LOSSES[loss].hyperparameters
    everywhere = {name for other in PAIR_LOSSES.values() for name in other.hyperparameters}
    shown = {flag.rpartition(".")[2]: flag for flag in flags_on(text)}
    assert {*shown} & everywhere == {*takes}
    for name, value in takes.items():
        assert float(text_of(text, shown[name]).rpartition("(")[2].rstrip(")")) == value


def test_a_mistake_beside_help_is_told_below_it(capsys):
    for words, line in (
        (["dpo", "--los", "simpo"], "has no flag --los; did you mean --loss?"),
        (["sft", "--lora.rank", "8"], "need a trained model below them; set init"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        out, errors = capsys.readouterr()
        assert stop.value.code == 2 and line in errors and errors.count("\n") == 1
        assert out.startswith(f"usage: jaxalign {words[0]}")


def test_the_page_is_as_wide_as_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "132")
    dispatch(["dpo", "--help"])
    assert 100 < max(map(len, capsys.readouterr().out.splitlines())) <= 132
