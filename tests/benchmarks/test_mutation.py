"""Mutants of a toy package: made where they should be, killed, explained, tried again."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.mutation import explanations, report
from benchmarks.mutation.mutants import mutants
from benchmarks.mutation.runner import Result
from tests.folders import ROOT

pytestmark = pytest.mark.slow


TOY = '''
def clipped(x, lowest=0.0):
    """Doctested.

    >>> clipped(-3.0)
    0.0
    """
    if lowest > x:
        return lowest
    return x + 0 * lowest


class Pair:
    @property
    def total(self):
        return self.chosen + self.rejected
'''
TEST = """
from toy.sums import Pair, clipped

def test_inside():
    assert clipped(2.0) == 2.0

def test_total():
    pair = Pair()
    pair.chosen, pair.rejected = 5, 3
    assert pair.total == 8
"""
RUN = """
import json, pathlib, sys
from benchmarks.mutation import coverage, mutants, places, runner, store

root = pathlib.Path(sys.argv[1])
where = places.Places(root, "toy", ("sums.py",), ("toy/sums.py", "test_toy.py"), root / "cache")
found = coverage.coverage(where, 2, say=lambda *_, **__: None)
kept = store.Store(where, found, 20.0)
made = mutants.mutants(root / "toy" / "sums.py", "sums.py")
todo = [mutant for mutant in made if kept.find(mutant) is None]
results = []
def note(result):
    kept.keep(result)
    results.append([result.mutant.description, result.verdict, result.test])
if todo:
    runner.run(where, found, todo, jobs=2, seconds=20.0, report=note, killers=kept.killers())
