"""The order of the package: imports come from above or beside; public names are documented."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxalign

PACKAGE = Path(jaxalign.__file__).parent
# A part imports from those above it, and within itself.
ORDER = (
    *("errors", "numerics", "system", "batches"),
    *("logprobs", "kl", "diagnostics", "advantages", "losses", "contents"),
    *("models", "data", "pretrained", "envs"),
    *("sampling", "objectives", "rollouts", "train", "layouts"),
    *("explanation", "evaluation", "report"),
    *("config", "configs", "recipes", "commands", "cli", "__main__"),
)
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE) != Path("__init__.py")
)
HEAVY = ("tensorflow_datasets", "orbax", "matplotlib", "tokenizers", "flax", "optax", "tensorflow")
HEAVY += ("jinja2",)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    """The module or subpackage of `jaxalign` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_parts(path: Path) -> set[str]:
    """The parts of `jaxalign` that a file imports from."""
    return {
        name.split(".")[1]
        for name in imported(path)
        if name.startswith("jaxalign.") and name.split(".")[1] in ORDER
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_come_from_above(path):
    part = part_of(path)
    assert part in ORDER, f"{part} has no place in the order yet: give it one here"
    below = sorted(part_below for part_below in own_parts(path) if is_below(part_below, part))
    assert not below, f"{path} imports {below}, which come after {part}"


def test_the_design_shows_the_parts_in_this_order():
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    layers = page.partition("## The layers")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in layers.splitlines() if line.startswith("| `")]
    shown = [re.findall(r"`(\w+)(?:/|\.py)`", row) for row in rows]
    assert [part for row in shown for part in row] == [*ORDER[:-1]]


def is_below(other: str, part: str) -> bool:
    return ORDER.index(other) > ORDER.index(part)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_private_name_is_imported(path):
    private = [
        name
        for name in imported(path)
        if name.startswith("jaxalign.") and any(p.startswith("_") for p in name.split("."))
    ]
    assert not private, f"{path} imports {private}"


def test_modules_do_not_import_each_other_in_a_circle():
    files = {module_of(path): path for path in FILES}
    needs = {
        name: {other if other in files else other.rpartition(".")[0] for other in imported(path)}
        for name, path in files.items()
    }
    left = {name: others & needs.keys() - {name} for name, others in needs.items()}
    while free := [name for name, others in left.items() if not others]:
        left = {name: others - {*free} for name, others in left.items() if name not in free}
    assert not left, f"a circle is among {sorted(left)}"


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_public_method(name: str) -> bool:
    """`setup` is a hook of linen modules: the class says what it does."""
    return not name.startswith("_") and name != "setup"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), f"{path} has no docstring"
    definitions = (ast.FunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, definitions) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
            methods = node.body if isinstance(node, ast.ClassDef) else []
            for method in methods:
                if isinstance(method, ast.FunctionDef) and is_public_method(method.name):
                    assert ast.get_docstring(method), f"{path}: {node.name}.{method.name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_parameter_has_a_type(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            more = [x for x in (given.vararg, given.kwarg) if x]
            for x in (*given.posonlyargs, *given.args, *given.kwonlyargs, *more):
                typed = x.annotation or x.arg in ("self", "cls")
                assert typed, f"{path}:{node.lineno}: {node.name} has no type for {x.arg}"


def test_no_two_classes_share_a_name():
    classes = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted({name for name in classes if classes.count(name) > 1}) == []


def test_losses_and_models_do_not_know_each_other():
    for path in (PACKAGE / "losses").rglob("*.py"):
        assert not own_parts(path) & {"models", "data", "envs"}, path
    for path in (PACKAGE / "models").rglob("*.py"):
        assert not own_parts(path) & {"losses", "data", "envs"}, path


def test_data_is_numpy_only():
    """Of jax, `data` uses `jax.tree` on NumPy arrays and nothing else."""
    for path in (PACKAGE / "data").rglob("*.py"):
        names = imported(path)
        assert not {name.split(".")[0] for name in names} & {"flax", "optax"}, path
        assert not [name for name in names if name.startswith("jax.")], path
        used = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jax"
        }
        assert used <= {"tree"}, path
        assert not own_parts(path) & {"models", "losses", "envs"}, path


def test_a_wrong_import_is_found(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from jaxalign.train.loop import fit\n    return fit\n")
    assert own_parts(file) == {"train"}


def test_importing_the_package_is_light():
    """The mathematics only; no array is made, so that flags can still be set afterwards."""
    code = f"""
import sys, jaxalign
from jax._src import xla_bridge
print([m for m in {HEAVY} if m in sys.modules], xla_bridge.backends_are_initialized())
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[] False", "")
