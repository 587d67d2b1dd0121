"""The race from the command to the result: its rows, how a process is watched, and the table."""

import dataclasses
import json
import os
import sys

import pytest

from benchmarks.first_result import __main__ as program
from benchmarks.first_result.jobs import (
    ALPHA,
    GROUP,
    JOBS,
    LONGEST,
    NEW_TOKENS,
    RANK,
    SHORTEST,
)
from benchmarks.first_result.measure import Measurement, measured, phases_in, read_measurements
from benchmarks.first_result.reward import plain_words
from benchmarks.first_result.rows import pairs, rows_of, write_rows
from benchmarks.first_result.sides import OURS, PASSES, SIDES, Place, versions
from benchmarks.first_result.table import grouped, table
from benchmarks.first_result.timeline import Timeline, watched
from jaxalign import cli

PRAISE = [f"praise {'so ' * words}much" for words in range(12)]
BLAME = [text.replace("praise", "blame") for text in PRAISE]
SPEAKING = """
import pathlib, sys, time
print("\\rstarting\\r", end="", flush=True)
time.sleep(0.2)
print("@@first step", flush=True)
print("@@evaluation")
print("@@evaluation", flush=True)
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
print("saving the model: 2.5 s")
(folder.parent / "cache" / "one-cache").touch()
sys.exit(f"gone wrong in {folder.name}" if len(sys.argv) > 2 else None)
"""


def words(prompt: str, response: str) -> int:
    return len(f"{prompt} {response}".split())


def test_rows_have_mixed_lengths_and_are_those_of_their_seed():
    made = list(pairs(words, PRAISE, BLAME, number=60, seed=3))
    assert made == list(pairs(words, PRAISE, BLAME, number=60, seed=3))
    assert made != list(pairs(words, PRAISE, BLAME, number=60, seed=4))
    lengths = []
    for row in made:
        (prompt,), (chosen,), (rejected,) = row["prompt"], row["chosen"], row["rejected"]
        assert (prompt["role"], chosen["role"], rejected["role"]) == ("user", *["assistant"] * 2)
        assert "blame" not in chosen["content"] and "praise" not in rejected["content"]
        lengths += [words(prompt["content"], x["content"]) for x in (chosen, rejected)]
    assert SHORTEST <= min(lengths) < 60 and 120 < max(lengths) <= LONGEST


def test_a_length_that_no_sentences_make_is_refused():
    with pytest.raises(ValueError, match="no row of"):
        list(pairs(words, ["x " * 1000], BLAME, number=1, seed=0))


def test_methods_read_the_same_texts(tmp_path):
    made = list(pairs(words, PRAISE, BLAME, number=51, seed=0))
    assert rows_of("dpo", made) == rows_of("reward", made) == made
    assert rows_of("sft", made)[1] == {"prompt": made[1]["prompt"], "completion": made[1]["chosen"]}
    labelled = rows_of("kto", made)
    assert [row["label"] for row in labelled[:3]] == [True, False, True]
    assert labelled[1]["completion"] == made[1]["rejected"]
    write_rows(JOBS["kto"], made, tmp_path / "kto")
    parts = [(tmp_path / "kto" / f"{name}.jsonl").read_text() for name in ("train", "test")]
    assert [json.loads(line) for part in parts for line in part.splitlines()] == labelled
    assert [part.count("\n") for part in parts] == [40, 11]
    write_rows(JOBS["grpo"], made, tmp_path / "grpo")
    assert os.listdir(tmp_path / "grpo") == ["train.jsonl"]


def test_the_reward_prefers_short_words_and_whole_answers():
    answers = ["so it is and " * 5, "extraordinarily " * 20, "so", ""]
    completions = [[{"role": "assistant", "content": answer}] for answer in answers]
    assert plain_words(answers, completions) == [1.0, 0.0, pytest.approx(0.05), -1.0]


