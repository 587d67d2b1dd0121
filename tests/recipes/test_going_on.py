"""Runs that go on: which settings may change, what is said of it, and runs that begin anew."""

import dataclasses
import json
import os

import pytest

from jaxalign.cli import CONFIGS, DEFAULTS, named_config
from jaxalign.config.control import ControlConfig
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.flags import flags_of, with_flags
from jaxalign.config.grpo import GRPOConfig, GRPOSettings
from jaxalign.config.images import ImagesConfig
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.new_run import new_run
from jaxalign.errors import CannotGoOn, UserError
from jaxalign.recipes.endings import Ending
from jaxalign.recipes.going_on import PATHS, check_config
from jaxalign.recipes.inputs import Inputs, check_same, read_inputs
from jaxalign.recipes.run import keep_inputs
from jaxalign.recipes.run_directory import LOCK, locked_directory, set_aside, settle
from jaxalign.train.evaluations import Best

# Last words of the fields that may change, in any command.
FREE = {
    *("log_every", "save_every", "eval_every", "keep_checkpoints", "best", "patience"),
    *("steps", "epochs", "iterations", "prompt_epochs", "warmup_steps", "warmup_share"),
    *("micro_batches", "layout", "devices"),
}
TRAINING = [name for name in DEFAULTS if CONFIGS[DEFAULTS[name].split(".")[1]][1]]
TRAINING.remove("ratings")  # which writes files and trains nothing


def settled(rate=1.0, schedule="linear", warmup=0, **fields):
    optimizer = OptimizerConfig(learning_rate=rate, schedule=schedule, warmup_steps=warmup)
    fit = FitConfig(batch_size=8, optimizer=optimizer, **fields)
    return DPOConfig(dpo=DPOSettings(fit=fit))


def saved(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize("command", [*TRAINING, "control", "images"])
def test_each_field_may_change_or_is_refused_by_its_name(command, tmp_path):
    """Another value in what the run has saved, whatever it is: no field is forgotten."""
    own = {"control": ControlConfig(), "images": ImagesConfig()}
    config = own[command] if command in own else named_config(DEFAULTS[command])
    for name in flags_of(type(config)):
        before = saved(config)
        *sections, last = name.split(".")
        block = before
        for section in sections:
            block = block[section]
        if block[last] == {}:  # names of fields, sources of rewards
            continue
        block[last] = "another" if isinstance(block[last], str) else [7]
        free = last in FREE
        if command in own:
            free = last in {"save_every", "layout", "devices"} and sections[:1] != ["ppo"]
        if command == "rlhf":
            free &= last not in {"steps", "epochs", "iterations", "prompt_epochs"}
            free &= not last.startswith("warmup")
        if name in PATHS or free:
            check_config(tmp_path, before, config, done=0)
            continue
        with pytest.raises(CannotGoOn, match=rf"a run with {name} = .* does not change") as refused:
            check_config(tmp_path, before, config, done=0)
        assert refused.value.field == name


def test_a_longer_run_says_where_its_learning_rate_goes(tmp_path, capsys):
    def told(before, now, done):
        check_config(tmp_path, saved(before), now, done=done)
        return capsys.readouterr().out

    assert told(settled(steps=40), settled(steps=80), 40) == (
        "dpo.fit: the linear schedule over 80 steps with 0 steps of warm-up takes the place of "
        "that over 40 steps with 0 steps of warm-up: at 40 the learning rate goes from 0 to 0.5\n"
    )
    assert told(settled(steps=40), settled(steps=80), 0) == ""  # both begin with the full rate
    constant = {"schedule": "constant"}
    assert told(settled(steps=40, **constant), settled(steps=80, **constant), 20) == ""
    assert told(settled(steps=40, log_every=1), settled(steps=40, log_every=2), 20) == ""
    line = told(settled(steps=40), settled(steps=40, warmup=10), 20)
    assert "with 10 steps of warm-up takes" in line and line.endswith("goes from 0.5 to 0.667\n")
    with pytest.raises(UserError, match="has made 40 steps already and is to have 30 now; give"):
        told(settled(steps=40), settled(steps=30), 40)


def test_iterations_count_their_optimizer_steps(tmp_path, capsys):
    """Two iterations of two times three steps are half of the way to twice as many."""

    def config(iterations):
        optimizer = OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_steps=0)
        settings = GRPOSettings(iterations=iterations, minibatches=2, optimizer=optimizer)
        return GRPOConfig(grpo=settings)

    check_config(tmp_path, saved(config(4)), config(8), done=2)
    line = capsys.readouterr().out
    assert line.startswith("grpo: the linear schedule over 8 iterations with 0 steps of warm-up")
    assert line.endswith("at 2 the learning rate goes from 0.5 to 0.75\n")


