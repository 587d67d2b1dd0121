"""Programs are kept in the user's cache folder, where that is wanted and can be."""

import os
import subprocess
import sys

import pytest

CODE = """
import jax
from jaxalign.cache import keep_programs
keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 3.25 + 1)(2.0)
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("theirs", [False, True])
def test_a_program_is_kept(theirs, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"}
    folder = tmp_path / "home" / "jaxalign" / "programs"
    if theirs:
        folder = tmp_path / "theirs"
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder)
    assert any(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_left_alone(tmp_path):
    (tmp_path / "file").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "file"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
