"""Sphinx: `python -m sphinx -W -b html docs docs/_build`."""

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import jaxalign  # noqa: E402

assert HERE.parent in Path(jaxalign.__file__).parents, f"documents {jaxalign.__file__}"

project = "jaxalign"
author = "the authors of jaxalign"
copyright = "the authors of jaxalign, Apache-2.0"
release = importlib.metadata.version("jaxalign")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "docstrings", "reference"]
exclude_patterns = ["_build", "extensions", "jupyter_execute"]

html_theme = "furo"
html_title = "jaxalign"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 600  # of a cell, on a busy machine; seconds on a quiet one
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_execution_show_tb = True