def test_an_evaluation_set_may_be_added_and_not_changed(tmp_path):
    began = {"data.path": {"rows": 1, "sha256": "1", "in_any_order": "1"}}
    added = began | {"data.evaluation_path": {"rows": 2, "sha256": "2", "in_any_order": "2"}}
    record = Inputs(run="a", started="2024-02-29", inputs=began)
    (tmp_path / "inputs.json").write_text(json.dumps(dataclasses.asdict(record)))
    keep_inputs(tmp_path, added)
    assert read_inputs(tmp_path).inputs == added
    keep_inputs(tmp_path, added)
    other = added | {"data.evaluation_path": {"rows": 3, "sha256": "3", "in_any_order": "3"}}
    for inputs, words in (
        (other, "2 rows in data.evaluation_path, this one has 3"),
        (began, "none"),
    ):
        with pytest.raises(CannotGoOn, match=words):
            keep_inputs(tmp_path, inputs)
    with pytest.raises(CannotGoOn) as refused:
        check_same(began, {"data.path": began["data.path"] | {"rows": 2}}, tmp_path)
    assert refused.value.field == "data.path"


def test_the_command_of_a_new_run(tmp_path):
    (run := tmp_path / "dpo").mkdir()
    flags = [
        ("policy", ("a b",)),
        ("beta", ("0.2",)),
        ("run_dir", (str(run),)),
        ("config", ("c.py",)),
    ]

    def sentence(field, command="dpo", flags=flags):
        config = named_config(DEFAULTS[command])
        return new_run(command, config, flags, directory=run, field=field)

    other = f"--beta 0.2 --config c.py --output {run}-2"
    assert sentence("dpo.beta") == f"for a new run with this: jaxalign dpo --policy 'a b' {other}"
    (run / "model").mkdir()
    assert sentence("dpo.beta") == (
        f"to train on from its model with this: jaxalign dpo --policy {run} {other}"
    )
    assert "for a new run with this: jaxalign dpo --policy 'a b'" in sentence("seed")
    (tmp_path / "dpo-2").mkdir()
    assert sentence("dpo.beta").endswith(f"--output {run}-3")
    made = [("model.width", ("8",)), ("vocab_size", ("300",)), ("steps", ("9",))]
    assert sentence("fit.batch_size", "sft", made) == (
        f"to train on from its model with this: jaxalign sft --init {run} --steps 9 "
        f"--output {run}-3"
    )
    assert "for a new run" in sentence("reward.fit.batch_size", "reward", [])  # is no policy


def a_run(directory, *, inputs='{"run": "a", "started": "2024-02-29T00:00:00"}'):
    directory.mkdir()
    (directory / "inputs.json").write_text(inputs)
    (directory / "model").mkdir()
    return directory


def test_a_run_that_is_overwritten_begins_anew(tmp_path):
    run = a_run(tmp_path / "run")
    with set_aside(run, DPOConfig()), locked_directory(run):
        assert [path.name for path in run.iterdir()] == [LOCK]
        (run / "results.json").write_text("{}")
    assert [path.name for path in run.iterdir()] == ["results.json"]
    assert list(tmp_path.iterdir()) == [run]
    with set_aside(tmp_path / "new", DPOConfig()):  # nothing to overwrite
        pass
    assert list(tmp_path.iterdir()) == [run]


