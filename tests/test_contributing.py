"""The diffs of the pages on contributing, applied to a copy of the tree: the new losses train, and
stand in the help and in the tables of losses; the new family is read, the new environment learned.
So is a loss on labels without a beta; and a declaration that lacks something says what.
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


# A loss on labels, of which a newcomer's declaration says no more than it must.
BRIER = '''
import jax
from jaxalign.losses.declarations import UNPAIRED, Loss
from jaxalign.numerics.bounds import Weight

__all__ = ("BRIER", "brier_loss")


def brier_loss(
    policy_logps: jax.Array, labels: jax.Array, *, sharpness: Weight = 1.0
) -> jax.Array:
    """Squared error of a label.

    Args:
      policy_logps: `[B]` nats.
      labels: `[B]` bool.
      sharpness: of the step between labels, not negative.
    """
    return (jax.nn.sigmoid(sharpness * policy_logps) - labels) ** 2


BRIER = Loss(name="brier", kind=UNPAIRED, function=brier_loss)
'''


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
    (folder / "jaxalign/losses/brier.py").write_text(BRIER)
    importer = folder / "jaxalign/losses/__init__.py"
    line = "from jaxalign.losses.kto import *\n"
    importer.write_text(importer.read_text().replace(line, f"{line}{line.replace('kto', 'brier')}"))
    save_text_model(folder / "policy", tiny_policy(24))
    labelled = [
        {"prompt": "the", "completion": f" {x}", "label": x == "film"} for x in ("film", "is")
    ]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled * 2))
    rows = [{"prompt": "the", "chosen": " film", "rejected": " is"}] * 4
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [{"prompt": word} for word in ("the", "film", "is", "good")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    (folder / "rewards.py").write_text(
        "def reward(prompts, responses):\n    return [float(len(text)) for text in responses]\n"
    )
    return folder


def called(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python program, ended, that saw that tree."""
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "100"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def python(tree: Path, *arguments: str) -> str:
    """What a Python program prints in that tree."""
    done = called(tree, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def trained(tree: Path, *arguments: str) -> list[dict]:
    """The lines of metrics of a run."""
    python(tree, "-m", "jaxalign", *arguments, "--policy", "policy", "--output", "run")
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
def test_a_new_loss_on_labels_trains(tree):
    brier = ("kto", "--loss", "brier", "--data.path", "labelled.jsonl", "--kto.sharpness", "0.5")
    fit = [flag.replace("dpo", "kto") for flag in FIT]
    lines = trained(tree, *brier, *fit, "--log_every", "1")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 3 and losses[-1] < losses[0]


@pytest.mark.slow
def test_a_new_range_is_checked(tree):
    done = called(tree, "-m", "jaxalign", "dpo", "--loss", "chipo", "--dpo.largest_margin", "0")
    assert done.stderr == "jaxalign: --dpo.largest_margin is 0.0; it must be above 0\n"


WRONG = {  # what a newcomer may write instead, and what is said of it
    (
        "sharpness: Weight",
        "sharpness: float",
    ): "argument sharpness needs a type that says its range",
    ("sharpness: of", "of"): "argument sharpness has no line under Args in the docstring",
    ("labels: jax.Array, *", "label: jax.Array, *"): "takes label, which is no data",
    ("labels: jax.Array, *,", "labels: jax.Array,"): "a hyper-parameter stands behind *",
    ("sharpness: Weight = 1.0", "sharpness: Weight"): "needs a number for sharpness",
    ('name="brier"', 'name="kto"'): "kto is declared twice; give one Loss another name",
    ("sharpness", "fit"): "argument fit is a setting already; rename it",
}
TRY = """
import runpy, sys
from jaxalign.config.names import with_hyperparameters
from jaxalign.losses import KTO
from jaxalign.numerics.named import by_name
for source in sys.argv[1:]:
    try:
        loss = runpy.run_path(source)["BRIER"]
        with_hyperparameters(by_name([KTO, loss]))(type("Settings", (), {"beta": None, "fit": 1,
            "desirable_weight": None, "undesirable_weight": None, "__annotations__": dict.fromkeys(
            ("beta", "fit", "desirable_weight", "undesirable_weight"), float)}))
        print("nothing")
    except TypeError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_wrong_declaration_says_what_is_missing(tmp_path):
    files = [tmp_path / f"{number}.py" for number in range(len(WRONG))]
    for file, (given, wrong) in zip(files, WRONG, strict=True):
        assert given in BRIER
        file.write_text(BRIER.replace(given, wrong))
    said = python(ROOT, "-c", TRY, *map(str, files)).splitlines()
    for line, wanted in zip(said, WRONG.values(), strict=True):
        assert wanted in line


@pytest.mark.slow
def test_help_and_table_have_the_new_names(tree):
    helps = {
        name: python(tree, "-m", "jaxalign", name, "--help", "all") for name in ("dpo", "grpo")
    }
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


@pytest.mark.slow
def test_a_new_family_is_read(tree):
    assert python(tree, "-c", READ).split() == ["128", "True", "False", "64"]


@pytest.mark.slow
def test_a_new_environment_is_learned(tree):
    """100 random steps give about 131, of which 31 are the far end's; going on gives over 300."""
    given = ("--total_steps", "40960", "--log_every", "8", "--save_every", "8")
    chain = ("ppo", "--config", "ppo_chain", *given)
    python(tree, "-m", "jaxalign", *chain, "--output", "run")
    results = json.loads((tree / "run" / "results.json").read_text())
    assert results["mean_return"] > 200
