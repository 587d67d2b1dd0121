"""The diffs of the pages on contributing, applied to a copy of the tree: the new losses train, and
stand in the help and in the table of losses; the new family is read, the new environment learned.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxalign.recipes.text_models import save_text_model
from jaxalign.train.metrics import read_metrics
from tests.folders import ROOT
from tests.tiny_models import tiny_policy

LOSSES, OTHERS = ("pair_loss.md", "policy_gradient.md"), ("model_family.md", "environment.md")
PAGES = ROOT / "docs" / "contributing"
FIT = ("--steps", "3", "--dpo.fit.batch_size", "2", "--warmup_steps", "0", "--layout", "device")
ROUNDS = ("--iterations", "2", "--prompts", "2", "--group_size", "2", "--layout", "device")


def diffs(page: str) -> list[str]:
    """The diffs of a page."""
    return re.findall(r"^```diff\n(.*?)^```", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the package with the two losses, a policy, and rows of both kinds."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("jaxalign", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for page in LOSSES + OTHERS:
        (diff,) = diffs(page)
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=folder, check=True)
    save_text_model(folder / "policy", tiny_policy(24))
    rows = [{"prompt": "the", "chosen": " film", "rejected": " is"}] * 4
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [{"prompt": word} for word in ("the", "film", "is", "good")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    (folder / "rewards.py").write_text(
        "def reward(prompts, responses):\n    return [float(len(text)) for text in responses]\n"
    )
    return folder


def python(tree: Path, *arguments: str) -> str:
    """What a Python program prints in that tree."""
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "100"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def trained(tree: Path, *arguments: str) -> list[dict]:
    """The lines of metrics of a run."""
    python(tree, "-m", "jaxalign", *arguments, "--policy", "policy", "--run_dir", "run")
    lines = read_metrics(tree / "run")
    shutil.rmtree(tree / "run")
    return lines


@pytest.mark.parametrize("page", LOSSES)
def test_a_loss_is_one_file_and_one_line(page):
    (diff,) = diffs(page)
    files = re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)
    assert len(files) == 2 and files[1] == "jaxalign/losses/__init__.py"
    changed = re.findall(r"^[+-](?![+-]{2}).*$", diff[diff.index("--- a/") :], re.MULTILINE)
    assert [re.sub(r"\w+ import", "NAME import", line) for line in changed] == [
        "+from jaxalign.losses.NAME import *"
    ]


@pytest.mark.slow
def test_a_new_loss_on_pairs_trains(tree):
    chipo = ("dpo", "--loss", "chipo", "--data.path", "pairs.jsonl", *FIT, "--log_every", "1")
    lines = trained(tree, *chipo)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5) and losses[-1] < losses[0]


@pytest.mark.slow
def test_a_new_policy_gradient_trains(tree):
    topr = ("grpo", "--loss", "topr", "--data.path", "prompts.jsonl", "--reward", "rewards.py")
    lines = trained(tree, *topr, *ROUNDS, "--max_new_tokens", "4", "--grpo.largest_ratio", "0.5")
    assert len([line for line in lines if "policy/loss" in line]) == 2


@pytest.mark.slow
def test_help_and_table_have_the_new_names(tree):
    helps = {name: python(tree, "-m", "jaxalign", name, "--help") for name in ("dpo", "grpo")}
    assert "chipo" in helps["dpo"] and "largest difference of rewards that" in helps["dpo"]
    assert "topr" in helps["grpo"] and "--grpo.largest_ratio" in helps["grpo"]
    table = python(tree, "-m", "benchmarks.catalogue")
    pairs = table[table.index("## Paired") : table.index("## Unpaired")]
    assert "| `chipo_loss(" in pairs and "| `dpo` | `chipo` | `chipo_loss` | `beta` 0.1" in table
    gradients = table[table.index("## Policy gradients") : table.index("## Distillation")]
    assert "| `topr_loss(" in gradients and "| `grpo` | `topr` | `topr_loss` |" in table


READ = """
from jaxalign.pretrained.hugging_face.config import read_config
found = read_config({"model_type": "seed_oss", "residual_dropout": 0.1}, "config.json")
print(found.head_size, found.qkv_biases, found.output_biases, found.layers)
"""


def test_a_new_family_is_read(tree):
    assert python(tree, "-c", READ).split() == ["128", "True", "False", "64"]


@pytest.mark.slow
def test_a_new_environment_is_learned(tree):
    """100 random steps give about 131, of which 31 are the far end's; going on gives over 300."""
    given = ("--total_steps", "40960", "--log_every", "8", "--checkpoint_every", "8")
    chain = ("ppo", "--config", "configs/ppo_chain.py", *given)
    python(tree, "-m", "jaxalign", *chain, "--run_dir", "run")
    results = json.loads((tree / "run" / "results.json").read_text())
    assert results["mean_return"] > 200
