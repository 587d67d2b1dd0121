"""What is exported is what trains: an exported function that no training reaches needs a reason."""

import ast
import importlib
from pathlib import Path

import pytest

import jaxalign
from jaxalign.envs import CONTROL_TASKS
from jaxalign.envs.protocol import Task
from jaxalign.losses import (
    DISTILLATION_LOSSES,
    GROUP_LOSSES,
    ONLINE_LOSSES,
    PAIR_LOSSES,
    REWARD_LOSSES,
    UNPAIRED_LOSSES,
)
from jaxalign.losses.declarations import Loss
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.pretrained.hugging_face.config import FAMILIES
from jaxalign.pretrained.hugging_face.family import Family

PACKAGE = Path(jaxalign.__file__).parent
# Formulas. A function of these is reached if code of the other parts names it, a declaration beside
# a formula does, or a function that is reached.
FORMULAS = ("numerics", "batches", "advantages", "losses", "logprobs", "kl", "diagnostics")
RESEARCH = "an estimator of its paper for research code, which no method of the commands takes"
PARTS = "made of functions that train and nothing else; a step needs what is between them"
NOT_TRAINED = {
    "decoupled_advantages": RESEARCH,
    "density_ratios": RESEARCH,
    "gae_associative": "GAE in logarithmic depth, for long sequences on accelerators; gae trains",
    "greedy_baseline_advantages": RESEARCH,
    "grpo_loss": PARTS,
    "kto_kl": PARTS,
    "lambda_returns": RESEARCH,
    "n_step_returns": RESEARCH,
    "on_policy_rows": RESEARCH,
    "reverse_kl_score": "the score of DPO itself among the divergences of f-DPO; dpo_loss trains",
    "fused_token_logps": "the head of a model of other code; models here have aligned their tokens",
    "fused_token_logps_and_entropy": "as fused_token_logps, with the entropy",
    "running_baseline": RESEARCH,
    "running_shift": PARTS,
    "token_entropy": "logits of a model of other code; models here have aligned their tokens",
    "vtrace": RESEARCH,
    "weighted_scores": "for jitted code; rewards of Python functions are added on the host",
}


def files(formulas: bool) -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py"
        and (path.relative_to(PACKAGE).parts[0].removesuffix(".py") in FORMULAS) is formulas
    ]


def names_in(node: ast.AST) -> set[str]:
    """Every name that code reads."""
    return {
        found.attr if isinstance(found, ast.Attribute) else found.id
        for found in ast.walk(node)
        if isinstance(found, ast.Name | ast.Attribute) and isinstance(found.ctx, ast.Load)
    }


def definitions() -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of the formulas by name."""
    nodes = [node for path in files(True) for node in ast.parse(path.read_text()).body]
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name: node for node in nodes if isinstance(node, kinds)}


def reached() -> set[str]:
    """Names that training reads, directly or through formulas."""
    uses: dict[str, set[str]] = {}
    waiting = set().union(*(names_in(ast.parse(path.read_text())) for path in files(False)))
    for path in files(True):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                uses.setdefault(node.name, set()).update(names_in(node))
            else:
                waiting |= names_in(node)
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= uses.get(name, set()) - found
    return found


def exported_functions() -> set[str]:
    return {name for name in jaxalign.__all__ if not isinstance(getattr(jaxalign, name), type)}


def test_what_is_exported_is_what_trains():
    assert exported_functions() - reached() == NOT_TRAINED.keys()


def test_every_function_that_no_training_reaches_has_a_reason():
    assert all(len(reason) > 20 for reason in NOT_TRAINED.values())


@pytest.mark.parametrize("name", [name for name, why in NOT_TRAINED.items() if why == PARTS])
def test_what_is_made_of_functions_that_train_has_no_arithmetic_of_its_own(name):
    """It calls them, and checks of shapes and dtypes; the sum is that of a function that trains."""
    functions = definitions()
    body = functions[name].body
    called = set().union(*(names_in(statement) for statement in body)) & functions.keys()
    assert len(called) >= 2 and called <= reached()
    nodes = [node for statement in body for node in ast.walk(statement)]
    assert not [node for node in nodes if isinstance(node, ast.BinOp | ast.UnaryOp)]
    assert not {"jnp", "jax", "np"} & set().union(*map(names_in, body))


LOSSES = (
    *(DISTILLATION_LOSSES, GROUP_LOSSES, ONLINE_LOSSES),
    *(PAIR_LOSSES, REWARD_LOSSES, UNPAIRED_LOSSES),
)
DECLARED = {  # folder: what its files declare, where that is listed, and the file that imports them
    "losses": (Loss | GroupMethod, LOSSES, "__init__.py"),
    "envs": (Task, (CONTROL_TASKS,), "__init__.py"),
    "pretrained/hugging_face": (Family, (FAMILIES,), "config.py"),
}


@pytest.mark.parametrize("folder", DECLARED)
def test_every_declaration_is_offered(folder):
    kind, tables, importer = DECLARED[folder]
    offered = [one for table in tables for one in table.values()]
    for path in sorted((PACKAGE / folder).glob("*.py")):
        name = ".".join(("jaxalign", *path.relative_to(PACKAGE).with_suffix("").parts))
        for key, value in vars(importlib.import_module(name.removesuffix(".__init__"))).items():
            assert not isinstance(value, kind) or value in offered, (
                f"{key} of {path.name} is not offered: import the file in {folder}/{importer}, "
                f"and name {key} in its __all__"
            )
