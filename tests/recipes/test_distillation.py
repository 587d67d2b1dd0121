"""Distillation: names, the pure loss, the same update however the rows are cut, no gradient at the
teacher, and runs that lower the divergence; the commands `distill` and `online` on saved models.
"""

import dataclasses
import functools
import json
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign import objectives
from jaxalign.batches.preferences import DistillationBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.cli import dispatch, main
from jaxalign.commands.distill import check_memory, prompts_of
from jaxalign.config.distill import DistillationLossName, DistillSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import token_row
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.losses import DISTILLATION_LOSSES
from jaxalign.models import functions
from jaxalign.recipes.distillation import train_distillation
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_models import new_text_model, save_text_model, with_heads
from jaxalign.train.metrics import read_metrics
from tests.checks.close import assert_same
from tests.metric_lines import lines_without_times
from tests.updates import Updates

KEY, LENGTH, WORDS = jax.random.key(0), 5, 7
NAMES = tuple(DISTILLATION_LOSSES)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
START = np.random.default_rng(9).normal(size=(WORDS, WORDS))
LAYOUTS = ["device", "pmap", "shards", "mesh"]


def batch_of(rows, seed=0, teacher=None):
    rng = np.random.default_rng(seed)
    real = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, rows)[:, None]
    prompt = real & (np.arange(LENGTH) < 1)
    tokens = rng.integers(0, WORDS, (rows, LENGTH)).astype(np.int32)
    logits = rng.normal(size=(rows, LENGTH, WORDS)) if teacher is None else teacher[tokens]
    index = np.arange(rows, dtype=np.int32)
    texts = TokenBatch(tokens=tokens, prompt_mask=prompt, response_mask=real & ~prompt, index=index)
    return DistillationBatch(rows=texts, teacher_logits=logits)


def table_divergences(params, rows, keys, teacher_logits, divergence):
    """A Markov student: the next token's logits are a row of a table, by the token before."""
    found = divergence(params[rows.tokens], teacher_logits)
    return jnp.pad(found, ((0, 0), (1, 0)))[:, :-1]


def objective(name, **given):
    return objectives.distillation(table_divergences, DISTILLATION_LOSSES[name].given(**given))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def divergence_of(name, mixture, student, teacher):
    q, p = (np.exp(x) / np.exp(x).sum() for x in (student, teacher))
    if name == "forward_kl":
        return kl(p, q)
    if name == "reverse_kl":
        return kl(q, p)
    middle = mixture * p + (1 - mixture) * q
    return mixture * kl(p, middle) + (1 - mixture) * kl(q, middle)


def by_hand(batch, table, name, mixture=None):
    """The sum over responses of the mean over their tokens, token t judged after token t - 1."""
    total = 0.0
    for tokens, mask, teacher in zip(
        batch.rows.tokens, batch.rows.response_mask, batch.teacher_logits, strict=True
    ):
        terms = [
            divergence_of(name, mixture, table[tokens[t - 1]], teacher[t - 1])
            for t in np.flatnonzero(mask)
        ]
        total += sum(terms) / len(terms)
    return total


def test_names_agree(capsys):
    assert get_args(DistillationLossName) == NAMES
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    assert f"distill.loss{{{','.join(NAMES)}}}" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mixture"), [("forward_kl", None), ("reverse_kl", None), ("jsd", None), ("jsd", 0.2)]
)
def test_objective_is_the_loss(x64, name, mixture):
    batch, params = batch_of(4), jnp.asarray(START)
    fn = objective(name, mixture=mixture)
    (loss, (weight, _)), grads = jax.value_and_grad(fn, has_aux=True)(params, batch, KEY)
    hand = functools.partial(by_hand, batch, name=name, mixture=mixture or 0.5)
    np.testing.assert_allclose(loss, hand(START), rtol=1e-12)
    assert float(weight) == 4
    for place in ((0, 1), (3, 2), (5, 5)):
        step = np.zeros_like(START)
        step[place] = 1e-5
        slope = (hand(START + step) - hand(START - step)) / 2e-5
        # central differences: h^2 / 6 times the third derivative, and 1e-16 / h of rounding
        np.testing.assert_allclose(grads[place], slope, atol=1e-9)
    assert np.abs(grads).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_is_a_point_of_rest_and_gets_no_gradient(x64, name):
    batch, params = batch_of(6, teacher=START), jnp.asarray(START)
    grad = jax.grad(lambda p, b: objective(name)(p, b, KEY)[0], argnums=(0, 1), allow_int=True)
    at_teacher, frozen = grad(params, batch)
    np.testing.assert_allclose(at_teacher, 0, atol=1e-14)
    elsewhere, frozen_there = grad(params.at[:, 0].add(0.5), batch)
    assert np.abs(elsewhere).max() > 1e-3
    for logits in (frozen.teacher_logits, frozen_there.teacher_logits):
        assert not np.any(logits)
    # softmax does not see a constant, so neither do the gradients
    shifted, _ = grad(params + 3.0, batch)
    np.testing.assert_allclose(shifted, 0, atol=1e-13)


