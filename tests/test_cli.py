"""The command line: the stages on a user's own files, one after the other, and what mistakes look
like.
"""

import collections
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxalign.cli import dispatch, main
from jaxalign.recipes import fit_loop, step_metrics
from jaxalign.train import loop
from jaxalign.train.metrics import read_metrics
from tests.metric_lines import lines_without_times

TINY_MODEL = ["--model.width", "16", "--model.layers", "1", "--model.heads", "2"]
TEXT = "a fine film with a warm heart and a sly wit that never once loses its way"
WORDS = TEXT.split(" ")


@pytest.fixture(scope="module")
def steps_compile_once():
    """In every run of this file, a step that sees shapes for the second time compiles nothing.

    The second step of a run is let through once more: its state comes from the first, compiled,
    and not from the host.
    """
    compiled, again = [0], []
    event = "/jax/core/compile/backend_compile_duration"

    def count(name, seconds, **more):
        compiled[0] += name == event

    def watched(state, step, batches, **settings):
        seen = collections.Counter()

        def counted(state, batch):
            shapes = tuple(np.shape(x) for x in jax.tree.leaves(batch))
            seen[shapes] += 1
            before = compiled[0]
            result = jax.block_until_ready(step(state, batch))
            if seen[shapes] > 1 and seen.total() > 2 and compiled[0] > before:
                again.append((settings.get("label"), seen.total(), compiled[0] - before))
            return result

        return loop.fit(state, counted, batches, **settings)

    jax.monitoring.register_event_duration_secs_listener(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_loop, "fit", watched)
        yield
    jax.monitoring.unregister_event_duration_listener(count)
    assert compiled[0] > 10 and not again


def fit(prefix, steps):
    return [
        *(f"--{prefix}fit.steps", str(steps), f"--{prefix}fit.batch_size", "16"),
        *(f"--{prefix}fit.log_every", "1", f"--{prefix}fit.optimizer.warmup_steps", "1"),
    ]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def text(i):
    return " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 7))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    preferences = [
        {"prompt": "a ", "chosen": f"good {text(i)}", "rejected": f"bad {text(i)}"}
        for i in range(24)
    ]
    return {
        "texts": write_rows(folder / "texts.jsonl", [{"text": text(i)} for i in range(24)]),
        "preferences": write_rows(folder / "preferences.jsonl", preferences),
        "gold": write_rows(
            folder / "gold.jsonl", [row | {"gold": f"great {row['chosen']}"} for row in preferences]
        ),
        "labelled": write_rows(
            folder / "labelled.jsonl",
            [
                {"prompt": WORDS[i], "completion": f"{side} {text(i)}", "label": side == "good"}
                for i in range(10)
                for side in ("good", "bad")
            ],
        ),
        "prompts": write_rows(folder / "prompts.jsonl", [{"prompt": w} for w in WORDS]),
        "folder": folder,
    }


@pytest.fixture(scope="module")
def policy(steps_compile_once, files):
    """An SFT run, by the command line."""
    directory = files["folder"] / "sft"
    data = ["--data.path", files["texts"], "--data.evaluation_path", files["texts"]]
    size = ["--tokenizer.vocab_size", "300", "--data.max_length", "40"]
    arguments = ["sft", "--output", str(directory), *data, *size, *TINY_MODEL, *fit("", 4)]
    results = dispatch(arguments)
    assert results["rows"][0]["perplexity"] > 1
    return directory, arguments


