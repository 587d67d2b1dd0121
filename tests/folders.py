"""Where tests find what they read."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ROOT / "tests" / "files"