(root / "results.json").write_text(json.dumps(results))
"""


def made(tmp_path, source):
    path = tmp_path / "toy.py"
    path.write_text(source)
    return [(mutant.function, mutant.description) for mutant in mutants(path, "toy.py")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return a - b", {"`a - b` -> `a + b`"}),
        ("return -a", {"`-a` -> `a`"}),
        ("return a < b", {"`a < b` -> `a <= b`", "`a < b` -> `a >= b`"}),
        ("return a is None", {"`a is None` -> `a is not None`"}),
        ("return a and not b", {"`a and (not b)` -> `a or not b`", "`not b` -> `b`"}),
        ("return a ** 2", {"`a ** 2` -> `a * 2`", "`a ** 2` -> `a ** 3`"}),
        ("return jax.lax.stop_gradient(a)", {"`jax.lax.stop_gradient(a)` -> `a`"}),
        ("return widen(a)", {"`widen(a)` -> `(a,)`"}),
        ("return f(a, b)", {"`f(a, b)` -> `f(b, a)`"}),
        ("return f(a, axis_name=axis_name)", {"`f(a, axis_name=axis_name)` -> `f(a)`"}),
        ("return f(a, axis_name)", {"`f(a, axis_name)` -> `f(a, None)`"}),
        ("return jnp.maximum(a, b)", {"`jnp.maximum(a, b)` -> `jnp.minimum(a, b)`"}),
        ("return scan(a, reverse=True)", {"`scan(a, reverse=True)` -> `scan(a, reverse=False)`"}),
        ("return zip(b, strict=True)", set()),
        ("return a if a else b", {"`a if a else b` -> `b if a else a`"}),
        ("return pair.chosen", {"`pair.chosen` -> `pair.rejected`"}),
        ("chex.assert_rank(a, 2)", {"dropped `chex.assert_rank(a, 2)`"}),
        (
            "return jnp.where(m, a, b)",
            {
                "`jnp.where(m, a, b)` -> `jnp.where(m, b, a)`",
                "`jnp.where(m, a, b)` -> `a`",
            },
        ),
        ("return jnp.where(m, *pair)", set()),
        (
            "return jnp.clip(a, b, c)",
            {"`jnp.clip(a, b, c)` -> `jnp.clip(a, c, b)`", "`jnp.clip(a, b, c)` -> `a`"},
        ),
        (
            "return masked_sum(a, m)",
            {
                "`masked_sum(a, m)` -> `masked_sum(m, a)`",
                "`masked_sum(a, m)` -> `masked_sum(a, jnp.ones_like(m))`",
            },
        ),
        (
            "if a < 1: raise ValueError(f'{a + 1}')",
            {
                "dropped `if a < 1: ...`",
                "`a < 1` -> `a <= 1`",
                "`a < 1` -> `a >= 1`",
                "`a < 1` -> `a < 2`",
            },
        ),
    ],
)
def test_operators(tmp_path, line, expected):
    assert {made for _, made in made(tmp_path, f"def g(a):\n    {line}\n")} == expected


def test_docstrings_and_types_are_no_mathematics(tmp_path):
    source = 'def g(a: "int | None" = None) -> "list | None":\n    """1 + 1"""\n    return a\n'
    assert made(tmp_path, source) == []


def test_defaults_and_methods(tmp_path):
    found = made(tmp_path, TOY)
    assert ("clipped", "`x, lowest=0.0` -> `x, lowest=1.0`") in found
    assert ("Pair.total", "`self.chosen + self.rejected` -> `self.chosen - self.rejected`") in found


def test_equal_mutations_of_a_line_are_told_apart(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text("def g(a):\n    return (a < 0) + (a < 0)\n")
    keys = [mutant.key for mutant in mutants(path, "toy.py")]
    assert len(set(keys)) == len(keys) and any(key.endswith("(place 2)") for key in keys)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    (root / "toy").mkdir()
    (root / "toy" / "__init__.py").write_text("")
    (root / "toy" / "sums.py").write_text(TOY)
    (root / "test_toy.py").write_text(TEST)
    return root


def in_its_own_process(root, script, **options):
    """Without jax: children are forked from it."""
    paths = {"PYTHONPATH": f"{root}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command, environment = [sys.executable, "-c", script, str(root)], {**os.environ, **paths}
    return subprocess.run(command, env=environment, cwd=root, text=True, **options)


def run(root):
    in_its_own_process(root, RUN, check=True, stdout=subprocess.DEVNULL)
    return {name: rest for name, *rest in json.loads((root / "results.json").read_text())}


def test_mutants_are_killed_or_survive(toy):
    found = run(toy)
    assert found["dropped `if lowest > x: ...`"] == ["killed", "toy/sums.py::toy.sums.clipped"]
    assert found["`self.chosen + self.rejected` -> `self.chosen - self.rejected`"] == [
        "killed",
        "test_toy.py::test_total",
    ]
    boundary = found["`lowest > x` -> `lowest >= x`"]  # the same number on either side
    assert boundary == ["survived", "2 tests"]
    assert run(toy) == {}  # all is known

    with (toy / "test_toy.py").open("a") as file:
        file.write("\ndef test_sum():\n    assert clipped(2.0, 1.0) == 2.0\n")
    again = run(toy)
    assert set(again) == {name for name, (verdict, _) in found.items() if verdict == "survived"}
    assert again["`0 * lowest` -> `1 * lowest`"] == ["killed", "test_toy.py::test_sum"]


def test_a_mutant_that_cannot_be_tried_stops_the_run(toy):
    """Those after it would be missing from the score."""
    broken = "made = [dataclasses.replace(mutant, source='*') for mutant in made]\ntodo ="
    script = "import dataclasses\n" + RUN.replace("todo =", broken)
    done = in_its_own_process(toy, script, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert done.returncode != 0
    assert f"0 of {len(mutants(toy / 'toy' / 'sums.py', 'sums.py'))} mutants" in done.stderr


def results(tmp_path, survivor):
    path = tmp_path / "toy.py"
    path.write_text("def g(a):\n    return a - 1\n")
    found = mutants(path, "toy.py")
    verdicts = {True: "survived", False: "killed"}
    return [Result(m, verdicts[survivor in m.description], "one") for m in found]


def test_explanations(tmp_path):
    found = results(tmp_path, "a + 1")
    first, second = found
    assert (first.verdict, second.verdict) == ("survived", "killed")
    path = tmp_path / "explanations.toml"
    path.write_text(explanations.entry(first.mutant, "It doesn't matter."))
    explained = explanations.read(path)
    everything = [result.mutant for result in found]
    assert explanations.stale(explained, everything, found) == []
    counted = report.score(found, explained)
    assert (counted.killed, counted.explained, counted.unexplained) == (1, 1, 0)
    assert "It doesn't matter." in report.page(found, explained, "# Heading", [])
    gone = {"toy.py | g | return a | `a` -> `b`": "Of an old line.", second.mutant.key: "Killed."}
    assert explanations.stale(explained | gone, everything, found) == list(gone)
    assert report.score(found, {}).unexplained == 1


def test_every_explanation_is_of_a_mutant():
    from benchmarks.mutation.places import jaxalign_places

    places = jaxalign_places()
    everything = [m for file in places.files for m in mutants(places.path(file), file)]
    assert explanations.stale(explanations.read(), everything, []) == []
