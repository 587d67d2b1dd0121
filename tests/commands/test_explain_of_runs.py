"""`jaxalign explain` shows what training computes: the first two updates of a run on one batch,
explained beforehand, have the same rows, advantages, KL, loss and metrics.
"""

import json

import jax
import numpy as np
import pytest

from jaxalign.batches.shared_prompts import one_a_row
from jaxalign.cli import dispatch
from jaxalign.commands.explain import page
from jaxalign.config.model import ModelConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import new_text_model, save_text_model
from jaxalign.train.metrics import read_metrics

pytestmark = pytest.mark.slow

WORDS = ["the film is good", "a dull plot", "what a warm heart", "it never ends"]
REWARD = "def reward(responses): return [float(len(r.strip())) / 5 for r in responses]"
DATA = {
    "texts": [{"text": text} for text in WORDS],
    "pairs": [
        {"prompt": "say ", "chosen": text, "rejected": text[::-1][:9] + " bad film"}
        for text in WORDS
    ],
    "labelled": [
        {"prompt": text[:4], "completion": text[4:], "label": bool(number % 2)}
        for number, text in enumerate(WORDS)
    ],
    "prompts": [{"prompt": text[: 4 + 3 * number]} for number, text in enumerate(WORDS)],
}
LOOP = {"steps": "2", "batch_size": "4", "log_every": "1"}
OPTIMIZER = {"learning_rate": "1e-2", "schedule": "constant", "warmup_steps": "0"}
SAMPLED = ("--temperature", "0.7", "--max_new_tokens", "6")
# (method, its data, of the run alone, of run and explanation)
CASES = {
    "sft": ("texts", ("--length_buckets", "1"), ()),
    "dpo": ("pairs", (), ("--temperature", "0.7", "--dpo.beta", "0.4")),
    "ld_dpo": ("pairs", (), ("--dpo.ld_alpha", "0.5")),
    "wpo": ("pairs", (), ("--dpo.wpo", "True", "--dpo.loss", "ipo")),
    "bco_pair": ("pairs", (), ("--dpo.loss", "bco_pair")),
    "kto": ("labelled", (), ("--temperature", "0.7", "--kto.beta", "0.4")),
    "bco": ("labelled", (), ("--kto.loss", "bco")),
    "ppo": (
        "prompts",
        ("--ppo.iterations", "1", "--ppo.batch_size", "4", "--ppo.minibatches", "1"),
        (
            *(*SAMPLED, "--ppo.gamma", "0.9", "--ppo.gae_lambda", "0.8", "--ppo.kl_coef", "0.3"),
            *(
                "--ppo.missing_eos_penalty",
                "2",
                "--ppo.entropy_coef",
                "0.1",
                "--ppo.update_epochs",
                "2",
            ),
        ),
    ),
    "grpo": (
        "prompts",
        ("--grpo.iterations", "1", "--grpo.prompts", "4", "--grpo.minibatches", "1"),
        (
            *(
                *SAMPLED,
                "--grpo.group_size",
                "4",
                "--grpo.kl_coef",
                "0.3",
                "--grpo.update_epochs",
                "2",
            ),
            *("--grpo.overlong_share", "0.5", "--grpo.missing_eos_penalty", "2"),
            *("--grpo.entropy_coef", "0.1", "--grpo.importance_cap", "1.0"),
        ),
    ),
    "dr_grpo": (
        "prompts",
        ("--grpo.iterations", "1", "--grpo.prompts", "4", "--grpo.minibatches", "1"),
        (*SAMPLED, "--grpo.loss", "dr_grpo", "--grpo.group_size", "4", "--grpo.update_epochs", "2"),
    ),
}
# of the first update, where all margins are 0 but for rounding, since the policy is the reference
ROUNDED = {True: {"rewards/accuracy"}, False: set()}
COMMANDS = dict.fromkeys(("ld_dpo", "wpo", "bco_pair"), "dpo") | {"bco": "kto", "dr_grpo": "grpo"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data, a reward function, a policy and another reference of the same vocabulary."""
    folder = tmp_path_factory.mktemp("files")
    for name, rows in DATA.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARD)
    tokenizer = train_bpe(WORDS, 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    policy = new_text_model(config, tokenizer, jax.random.key(0), max_length=40)
    spread = jax.tree.map(lambda x: 3 * x, policy.params)  # far from uniform
    save_text_model(folder / "policy", policy.with_trained(spread))
    return folder


def options(section, values):
    return [x for name, value in values.items() for x in (f"--{section}{name}", value)]


def arguments(files, case):
    """The command, its arguments, and those of `explain` for the same batch."""
    data, own, shared = CASES[case]
    command = COMMANDS.get(case, case)
    shared = [*shared, "--data.path", f"{files}/{data}.jsonl", "--data.max_length", "30"]
    shared += ["--seed", "3"]
    if command in ("ppo", "grpo"):
        shared += ["--reward", f"{files}/rewards.py"]
        section = f"{command}."
    else:
        section = "fit." if command == "sft" else f"{command}.fit."
        own = [*own, *options(section, LOOP)]
    start = "init" if command == "sft" else "policy"
    own = [*own, *options("", {"place.layout": "device", start: f"{files}/policy"})]
    explained = ["--method", command, "--policy", f"{files}/policy", "--rows", "4"]
    like = section.replace("fit.", "dpo.fit.") if command == "sft" else section
    optimizers = [options(f"{name}optimizer.", OPTIMIZER) for name in (section, like)]
    return command, [*own, *optimizers[0], *shared], [*explained, *optimizers[1], *shared]


def trained_and_explained(files, case, folder, monkeypatch):
    """Metrics of a run of two updates, what the first one learns from, and both of `explain`."""
    command, of_run, of_explain = arguments(files, case)
    batches, prepared, step, prepare = [], [], Run.step, page.PREPARE[command]

    def recorded(self, fn, *, micro_batches):
        update = step(self, fn, micro_batches=micro_batches)
        return lambda state, batch: batches.append(batch) or update(state, batch)

    def kept(config):
        prepared.append(prepare(config))
        return prepared[-1]

    monkeypatch.setattr(Run, "step", recorded)
    monkeypatch.setitem(page.PREPARE, command, kept)
    dispatch([command, "--output", str(folder / "run"), *of_run])
    output = ["--output", str(folder / "page.html")]
    updates = [["explain", *of_explain, "--updates", number, *output] for number in ("0", "1")]
    explanations = [dispatch(arguments) for arguments in updates]
    return read_metrics(folder / "run"), batches[0], explanations, prepared[0].batch


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_updates_of_a_run_are_those_explained(case, files, tmp_path, monkeypatch):
    lines, batch, explanations, explained = trained_and_explained(
        files, case, tmp_path, monkeypatch
    )
    assert all(total.agrees for one in explanations for total in one.sums)
    numbers = [{**one.metrics, "loss": one.loss} for one in explanations]
    if len(lines) == 1:  # an iteration reports the mean of its updates
        numbers = [{name: np.mean([x[name] for x in numbers]) for name in numbers[0]}]
    assert explanations[0].loss != pytest.approx(explanations[1].loss, rel=1e-3)
    for line, ours in zip(lines, numbers, strict=True):
        assert ours.keys() <= line.keys()
        for name in ours.keys() - ROUNDED[line is lines[0]]:
            close(ours[name], line[name], name)
    command = COMMANDS.get(case, case)
    if command in SAME_ROWS:
        SAME_ROWS[command](jax.device_get(batch), explained)
        kl = np.mean([sequence.totals["KL"] for sequence in explanations[0].sequences])
        close(kl, lines[0]["kl/reference"], "KL")


def same_experience(batch, explained):
    """A minibatch of PPO is all rows in another order, padded alike."""
    order = np.argsort(batch.index)
    for name in ("mask", "actions", "behaviour_logps", "values", "advantages", "returns"):
        ours, theirs = getattr(explained, name), getattr(batch, name)[order]
        close(ours, theirs, name)
    assert np.ptp(batch.advantages[batch.mask]) > 1


def same_groups(batch, explained):
    """A minibatch of groups has several responses in a row, without the prompt's columns."""
    order = np.argsort(batch.index)
    length = batch.mask.shape[-1]
    for name in ("mask", "behaviour_logps", "reference_logps", "weights", "advantages"):
        ours, theirs = getattr(explained, name), one_a_row(getattr(batch, name)[order])
        ours = ours if ours.ndim == 1 else ours[:, -length:]
        close(ours, theirs, name)
    assert np.ptp(batch.advantages) > 0.3


SAME_ROWS = {"ppo": same_experience, "grpo": same_groups}
