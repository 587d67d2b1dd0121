"""`import jaxalign` is cheap: the mathematics only."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("tensorflow_datasets", "orbax", "matplotlib", "tokenizers", "flax", "optax", "tensorflow")
HEAVY += ("jinja2",)


def test_import_loads_no_heavy_package():
    program = f"import sys, jaxalign; print([m for m in {HEAVY} if m in sys.modules])"
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_import_starts_no_backend():
    """No array is made at import time, so that flags can still be set afterwards."""
    program = (
        "import jaxalign; from jax._src import xla_bridge as b; print(b.backends_are_initialized())"
    )
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