@pytest.mark.slow
def test_sft_writes_a_run_and_resumes_it(policy):
    directory, arguments = policy
    for name in ("config.json", "versions.json", "results.json", "report.html", "metrics.jsonl"):
        assert (directory / name).stat().st_size > 0
    assert (directory / "model" / "model.safetensors").exists()
    assert list((directory / "tensorboard").rglob("*tfevents*"))
    before = (directory / "model" / "model.safetensors").read_bytes()
    lines = read_metrics(directory)
    link = directory.with_name("the same run")
    link.symlink_to(directory)
    texts = Path(arguments[arguments.index("--data.path") + 1])
    (texts.with_name("linked.jsonl")).symlink_to(texts)
    same = {str(directory): str(link), str(texts): str(texts.with_name("linked.jsonl"))}
    dispatch([same.get(argument, argument) for argument in arguments])  # nothing is left to do
    assert (directory / "model" / "model.safetensors").read_bytes() == before
    assert read_metrics(directory) == lines


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_rows_in_the_same_file(policy, capsys):
    _, arguments = policy
    texts = Path(arguments[arguments.index("--data.path") + 1])
    before = texts.read_text()
    for rows, words in (
        (before.splitlines()[::-1], "the rows of data.path in another order"),
        (before.splitlines()[1:], "24 rows in data.path, this one has 23"),
        (
            before.replace("fine", "dull").splitlines(),
            "other rows in data.path than this one (24 each)",
        ),
    ):
        texts.write_text("".join(f"{row}\n" for row in rows))
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err
    texts.write_text(before)


@pytest.mark.slow
def test_a_best_that_is_no_metric_is_refused_before_the_first_step(policy, files, capsys):
    """Of a new run, and of one that goes on and was evaluated before."""
    run = files["folder"] / "best"
    start = ["sft", "--init", str(policy[0]), "--data.max_length", "40", "--output", str(run)]
    rows = ["--data.path", files["texts"], "--data.evaluation_path", files["texts"]]
    arguments = [*start, *rows, *fit("", 2), "--eval_every", "1"]
    for lines in ([], [0, 1, 1, 2, 2]):
        with pytest.raises(SystemExit):
            main([*arguments, "--best", "eval/los"])
        told = "best eval/los is no metric of the evaluation, which has eval/loss, "
        assert told in capsys.readouterr().err
        assert [line["step"] for line in read_metrics(run)] == lines
        dispatch(arguments)


@pytest.mark.slow
def test_another_configuration_does_not_go_on_in_the_same_directory(policy, capsys):
    _, arguments = policy
    with pytest.raises(SystemExit):
        main([*arguments, "--seed", "1"])
    assert "holds a run with seed = 0, this one has 1" in capsys.readouterr().err


@pytest.mark.slow
def test_reward_dpo_ppo_evaluate_and_generate(policy, files, capsys, monkeypatch):
    monkeypatch.setattr(step_metrics, "peak_flops", lambda kind: 1e15)
    directory, folder = str(policy[0]), files["folder"]
    pairs = ["--data.path", files["preferences"], "--data.max_length", "40"]
    reward, dpo, ppo = (str(folder / name) for name in ("reward", "dpo", "ppo"))
    held_out = ["--data.evaluation_path", files["preferences"]]
    results = dispatch(
        ["reward", "--output", reward, "--init", directory, *pairs, *held_out, *fit("reward.", 4)]
    )
    assert 0 <= results["reward_model"][0]["pair_accuracy"] <= 1
    assert 0 < read_metrics(reward)[2]["utilisation"] < 1
    results = dispatch(
        ["dpo", "--output", dpo, "--policy", directory, *pairs, *held_out, *fit("dpo.", 4)]
    )
    assert [line["step"] for line in read_metrics(dpo) if "eval/loss" in line] == [4]
    first = read_metrics(dpo)[0]  # where policy = reference
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert read_metrics(dpo)[-1]["eval/rewards/accuracy"] == pytest.approx(
        results["reward_model"][0]["pair_accuracy"]
    )
    small = ["--ppo.iterations", "2", "--ppo.batch_size", "32", "--ppo.optimizer.warmup_steps", "1"]
    room = ["--max_new_tokens", "8", "--data.path", files["prompts"], "--data.max_length", "20"]
    models = ["--policy", directory, "--reward", reward]
    dispatch(["ppo", "--output", ppo, *models, *small, *room])
    assert abs(read_metrics(ppo)[0]["kl/reference"]) < 1e-3  # sampled by the reference itself
    on = ["--on", "preferences", *pairs, "--reference", directory]
    measured = dispatch(["evaluate", "--model", dpo, *on])
    assert measured["pair_accuracy"] == pytest.approx(results["reward_model"][0]["pair_accuracy"])
    out = str(folder / "out.json")
    measured = dispatch(
        ["evaluate", "--model", directory, "--data.path", files["texts"], "--output", out]
    )
    assert measured["perplexity"] > 1 and json.loads(Path(out).read_text()) == measured
    hot = ["--model", directory, "--data.path", files["texts"], "--temperature", "1e6"]
    tokens = json.loads((policy[0] / "model" / "config.json").read_text())["vocab_size"]
    assert dispatch(["evaluate", *hot])["perplexity"] == pytest.approx(tokens, rel=1e-5)  # uniform
    sampling = ["--max_new_tokens", "6", "--samples", "2"]
    texts = dispatch(["generate", "--model", ppo, "--prompt", "a fine film", *sampling])
    assert len(texts) == 2 and all(text.startswith("a fine film") for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "rows"), [("simpo", "preferences"), ("tpo", "gold")])
