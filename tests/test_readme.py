"""README and documentation: what they say to type works, and what they point to is there."""

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.catalogue import entries
from jaxalign import cli
from jaxalign import config as configurations
from jaxalign.config.field_texts import sentence_of
from jaxalign.config.flags import flags_of
from tests.folders import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
BUILT = (DOCS / "_build", DOCS / "generated")
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted(p for p in DOCS.rglob("*.md") if not any(folder in p.parents for folder in BUILT))
GUIDES = [README, *(DOCS / "guides").glob("*.md")]
OURS = ("jaxalign", "tests", "benchmarks", "docs", ".ci")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[list[str]]:
    """The words of every `jaxalign COMMAND ...` in a page's shell blocks."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["jaxalign"]]


def test_readme_is_short():
    assert len(README.read_text().split()) <= 900


def test_the_first_two_blocks_are_the_two_commands():
    first, second = blocks(README, "bash")[:2]
    assert first.strip().endswith(".venv/bin/jaxalign rlhf")
    assert second.strip().endswith("pytest -n 2 --dist loadfile")
    fences = re.findall(r"^```.*$", README.read_text(), re.MULTILINE)
    assert fences[:4] == ["```bash", "```", "```bash", "```"]  # .ci/run counts them


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"),
    [(page, n) for page in GUIDES for n in range(len(blocks(page, "python")))],
    ids=lambda value: name_of(value) if isinstance(value, Path) else str(value),
)
def test_python_runs(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = blocks(page, "python")[number]
    exec(compile(source, f"{page.name}, block {number}", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shell_blocks_parse(page, monkeypatch):
    """The shell reads them, and the commands know every flag and accept every value."""
    read = []
    monkeypatch.setattr(cli, "run_configured", lambda config, options: read.append(config))
    monkeypatch.chdir(ROOT)
    for block in blocks(page, "bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    typed = [words for words in commands(page) if words[0] != "report"]
    for words in typed:
        cli.dispatch(words)
    assert len(read) == len(typed)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r'\]\(([^)#\s]+)|src="([^"]+)"', text)
    local = [a or b for a, b in links if "://" not in a + b]
    here = [link for link in local if not _exists(page.parent, link)]
    assert here == [], f"{page}: no such file"


def _exists(folder: Path, link: str) -> bool:
    """A file, or a page of the documentation named without its ending or made by its build."""
    path = (folder / link).resolve()
    return path.exists() or path.with_suffix(".md").exists() or "generated" in path.parts


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_prose_exist(page):
    """Of paths that begin with a folder of the repository; in the README's table of folders all."""
    spans = re.findall(r"`([\w./-]+)`", page.read_text())
    own = [span for span in spans if span.split("/")[0] in OURS and "/" in span]
    own = [span for span in own if not span.startswith(("docs/_build", "docs/generated"))]
    if page == README:
        table = page.read_text().partition("## Where things are")[2].partition("## ")[0]
        own += re.findall(r"`([\w.]+(?:/|\.py))`", table)
    missing = [p for p in own if not ((ROOT / p).exists() or (ROOT / "jaxalign" / p).exists())]
    assert missing == []


@pytest.mark.parametrize("name", ["equations", "docstrings", "command_flags"])
def test_extensions(name, monkeypatch):
    """How ASCII equations become TeX, docstrings reStructuredText, and fields a table of flags."""
    if name == "docstrings":
        pytest.importorskip("docutils")
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    try:
        failed, tried = doctest.testmod(importlib.import_module(name))
    finally:
        sys.modules.pop(name, None)
    assert tried > 0
    assert failed == 0


def test_every_flag_is_explained(monkeypatch):
    """On the page of commands, by its whole name or in a block that commands share."""
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    page = importlib.import_module("command_flags").commands_page()
    parts = page.split("\n## ")
    shared = parts[-1]
    for name, (command, _) in cli.CONFIGS.items():
        (part,) = (
            p
            for p in parts
            if p.splitlines()[0] in (command, f"{command}, {name.removesuffix('Config').lower()}")
            and p.splitlines()[2] == sentence_of(getattr(configurations, name))
        )
        for flag in flags_of(getattr(configurations, name)):
            if flag not in cli.REFUSED.get(command, ()):
                block, _, last = flag.rpartition(".")
                known = f"`--{flag}`" in part or (
                    any(f"`--{block[:end]}.…`" in part for end in range(len(block) + 1))
                    and f"`--{last}`" in shared
                )
                assert known, (name, flag)


METRIC = re.compile(r'f?"((?:[a-z]+/)[a-z_0-9]+(?:/[a-z]+)*)(?:_\{\w+\})?"')
FAMILIES = ("rewards", "logps", "kl", "ppo", "policy", "ratio", "scores", "response", "bco", "wpo")
FAMILIES += ("nash", "distill", "steps", "tokens", "test", "returns", "seconds")


def test_every_metric_is_explained():
    """Names of metrics in the code that writes them and in the guide's table are the same."""
    page = (DOCS / "guides" / "reports.md").read_text().partition("## All metrics")[2]
    shown = set(re.findall(r"`([a-z_]+/[a-z_0-9/]+)[`_]", page))
    writers = ("objectives", "rollouts", "recipes", "diagnostics.py")
    files = [
        p for w in writers for p in [ROOT / "jaxalign" / w, *(ROOT / "jaxalign" / w).rglob("*")]
    ]
    code = "".join(path.read_text() for path in files if path.suffix == ".py")
    written = {name for name in METRIC.findall(code) if name.split("/")[0] in FAMILIES}
    assert {"kl/reference", "ratio/k3", "ppo/clip_fraction"} <= written
    assert sorted(written - shown) == []


def test_equations_of_all_functions_are_set(monkeypatch):
    """Every public function's equation becomes TeX, brackets closed; the few that do not are
    tables or sentences.
    """
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    equations = importlib.import_module("equations")
    blocks = {entry.name: list(entry.equation) for entry in entries() if entry.equation}
    literal = {name for name, lines in blocks.items() if not equations.is_mathematics(lines)}
    assert literal <= {"missing_eos_penalty", "overlong_penalties", "whiten"}
    for name in set(blocks) - literal:
        for line in blocks[name]:
            tex = equations.tex_of(line)
            assert tex.count("{") == tex.count("}"), (name, line)