def test_a_process_is_watched_to_its_end(tmp_path):
    log, place = tmp_path / "log", tmp_path / "model"
    (tmp_path / "cache").mkdir()
    command = [sys.executable, "-c", SPEAKING, str(place)]
    seen, _ = watched(command, env=dict(os.environ), log=log, timeout=60)
    assert seen.failure == "" and seen.peak_mib > 1 and seen.cpu_seconds > 0
    assert list(seen.marks) == ["first line", "first step", "evaluation", "end"]
    moments = list(seen.marks.values())
    assert moments == sorted(moments) and moments[1] - moments[0] >= 0.2
    assert b"starting" in log.read_bytes()
    again, _ = watched([*command, "fail"], env=dict(os.environ), log=log, timeout=60)
    assert again.failure.startswith("status 1: ") and "FileExistsError" in again.failure


def test_a_process_that_takes_too_long_is_killed_and_keeps_its_milestones(tmp_path):
    code = "import time; print('@@first step', flush=True); time.sleep(60)"
    seen, _ = watched(
        [sys.executable, "-c", code], env=dict(os.environ), log=tmp_path / "log", timeout=1.5
    )
    assert seen.failure == "killed after 2 s" and "first step" in seen.marks
    assert seen.marks["end"] < 20


def test_phases_are_those_whose_end_is_told():
    log = "loading /a/model\nloading /a/model: 1.5 s\nscoring: 1:02:03\ndpo: 2/12 4.5 s a step\n"
    assert phases_in(log + "loading /b/model: 0.5 s\n") == {"loading model": 2.0, "scoring": 3723.0}