def test_dpo_by_another_loss(policy, files, tmp_path, loss, rows):
    run = str(tmp_path / loss)
    pairs = ["--data.path", files[rows], "--data.max_length", "40"]
    held_out = ["--data.evaluation_path", files[rows]]
    arguments = ["--policy", str(policy[0]), *pairs, *held_out, *fit("dpo.", 3)]
    results = dispatch(["dpo", "--loss", loss, "--output", run, *arguments])
    assert results["rows"][0]["method"] == f"DPO ({loss})"
    assert 0 <= results["reward_model"][0]["pair_accuracy"] <= 1
    assert json.loads((tmp_path / loss / "config.json").read_text())["dpo"]["loss"] == loss
    assert read_metrics(run)[-1]["step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_rows_on_disk_train_the_same_model_and_resume(
    policy, files, tmp_path, command, interrupted, capsys
):
    """Of a mixture with long rows and held-out ones; what is in memory is not interrupted."""
    more = [{"prompt": f"{w} ", "chosen": f"good {text(i) * 3}", "rejected": "bad"}
            for i, w in enumerate(WORDS)]  # fmt: skip
    pairs = write_rows(tmp_path / "more.jsonl", more)
    mixture = ["--data.mixture", files["preferences"], "1", pairs, "2"]
    start = ["--policy", str(policy[0])]
    if command == "sft":
        start = ["--init", str(policy[0]), "--data.fields", "completion", "chosen"]
    mixture += ["--data.on_long_row", "truncate"]
    if command == "dpo":  # sft would tell of step 1 twice, and be stopped twice
        mixture += ["--data.evaluation_share", "0.2"]
    section = "" if command == "sft" else "dpo."
    loop = [*fit(section, 6), f"--{section}fit.save_every", "2", "--data.max_length", "30"]
    arguments = [*start, *mixture, *loop]
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    dispatch([command, "--run_dir", whole, *arguments])
    shown = {"sft": "tokens/accuracy", "dpo": "rewards/margin"}[command]
    told = rf"^{command}: 6/6 .*, loss [\d.]+, {shown} -?[\d.]+"
    assert re.search(told, capsys.readouterr().out, re.MULTILINE)
    streamed = [command, "--run_dir", parts, *arguments, "--data.streaming", "True"]
    interrupted(lambda: dispatch(streamed))
    assert 0 < read_metrics(parts)[-1]["step"] < 6
    dispatch(streamed)
    models = [Path(run) / "model" / "model.safetensors" for run in (whole, parts)]
    assert models[0].read_bytes() == models[1].read_bytes()
    inputs = [
        json.loads((Path(run) / "inputs.json").read_text())["inputs"] for run in (whole, parts)
    ]
    assert inputs[0] == inputs[1]  # the digests of the rows too


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_kto_and_bco_resume_to_the_same_bits_and_are_explained(
    policy, files, tmp_path, loss, interrupted, capsys
):
    data = ["--data.path", files["labelled"], "--data.max_length", "40"]
    data += ["--data.evaluation_share", "0.2", "--policy", str(policy[0])]
    data += [*fit("kto.", 6), "--kto.fit.save_every", "2", "--kto.fit.eval_every", "6"]
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    results = dispatch(["kto", "--loss", loss, "--output", whole, *data])
    assert 0 <= results["reward_model"][0]["pair_accuracy"] <= 1
    told = r"^kto: 6/6 .*, loss [\d.]+, rewards/chosen \S+, rewards/rejected \S+$"
    assert re.search(told, capsys.readouterr().out, re.MULTILINE)
    interrupted(lambda: dispatch(["kto", f"--loss={loss}", "--output", parts, *data]))
    assert 0 < read_metrics(parts)[-1]["step"] < 6
    dispatch(["kto", "--loss", loss, "--output", parts, *data])
    files_of = [Path(run) / "model" / "model.safetensors" for run in (whole, parts)]
    assert files_of[0].read_bytes() == files_of[1].read_bytes()
    numbers = [lines_without_times(run) for run in (whole, parts)]
    assert numbers[0] == numbers[1]
    name = {"kto": "kl/reference", "bco": "bco/shift"}[loss]
    lines = [line for line in numbers[0] if "loss" in line]
    assert lines[0][name] == pytest.approx(0, abs=1e-5) and lines[-1][name] != 0
    assert [line["step"] for line in numbers[0] if f"eval/{name}" in line] == [0, 6]
    page = ["--rows", "4", "--output", str(tmp_path / "explain.html")]
    capsys.readouterr()
    checked = ["--updates", "1", "--check", "True"] if loss == "kto" else []
    found = dispatch(["explain", "--run", whole, *checked, *page])
    assert len(found.sequences) == 4 and all(total.agrees for total in found.sums)
    assert "labelled good" in (tmp_path / "explain.html").read_text()
    if loss == "kto":
        assert not found.notes and capsys.readouterr().out.count("nothing found") == 3
        return
    assert found.notes[0].startswith("The shift starts from that of the run after step 6: ")
    rewards = [line["bco/reward"] for line in lines]
    rows = json.loads((Path(whole) / "config.json").read_text())["kto"]["fit"]["batch_size"]
    shift = (rows * sum(rewards) + 4 * found.metrics["bco/reward"]) / (6 * rows + 4)  # its own too
    assert found.metrics["bco/shift"] == pytest.approx(shift, rel=1e-4)
    arguments = ["--method", "kto", "--kto.loss", "bco", "--data.path", files["labelled"], *page]
    models = ["--policy", whole, "--reference", str(policy[0]), "--data.max_length", "40"]
    models += ["--data.evaluation_share", "0.2"]  # the rows that were trained on
    alone = dispatch(["explain", *arguments, *models, "--updates", "1"])
    assert all(total.agrees for total in alone.sums)
    assert alone.notes == ("The shift starts from 0, as in training: no run is given.",)
    # the mean reward of the same rows before the update and after it
    both = (found.metrics["bco/reward"], alone.metrics["bco/reward"])
    assert alone.metrics["bco/shift"] == pytest.approx(sum(both) / 2, rel=1e-4)


