"""`python -m benchmarks`: every program of the folder, by what its own docstring says."""

import subprocess
import sys

import pytest

from benchmarks import __main__ as index
from tests.folders import ROOT


def test_every_benchmark_is_listed_with_what_it_prints_and_its_time():
    command = [sys.executable, "-m", "benchmarks"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sources = [path for path in (ROOT / "benchmarks").rglob("*.py") if "workers" not in path.parts]
    runnable = {
        path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__main__")
        for path in sources
        if "parse_args(" in path.read_text()
    }
    assert len(runnable) >= 15
    entries = printed.split("python -m ")[1:]
    listed = {entry.partition(":")[0].replace(".", "/"): entry for entry in entries}
    assert listed.keys() == runnable
    for name, entry in listed.items():
        head, _, said = entry.partition("\n")
        assert head.rpartition(": ")[2] and len(said.strip()) > 20, name
    assert "python -m benchmarks.hostile: 15 minutes, and two with --quick\n" in printed


def test_a_benchmark_must_say_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "FOLDER", tmp_path)
    program = tmp_path / "new.py"
    program.write_text('"""Something new.\n\nTakes a while.\n"""\n')
    assert index.programs() == [program]
    with pytest.raises(ValueError, match=r"benchmarks\.new: the docstring has no line"):
        index.described(program)
    program.write_text('"""Something\nnew.\n\nTakes a day on two cores, or more.\n"""\n')
    assert index.described(program) == ("benchmarks.new", "a day, or more", "Something new.")
