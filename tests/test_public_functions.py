"""Every function of `import jaxalign` has a case, and every case is tried, each in its place."""

import importlib
import inspect
from pathlib import Path

import pytest

import jaxalign
from tests.folders import ROOT

HERE = ROOT / "tests"


def module(path):
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def cases_by_file():
    """The cases of every file that has some, by its path below `tests/cases`."""
    files = sorted((HERE / "cases").rglob("*.py"))
    modules = {file.relative_to(HERE / "cases"): module(file) for file in files}
    return {file: x.CASES for file, x in modules.items() if hasattr(x, "CASES")}


BY_FILE = cases_by_file()
each_file = pytest.mark.parametrize("file", BY_FILE, ids=str)


def test_every_public_function_has_one_case():
    exported = {name: getattr(jaxalign, name) for name in jaxalign.__all__}
    functions = sorted(n for n, x in exported.items() if callable(x) and not inspect.isclass(x))
    cases = sorted(case.name for cases in BY_FILE.values() for case in cases)
    missing = {name: expected_file(exported[name]) for name in functions if name not in cases}
    assert not missing, f"without a Case in these files: {missing}"
    assert functions == cases


def expected_file(function):
    """Where the case of a public function belongs."""
    source = inspect.getsourcefile(inspect.unwrap(function))
    return f"tests/cases/{Path(source).relative_to(ROOT / 'jaxalign').as_posix()}"


@each_file
def test_cases_stand_where_the_functions_do(file):
    """Those of `jaxalign/losses/dpo.py` in `tests/cases/losses/dpo.py`."""
    sources = {inspect.getsourcefile(inspect.unwrap(case.function)) for case in BY_FILE[file]}
    assert sources == {str(ROOT / "jaxalign" / file)}


@each_file
def test_cases_are_tried(file):
    """Those of `tests/cases/losses/dpo.py` in `tests/losses/test_dpo.py`."""
    tests = module(HERE / file.with_name(f"test_{file.name}")).TestCases
    (mark,) = tests.test_against_the_oracle.pytestmark
    assert tuple(mark.args[1]) == BY_FILE[file]