@pytest.mark.slow
def test_grpo_resumes_to_the_same_bits_and_is_explained(
    policy, files, tmp_path, interrupted, capsys
):
    directory, reward = str(policy[0]), str(tmp_path / "reward")
    pairs = ["--data.path", files["preferences"], "--data.max_length", "40"]
    dispatch(["reward", "--output", reward, "--init", directory, *pairs, *fit("reward.", 2)])
    data = ["--data.path", files["prompts"], "--data.max_length", "20", "--max_new_tokens", "6"]
    data += ["--policy", directory, "--reward", reward, "--grpo.save_every", "1"]
    data += ["--grpo.iterations", "4", "--grpo.prompts", "8", "--grpo.group_size", "4"]
    data += ["--grpo.minibatches", "2", "--grpo.mask_truncated", "False", "--seed", "1"]
    data += ["--data.evaluation_path", files["prompts"], "--grpo.eval_every", "2"]
    data += ["--place.layout", "device"]
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    results = dispatch(["grpo", "--loss", "dapo", "--output", whole, *data])
    assert results["rows"][0]["method"] == "GRPO (dapo)"
    assert "clip_range (0.2, 0.28)" in results["notes"][1]
    interrupted(lambda: dispatch(["grpo", "--loss=dapo", "--output", parts, *data]))
    assert 0 < read_metrics(parts)[-1]["step"] < 4
    dispatch(["grpo", "--loss", "dapo", "--output", parts, *data])
    files_of = [Path(run) / "model" / "model.safetensors" for run in (whole, parts)]
    assert files_of[0].read_bytes() == files_of[1].read_bytes()
    numbers = [lines_without_times(run) for run in (whole, parts)]
    assert numbers[0] == numbers[1]
    kept = [(Path(run) / "samples.jsonl").read_text() for run in (whole, parts)]
    assert kept[0] == kept[1]
    assert kept[0].count("\n") == 4 * 8 * 4 + 3 * min(len(WORDS), 16)
    evaluated = [line for line in numbers[0] if "eval/scores/mean" in line]
    assert [line["step"] for line in evaluated] == [0, 2, 4]
    assert abs(evaluated[0]["eval/kl/reference"]) < 1e-4 < abs(evaluated[-1]["eval/kl/reference"])
    first = numbers[0][1]
    assert abs(first["kl/reference"]) < 1e-4 and first["ratio/mean"] == pytest.approx(1, abs=1e-5)
    page = str(tmp_path / "explain.html")
    capsys.readouterr()
    explained = ["--run", whole, "--rows", "2", "--updates", "1", "--check", "True"]
    found = dispatch(["explain", *explained, "--output", page])
    assert len(found.sequences) == 8 and all(total.agrees for total in found.sums)
    assert capsys.readouterr().out.count("nothing found") == 3
    assert "GRPO: loss" in Path(page).read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rhlf"], "no command 'rhlf'"),
        (["dpo"], "--policy is empty; give a run directory, a Hugging Face folder or hub id"),
        (["sft"], "--data.path is empty"),
        (["sft", "--data.path", "no.jsonl"], "no.jsonl"),
        (["ppo", "--config", "no.py"], "--config no.py does not exist"),
        (["sft", "--output"], "--output needs a value"),
        (["generate", "--output", "x"], "`jaxalign generate` has no flag --output"),
        (
            ["report", "/no/such/run"],
            "/no/such/run is not a directory; give the directory of a run",
        ),
        (["generate", "--model", "/no/such/run"], "/no/such/run"),
    ],
)
def test_mistakes_are_one_line(arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    errors = capsys.readouterr().err.splitlines()
    progress = [error for error in errors if not error.startswith("jaxalign: ")]
    assert stop.value.code == 2
    assert line in errors[-1] and len(errors) - len(progress) == 1
    assert all(told.startswith("loading ") for told in progress)


@pytest.mark.parametrize("command", ["distill", "explain", "grpo", "rlhf"])
def test_the_sentence_of_a_command_is_one_paragraph_of_its_help(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help", "all"])
    usage, sentence, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: jaxalign {command}") and sentence.endswith(".")
    assert sentence == " ".join(sentence.split())


def test_an_unknown_field_names_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["dpo", "--polcy", "x"])
    assert "--policy" in capsys.readouterr().err


def test_a_value_out_of_range_says_what_was_wanted(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--temperature", "-1"])
    assert stop.value.code == 2
    assert "temperature is -1.0; it must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dpo", "--loss", "ipo", "--dpo.alpha", "1"], "loss ipo takes no alpha; it takes beta"),
        (["kto", "--loss", "bco", "--kto.desirable_weight", "2"], "takes no desirable_weight"),
        (["grpo", "--grpo.kl_estimator", "k1"], "its expected gradient is 0"),
        (["grpo", "--loss", "sapo", "--grpo.clip_range", "0.1", "0.2"], "sapo takes no clip_range"),
        (["dpo", "--loss", "kto"], "--dpo.loss is 'kto'; it must be dpo, robust"),
    ],
)
def test_a_hyper_parameter_that_the_loss_does_not_take(arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert line in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_configuration_of_another_command_is_refused(tmp_path, capsys):
    file = tmp_path / "config.py"
    file.write_text(
        "from jaxalign.config import DPOConfig\ndef get_config():\n    return DPOConfig()\n"
    )
    with pytest.raises(SystemExit):
        main(["sft", "--config", str(file)])
    assert "is a DPOConfig, which `jaxalign sft` does not take" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_command_could_only_ignore_is_refused(policy, files, tmp_path, capsys):
    """Labels that are all false, references of other vocabularies."""
    other = str(tmp_path / "other")
    size = ["--tokenizer.vocab_size", "280", "--data.max_length", "40", *TINY_MODEL]
    dispatch(["sft", "--output", other, "--data.path", files["texts"], *size, *fit("", 1)])
    reward = str(tmp_path / "reward")
    pairs = ["--data.path", files["preferences"], "--data.max_length", "40"]
    dispatch(["reward", "--output", reward, "--init", other, *pairs, *fit("reward.", 1)])
    false = [{"prompt": "a", "completion": "b", "label": False}]
    labelled = ["--labelled", "True", "--data.path", write_rows(tmp_path / "false.jsonl", false)]
    new = ["sft", "--output", str(tmp_path / "new"), "--init", other]
    preferences = ["evaluate", "--on", "preferences", *pairs]
    for arguments, line in (
        ([*new, *labelled], "false.jsonl: no row has a true label"),
        (
            [*preferences, "--model", str(policy[0]), "--reference", other],
            "--model and --reference have different vocabularies",
        ),
        (
            [*preferences, "--model", reward, "--reference", str(policy[0])],
            "whose scores --reference does not change",
        ),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        refusals = [e for e in capsys.readouterr().err.splitlines() if e.startswith("jaxalign: ")]
        assert len(refusals) == 1 and line in refusals[0]


@pytest.mark.slow
def test_a_row_that_the_model_cannot_read_is_named(policy, capsys, tmp_path):
    path = write_rows(tmp_path / "long.jsonl", [{"text": text(0)}, {"text": text(1) * 20}])
    for more in (["evaluate", "--model"], ["sft", "--output", str(tmp_path / "run"), "--init"]):
        with pytest.raises(SystemExit):
            main([*more, str(policy[0]), "--data.path", path])
        errors = capsys.readouterr().err
        assert "long.jsonl:2" in errors and "the limit is 40" in errors


@pytest.mark.slow
def test_a_loss_that_needs_a_third_text_names_the_row_without(policy, files, capsys):
    with pytest.raises(SystemExit):
        arguments = ["--policy", str(policy[0]), "--data.path", files["preferences"]]
        main(["dpo", "--loss", "tpo", *arguments])
    errors = capsys.readouterr().err
    assert "preferences.jsonl:1, " in errors and " and 19 more: no 'gold'" in errors


@pytest.mark.slow
def test_bad_rows_stop_or_are_named(files, capsys, tmp_path):
    rows = [{"text": text(0)}, {"text": ""}, {"txt": "x"}]
    path = write_rows(tmp_path / "bad.jsonl", rows)
    with pytest.raises(SystemExit):
        main(["sft", "--output", str(tmp_path / "run"), "--data.path", path])
    errors = capsys.readouterr().err
    assert "2 of 3 rows are bad" in errors and "bad.jsonl:2" in errors and "bad.jsonl:3" in errors