UPDATES = Updates(
    objective=lambda name, axis_name: objective(name),
    params=jnp.asarray(START, jnp.float32),
    optimizer=OPTIMIZER,
    batches=lambda: dict.fromkeys(NAMES, batch_of(13)),
    steps=3,
)
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_update_does_not_depend_on_padding_and_devices(layout):
    assert_same(UPDATES.cut(layout), UPDATES.plain, **CLOSE)


@pytest.mark.slow
def test_update_does_not_depend_on_micro_batches():
    assert_same(UPDATES.cut("device", micro_batches=4), UPDATES.plain, **CLOSE)


@functools.cache
def model(width, seed, scale=1.0):
    tokenizer = train_bpe(["the film is good"], 262)
    config = ModelConfig(width=width, layers=1, heads=2, dropout=0.0)
    made = new_text_model(config, tokenizer, jax.random.key(seed), max_length=12)
    params = jax.tree.map(lambda x: x * scale if x.shape[0] == 262 else x, made.params)
    return dataclasses.replace(made, params=params)


@pytest.mark.slow
def test_divergences_of_models_dense_and_in_chunks(monkeypatch):
    """Temperature divides both; entry t belongs to tokens[t]; chunks give the same gradients."""
    student, teacher = model(16, 0), model(8, 1)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 262, (3, 5)).astype(np.int32)
    shown = np.tile(np.arange(5) < 1, (3, 1))
    index = np.arange(3, dtype=np.int32)
    rows = TokenBatch(tokens=tokens, prompt_mask=shown, response_mask=~shown, index=index)
    given = functions.text_logits(teacher.model)(teacher.params, rows)
    ours = functions.text_logits(student.model)(student.params, rows)
    loss = objectives.distillation(
        functions.text_divergences(student.model, temperature=0.7),
        DISTILLATION_LOSSES["reverse_kl"],
    )
    batch = DistillationBatch(rows=rows, teacher_logits=given)
    value = jax.jit(jax.value_and_grad(lambda p: loss(p, batch, KEY)[0]))
    dense, dense_grads = value(student.params)
    q, p = (np.asarray(x, np.float64) / 0.7 for x in (ours, given))
    q, p = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (q, p))
    expected = (np.exp(q) * (q - p)).sum(-1)[:, :-1].mean(1).sum()
    np.testing.assert_allclose(dense, expected, rtol=1e-4)
    monkeypatch.setattr(functions, "DENSE_LOGITS", 0)
    monkeypatch.setattr(functions, "CHUNK", 4)
    chunked, grads = jax.jit(jax.value_and_grad(lambda p: loss(p, batch, KEY)[0]))(student.params)
    np.testing.assert_allclose(chunked, dense, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, dense_grads)


def train(directory, layout="device", steps=16, on_policy=0.5, loss="jsd"):
    fit = FitConfig(
        steps=steps,
        batch_size=16,
        log_every=1,
        save_every=2,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
    )
    settings = DistillSettings(loss=loss, on_policy=on_policy, fit=fit)
    rng = np.random.default_rng(0)
    rows = [token_row(([1], False), (rng.integers(3, 262, 5), True)) for _ in range(32)]
    with open_run(directory, ModelConfig(), PlaceConfig(layout=layout), 0) as run:
        train_distillation(
            run, "distill", model(16, 0), rows, teacher=model(8, 1, scale=8.0),
            prompts=Prompts(ids=[[1]]), settings=settings, temperature=0.8,
            max_new_tokens=5, evaluation_rows=rows[:20],
        )  # fmt: skip
    lines = [
        {name: x for name, x in line.items() if name != "stage"}
        for line in lines_without_times(directory)
    ]
    held_out = [line["eval/loss"] for line in lines if "eval/loss" in line]
    return [line for line in lines if "loss" in line], held_out


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Half of the batches are the student's own samples."""
    return train(tmp_path_factory.mktemp("distill"))