def test_milestones_of_a_run_come_from_its_files(tmp_path):
    run, start = tmp_path / "run", 1000.0
    (run / "model").mkdir(parents=True)
    lines = [{"step": 0, "time": 1001, "loss": 1}, {"step": 1, "time": 1002, "evaluation/loss": 2}]
    lines += [{"step": 1, "time": 1003.5, "loss": 1}, {"step": 2, "time": 1004, "loss": 1}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, moment in (("model/config.json", 1005), ("model/weights", 1007), ("x", 1009)):
        (run / name).touch()
        os.utime(run / name, (moment, moment))
    seen = Timeline()
    place = Place(model=run, rows=run, output=run, cache=run)
    OURS.look(seen, place, start)
    assert seen.marks == {"first step": 3.5, "model": 7.0}
    OURS.look(seen, dataclasses.replace(place, output=run / "none"), start)


def side_that_speaks(*words: str):
    def command(job, name, place, learning_rate):
        return ["-c", SPEAKING, str(place.output), *words]

    return dataclasses.replace(SIDES[-1], command=command)


def test_a_measurement_is_kept_as_a_line(tmp_path):
    place = Place(
        model=tmp_path, rows=tmp_path, output=tmp_path / "output", cache=tmp_path / "cache"
    )
    told = {"job": "dpo", "learning_rate": 1.0, "timeout": 60, "versions": "1", "command": "c"}
    made = [
        measured(side, sys.executable, place, cache="cold", number=number, **told)
        for number, side in enumerate((side_that_speaks(), side_that_speaks("fail")))
    ]
    assert [one.programs for one in made] == [1, 1]  # the cold pass empties the cache
    assert made[0].phases == {"saving the model": 2.5} and not place.output.exists()
    assert made[1].seen.failure == "status 1: gone wrong in output"
    file = tmp_path / "lines"
    file.write_text("".join(one.line() for one in made))
    assert read_measurements(file) == made and read_measurements(tmp_path / "none") == []


def measurement(side: str, cache: str, model: float, *, number: int = 1, failure: str = ""):
    marks = {"first line": 0.5, "first step": 9.0, "model": model, "end": 2 * model}
    return Measurement(
        job="dpo",
        side=side,
        cache=cache,
        number=number,
        seen=Timeline(marks, 1000.0, 30.0, failure),
        programs={"cold": 40, "warm": 0}[cache] if side == "jaxalign" else None,
        phases={"loading": 2.5} if side == "jaxalign" else {},
        versions="jax 1.2",
        revision="abc",
        date="2026-01-02",
        command="python -m benchmarks.first_result",
    )


def test_the_table_has_medians_ratios_and_what_failed():
    made = [measurement("jaxalign", "cold", seconds, number=i) for i, seconds in enumerate((8, 9))]
    made += [measurement("jaxalign", "warm", 5.0), measurement("TRL", "cold", 10.0)]
    made += [measurement("Tunix", "cold", 3.0, failure="killed after 9 s")]
    text = table(made)
    spread = "8.5 (8.0, 9.0) | – | 17.0 (16.0, 18.0) | 1,000 | 30.0 (30.0, 30.0) | 40 |"
    assert f"| dpo | jaxalign | cold | 0.5 (0.5, 0.5) | 9.0 (9.0, 9.0) | {spread}" in text
    assert "| dpo | TRL | cold | 0.5 | 9.0 | 10.0 | – | 20.0 | 1,000 | 30.0 |  |" in text
    assert "| dpo | cold | 0.85 | 0.85 |  |  |" in text
    assert "| dpo | warm | 0.50 | 0.50 |  |  |" in text
    assert "- dpo, cold: loading 2.5" in text
    assert "- dpo, Tunix, cold, round 1: killed after 9 s (first line 0.5 s, " in text
    assert "| Tunix |" not in text
    assert text.count("- 2026-01-02, revision abc: `python -m benchmarks.first_result`") == 1
    assert "by TRL's" not in table(made[-1:])
    assert next(iter(grouped(reversed(made)))) == ("dpo", "jaxalign", "cold")


def test_every_side_knows_its_jobs_and_every_job_its_time():
    for job in JOBS.values():
        assert {side.name for side in SIDES if job.method in side.methods} == set(job.expected)
    assert all(set(side.passes) <= set(PASSES) and side.passes[0] == "cold" for side in SIDES)


@pytest.mark.parametrize("name", JOBS)
def test_our_flags_say_what_the_job_says(name, tmp_path, monkeypatch):
    job, settings = JOBS[name], []
    monkeypatch.setattr(cli, "run_configured", lambda config, options: settings.append(config))
    place = Place(model=tmp_path, rows=tmp_path, output=tmp_path / "out", cache=tmp_path)
    start = ["-m", "jaxalign", job.method]
    command = OURS.command(job, name, place, 1e-4)
    assert command[:3] == start
    cli.main(command[2:])
    (config,) = settings
    if not job.rows:
        assert config == type(config)()
        return
    block = config if job.method == "sft" else getattr(config, job.method)
    fit = block if job.method == "grpo" else block.fit
    rate, warmup = fit.optimizer.learning_rate, fit.optimizer.warmup_steps
    assert (rate, warmup, fit.optimizer.schedule, fit.log_every) == (1e-4, 0, "linear", 1)
    assert (config.lora.rank, config.lora.alpha) == (RANK, ALPHA)
    assert config.data.path == str(tmp_path / "train.jsonl")
    assert bool(config.data.evaluation_path) == bool(job.held_out)
    if job.method == "grpo":
        assert (fit.iterations, fit.prompts, fit.group_size) == (job.steps, job.batch, GROUP)
        assert (config.max_new_tokens, fit.kl_coef) == (NEW_TOKENS, 0.0)
    else:
        texts = {"reward": 2}.get(job.method, 1)  # of a row, as a batch counts
        assert (fit.steps, fit.batch_size) == (job.steps, texts * job.batch)


def test_the_plan_begins_every_round_with_another_side(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["first_result", "--jobs", "sft", "grpo", "default", "--rounds", "2"]
    )
    turns = program.plan(program.parse(), list(SIDES))
    first = [(turn.job, turn.side.name, turn.cache) for turn in turns if turn.number == 1]
    assert first == [
        *(("sft", "jaxalign", name) for name in PASSES),
        ("sft", "TRL", "cold"),
        ("sft", "Tunix", "cold"),
        ("sft", "Tunix", "warm"),
        *(("grpo", "jaxalign", name) for name in PASSES),
        ("grpo", "TRL", "cold"),
        ("default", "jaxalign", "cold"),
    ]
    second = [turn.side.name for turn in turns if turn.number == 2]
    assert len(turns) == 2 * len(first) and second[0] == "TRL" and second[-1] == "jaxalign"
    assert all(turn.expected > 0 for turn in turns)


def test_what_is_not_installed_does_not_take_part():
    env = dict(os.environ)
    missing = dataclasses.replace(OURS, modules=("nobody_has_this",))
    with pytest.raises(LookupError, match="nobody_has_this"):
        versions(missing, sys.executable, env)
    there = dataclasses.replace(OURS, modules=("json",), packages=("numpy",))
    assert versions(there, sys.executable, env).split(", ")[1].startswith("numpy ")
