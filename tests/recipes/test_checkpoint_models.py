"""Checkpoints as models: `RUN@STEP` is what the run would have written at that step."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxalign.cli import dispatch
from jaxalign.commands import dpo
from jaxalign.errors import UserError
from jaxalign.recipes import preferences
from jaxalign.recipes.checkpoint_models import CheckpointName, checkpoint_name
from jaxalign.recipes.run_directory import locked_directory
from jaxalign.recipes.text_models import load_text_model, save_text_model
from tests.tiny_models import tiny_policy

PAIRS = [
    {"prompt": "the ", "chosen": "film is good", "rejected": f"good {word}"}
    for word in ("is", "film", "the", "good")
]
LOOP = {"steps": "20", "save_every": "10", "batch_size": "2"}


def equal(one, other) -> bool:
    same = jax.tree.map(np.array_equal, one.params, other.params)
    return one.model == other.model and all(jax.tree.leaves(same))


def trained(folder, name, *arguments):
    """A finished run, and its directory."""
    rows, policy = folder / "pairs.jsonl", folder / "policy"
    if not policy.exists():
        rows.write_text("".join(f"{json.dumps(row)}\n" for row in PAIRS))
        save_text_model(policy, tiny_policy(24))
    command, base = ("reward", []) if name == "reward" else ("dpo", ["--policy", str(policy)])
    data = ["--data.path", str(rows), "--data.evaluation_path", str(rows)]
    loop = [word for n, v in LOOP.items() for word in (f"--{command}.fit.{n}", v)]
    dispatch([command, *base, *data, *arguments, *loop, "--output", str(folder / name)])
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def adapted(folder):
    return trained(folder, "adapted", "--lora.rank", "2")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (
            "runs/a@20",
            CheckpointName(run=__import__("pathlib").Path("runs/a"), stage=None, step=20),
        ),
        ("a@b/0", CheckpointName(run=__import__("pathlib").Path("a"), stage="b", step=0)),
        *((text, None) for text in ("runs/a", "a@", "a@02", "a@-1", "a@1.5", "gs://b/a@3", "@3")),
    ],
)
def test_names(source, name):
    assert checkpoint_name(source) == name


def test_a_path_goes_before_a_checkpoint(tmp_path):
    save_text_model(tmp_path / "a@3", tiny_policy(8))
    assert checkpoint_name(tmp_path / "a@3") is None
    assert equal(load_text_model(tmp_path / "a@3", "policy"), tiny_policy(8))


def test_the_last_checkpoint_is_the_model_of_the_run(adapted):
    last = load_text_model(f"{adapted}@20", "policy", head="logits")
    assert equal(last, load_text_model(adapted, "policy"))
    earlier = load_text_model(f"{adapted}@dpo/10", "policy")
    assert earlier.model == last.model and not equal(earlier, last)
    assert earlier.tokenizer.backend.to_str() == last.tokenizer.backend.to_str()


def test_a_run_goes_on_from_a_checkpoint_and_export_writes_it(adapted, folder, capsys):
    dispatch(["export", "--model", str(adapted), "--step", "10", "--output", str(folder / "out")])
    exported = load_text_model(folder / "out", "model")
    source = load_text_model(f"{adapted}@10", "model")
    jax.tree.map(np.testing.assert_array_equal, exported.params, source.params)
    assert "# `adapted@10`" in (folder / "out" / "README.md").read_text()
    dispatch(["evaluate", "--model", f"{adapted}@10", "--on", "preferences", "--reference",
              str(folder / "policy"), "--data.path", str(folder / "pairs.jsonl")])  # fmt: skip
    assert "pair_accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("adapted@3", r"no checkpoint of step 3; there are .*adapted@10, .*adapted@20$"),
        ("adapted@ppo/10", r"no checkpoint of step 10 of ppo; there are"),
        ("policy@10", r"policy has no checkpoints; give the directory of a run"),
        ("nothing@10", r"nothing has no checkpoints"),
    ],
)
def test_what_is_not_there_is_one_line_with_what_is(adapted, folder, name, line):
    with pytest.raises(UserError, match=f"^--policy: .*{line}"):
        load_text_model(str(folder / name), "policy")


def test_a_run_that_goes_on_is_read_and_one_without_a_model_names_its_checkpoints(adapted, folder):
    copy = folder / "going on"
    shutil.copytree(adapted, copy)
    shutil.rmtree(copy / "model")
    with locked_directory(copy):
        load_text_model(f"{copy}@10", "policy")
        with pytest.raises(UserError, match=r"no model yet; its checkpoints are .*going on@10"):
            load_text_model(copy, "policy")


def test_damage_is_told(adapted, folder):
    copy = folder / "damaged"
    shutil.copytree(adapted, copy)
    state = max(
        (copy / "checkpoints" / "dpo" / "10" / "state").rglob("*"), key=lambda p: p.stat().st_size
    )
    state.write_bytes(b"\0" * 8)
    with pytest.raises(UserError, match=r"checkpoint .*10 is damaged: state/.* is not as it was"):
        load_text_model(f"{copy}@10", "policy")


def test_adapters_of_another_base_are_refused(adapted, folder):
    """The path is the same, what lies there is not; nor is anything fetched for a run."""
    copy, config = folder / "moved", json.loads((adapted / "config.json").read_text())
    shutil.copytree(adapted, copy)
    other = tiny_policy(24).with_trained(jax.tree.map(lambda x: x + 1, tiny_policy(24).params))
    save_text_model(folder / "other", other)
    for source, line in (
        (str(folder / "other"), "has adapters of another base than its config.json names"),
        ("org/name", "org/name is not on this machine, and nothing is fetched"),
        ("gs://bucket/model", "is not on this machine"),
        ("", "config.json names no base of the adapters"),
    ):
        (copy / "config.json").write_text(json.dumps(config | {"policy": source}))
        with pytest.raises(UserError, match=line):
            load_text_model(f"{copy}@10", "policy")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("int8", ("--lora.rank", "2", "--lora.base", "int8")),
        ("whole", ()),
    ],
)
def test_other_policies(folder, name, arguments):
    run = trained(folder, name, *arguments)
    assert equal(load_text_model(f"{run}@20", "policy"), load_text_model(run, "policy"))


def test_a_reward_model_of_a_new_trunk_that_stays_frozen(folder):
    """Nothing says where its trunk came from: it lies beside the checkpoints."""
    small = ["--model.width", "16", "--model.layers", "1", "--model.heads", "2"]
    run = trained(folder, "reward", "--reward.trunk", "frozen", *small)
    read, model = (load_text_model(x, "reward", head="score") for x in (f"{run}@20", run))
    for tree in model.params.keys() - {"score"}:  # which was standardised after training
        jax.tree.map(np.testing.assert_array_equal, read.params[tree], model.params[tree])


def test_the_model_is_there_before_the_evaluation_and_only_that_is_done_again(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(dpo, "implicit_accuracy", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(folder, "killed")
    run = folder / "killed"
    model = load_text_model(run, "policy")
    assert not (run / "results.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(preferences, "pair_reference", lambda *a, **k: 1 / 0)  # to train on
        trained(folder, "killed")
    assert equal(load_text_model(run, "policy"), model)
    assert "pair_accuracy" in json.loads((run / "results.json").read_text())["reward_model"][0]