@pytest.mark.slow
def test_training_lowers_the_divergence(whole_run):
    lines, held_out = whole_run
    assert held_out[-1] < 0.7 * held_out[0]
    for own in (0.0, 1.0):
        losses = [line["loss"] for line in lines if line["distill/on_policy"] == own]
        assert len(losses) == 8 and losses[-1] < 0.7 * losses[0]
    # samples may end early, the data never do
    assert {line["response/length"] for line in lines if not line["distill/on_policy"]} == {5.0}


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_to_the_same_bits(tmp_path, whole_run):
    train(tmp_path, steps=2)
    lines, _ = train(tmp_path, steps=4)
    assert lines == whole_run[0][:4]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_layouts_sample_and_learn_the_same(tmp_path, whole_run, layout):
    lines, held_out = train(tmp_path, layout, steps=2)
    for line, other in zip(lines, whole_run[0][:2], strict=True):
        assert line == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert held_out[0] == pytest.approx(whole_run[1][0], rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_the_share_of_on_policy_batches(share):
    chosen = [DistillSettings(on_policy=share).is_on_policy(number) for number in range(100)]
    counts = np.cumsum(chosen)
    # rounding of products may move the floor by one
    assert np.all(np.abs(counts - share * np.arange(1, 101)) < 1 + 1e-9)
    assert counts[-1] == round(100 * share)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistillSettings(mixture=0.3), "loss forward_kl takes no mixture; it takes none"),
        (lambda: DistillSettings(loss="jsd", mixture=1.0), "its ends are the losses forward_kl"),
        (lambda: DistillSettings(on_policy=1.5), r"on_policy is 1.5; it must lie in \[0, 1\]"),
        (
            lambda: check_memory(DistillSettings(fit=FitConfig(batch_size=32)), 1024, 131072),
            "32 responses of 1024 tokens from 131072 words take 16 GiB",
        ),
        (
            lambda: prompts_of([token_row(([7, 2], True))]),
            "a text without a prompt cannot be sampled",
        ),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saved models and rows, as runs of `sft` and `reward` leave them."""
    folder = tmp_path_factory.mktemp("saved")
    student = model(16, 0)
    reward = with_heads(student, ("score",), KEY, score_pooling="mean")
    other = train_bpe(["a sly wit"], 262)
    config = ModelConfig(width=8, layers=1, heads=2)
    stranger = new_text_model(config, other, KEY, max_length=12)
    models = {"student": student, "teacher": model(8, 1), "reward": reward, "stranger": stranger}
    for name, made in models.items():
        save_text_model(folder / name, made)
    rows = [{"prompt": word, "completion": " good"} for word in ("the", "film", "is")]
    for name, part in (("rows", rows), ("prompts", [{"prompt": r["prompt"]} for r in rows])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def small(section):
    return [
        *(f"--{section}.fit.steps", "2", f"--{section}.fit.batch_size", "8"),
        *(f"--{section}.fit.optimizer.warmup_steps", "1", "--place.layout", "device"),
        *("--max_new_tokens", "4"),
    ]


@pytest.mark.slow
def test_distill_is_a_command(saved, tmp_path):
    rows = str(saved / "rows.jsonl")
    arguments = [
        *(
            "distill",
            "--loss",
            "jsd",
            "--policy",
            str(saved / "student"),
            "--output",
            str(tmp_path),
        ),
        *("--teacher", str(saved / "teacher"), "--data.path", rows, "--data.evaluation_path", rows),
    ]
    (row,) = dispatch([*arguments, *small("distill")])["rows"]
    assert row["method"] == "distillation (JSD)"
    assert 0 < row["divergence"] < row["divergence_before"] < math.log(2)
    assert (tmp_path / "report.html").exists() and (tmp_path / "model").is_dir()


@pytest.mark.slow
def test_online_is_a_command(saved, tmp_path):
    arguments = [
        *(
            "online",
            "--loss",
            "xpo",
            "--policy",
            str(saved / "student"),
            "--output",
            str(tmp_path),
        ),
        *("--reward", str(saved / "reward"), "--data.path", str(saved / "prompts.jsonl")),
    ]
    (row,) = dispatch([*arguments, *small("online")])["rows"]
    assert row["method"] == "XPO" and 0 < row["length"] <= 4 and 0 <= row["ended"] <= 1
    first = read_metrics(tmp_path)[0]
    # policy = reference: log 2, and the bonus of 1e-5 times a log-probability above -25
    assert first["loss"] == pytest.approx(math.log(2), abs=3e-4)
    assert (tmp_path / "report.html").exists() and (tmp_path / "model").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["online", "distill"])
def test_models_of_different_vocabularies_are_refused(saved, tmp_path, capsys, command):
    option = {"online": "reward", "distill": "teacher"}[command]
    names = {"online": ("stranger", "reward"), "distill": ("student", "stranger")}[command]
    with pytest.raises(SystemExit):
        main([
            *(command, "--policy", str(saved / names[0]), f"--{option}", str(saved / names[1])),
            *("--data.path", str(saved / "rows.jsonl"), "--output", str(tmp_path)),
        ])  # fmt: skip
    line = capsys.readouterr().err
    assert f"--policy and --{option} have different vocabularies" in line and line.count("\n") == 1
