"""What is mutated, which tests may notice, and where results are kept."""

import ast
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxalign" / "mutation"
SOURCES = (
    *("losses/*.py", "advantages/*.py"),
    *("numerics/masking.py", "numerics/precision.py"),
    *("kl.py", "logprobs.py", "diagnostics.py"),
)
TESTS = (
    *("losses/*", "numerics/*", "advantages/*", "test_kl", "test_logprobs"),
    *("test_diagnostics", "objectives/test_objectives", "objectives/test_preference_losses"),
    *("objectives/test_group_losses", "benchmarks/test_exact", "benchmarks/test_conformance"),
)
LAST = ("test_conformance.py",)  # asked only about mutants that the others let live


@dataclass(frozen=True)
class Places:
    """A package, the files of it that are mutated, and the test files, all below `root`."""

    root: Path
    package: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    cache: Path

    def path(self, file: str) -> Path:
        return self.root / self.package / file

    def module(self, file: str) -> str:
        return ".".join((self.package, *Path(file).with_suffix("").parts))

    def text_digest(self, file: str) -> str:
        return _digest((self.root / file).read_text())

    def test_digest(self, file: str) -> str:
        """Of a test file and the files of the tests that it imports."""
        return _digest(" ".join(map(self.text_digest, sorted(self._imported(file, set())))))

    def _imported(self, file: str, known: set[str]) -> set[str]:
        known.add(file)
        for node in ast.walk(ast.parse((self.root / file).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                folder = node.module.replace(".", "/")
                names = [f"{folder}.py", *(f"{folder}/{name.name}.py" for name in node.names)]
                for name in names:
                    if name not in known and (self.root / name).exists():
                        self._imported(name, known)
        return known


def jaxalign_places() -> Places:
    package = ROOT / "jaxalign"
    files = sorted(
        str(path.relative_to(package))
        for pattern in SOURCES
        for path in package.glob(pattern)
        if path.name != "__init__.py"
    )
    tests = (sorted((ROOT / "tests").glob(f"{name}.py")) for name in TESTS)
    named = tuple(dict.fromkeys(str(path.relative_to(ROOT)) for found in tests for path in found))
    examples = tuple(f"jaxalign/{file}" for file in files)
    return Places(ROOT, "jaxalign", tuple(files), (*examples, *named), CACHE)


def _digest(text: str) -> str:
    versions = [str(sys.version_info[:2])]
    return hashlib.sha256("\n".join([*versions, text]).encode()).hexdigest()[:16]