def test_a_run_comes_back_if_the_new_one_saved_nothing(tmp_path):
    run = a_run(tmp_path / "run")
    (link := tmp_path / "link").symlink_to(run)
    for name in (run, link):
        refused = pytest.raises(UserError, match="no such rows")
        with refused, set_aside(name, DPOConfig()), locked_directory(name):
            (name / "config.json").write_text("{}")
            raise UserError("no such rows")
        assert sorted(path.name for path in run.iterdir()) == ["inputs.json", "model"]
    assert sorted(tmp_path.iterdir()) == [link, run]


@pytest.mark.parametrize("has_saved", [False, True])
def test_a_killed_run_leaves_the_one_before_to_the_next_command(tmp_path, has_saved):
    run = a_run(tmp_path / "run")
    killed = set_aside(run, DPOConfig())
    killed.__enter__()  # and never left
    with locked_directory(run), pytest.raises(UserError, match="in use by process"):
        settle(run)  # as long as the new one lives
    (run / ("results.json" if has_saved else "config.json")).write_text("{}")
    settle(run)
    expected = ["results.json"] if has_saved else ["inputs.json", "model"]
    assert sorted(path.name for path in run.iterdir()) == expected
    assert list(tmp_path.iterdir()) == [run]
    settle(run)
    assert sorted(path.name for path in run.iterdir()) == expected
    killed.gen.close()


def test_other_files_beside_a_run_are_not_overwritten(tmp_path):
    run = a_run(tmp_path / "run")
    for name in (".git", "notes.txt"):
        (run / name).touch()
        with pytest.raises(UserError, match=f"holds '?{name}'? beside its run, and --overwrite"):
            set_aside(run, DPOConfig()).__enter__()
        (run / name).unlink()
    assert sorted(path.name for path in run.iterdir()) == ["inputs.json", "model"]


def test_what_is_not_overwritten(tmp_path):
    run = a_run(tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with_reward = with_flags(named_config("ppo.TextPPOConfig"), {"rewards": (f"{run}/r.py:f", "1")})
    for directory, config, words in (
        (
            tmp_path / "notes",
            DPOConfig(),
            "notes holds no run, and --overwrite removes nothing else",
        ),
        (run, DPOConfig(policy=str(run)), "--policy .* lies in .*run, which --overwrite removes"),
        (run, DPOConfig(policy=f"{run}@200"), "--policy .*@200 lies in .*run, which --overwrite"),
        (run, DPOConfig(reference_logps=f"{run}/x"), "--reference_logps .* lies in .*run"),
        (run, with_reward, "--rewards .*r lies in .*run"),
    ):
        with pytest.raises(UserError, match=words):
            set_aside(directory, config).__enter__()
    with locked_directory(run), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        set_aside(run, DPOConfig()).__enter__()
    assert sorted(path.name for path in run.iterdir()) == ["inputs.json", "model"]


def test_how_training_ended_is_told():
    assert Ending(stage="dpo", steps=9).notes == [] and Ending(stage="dpo", steps=9).columns == {}
    best = Best(metric="eval/loss", patience=2)
    for step, value in ((0, 0.7), (2, 0.5), (4, 0.6)):
        best.add(step, value)
    ending = Ending(stage="dpo", steps=9, best=best)
    assert ending.notes == ["dpo: the model is that of step 2, the best by eval/loss (0.5)."]
    assert (ending.step, ending.stopped_at) == (2, None)
    best.add(6, 0.8)
    assert ending.notes[0] == (
        "dpo: training stopped after step 6 of 9, with 2 evaluations in a row without a better "
        "eval/loss."
    )
    assert ending.columns["stopped_at"] == 6 and ending.columns["best_step"] == 2
