"""Programs are kept in the user's cache folder, where that is wanted and can be."""

import os
import stat
import subprocess
import sys

import pytest

from jaxalign.system import cache

CODE = """
import jax
from jaxalign.system.cache import use_compilation_cache
use_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 3.25 + 1)(2.0)
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_program_cut_short_is_dropped_and_others_are_kept_again(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    folder = tmp_path / "jaxalign" / "programs"

    def run() -> str:
        command = [sys.executable, "-c", CODE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stderr

    run()
    (first,) = folder.glob("jit__lambda*-cache")
    whole = first.read_bytes()
    (first.with_name(first.name.replace("-cache", "-atime"))).unlink()
    first.write_bytes(whole[: len(whole) // 2])  # a kill while jax wrote it
    assert "persistent compilation cache" not in run()
    assert first.read_bytes() == whole
    kept = sorted(folder.iterdir())
    assert "persistent compilation cache" not in run()
    assert sorted(folder.iterdir()) == kept


def test_a_folder_that_cannot_be_made_is_left_alone(tmp_path):
    (tmp_path / "file").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "file"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_the_cache_is_its_owners_and_one_that_others_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "jaxalign" / "programs"
    assert cache._is_private(folder)
    assert stat.S_IMODE((tmp_path / "jaxalign").stat().st_mode) == 0o700
    for path in (folder, folder.parent):
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert not cache._is_private(folder)
        path.chmod(mode)
    assert cache._is_private(folder)
    monkeypatch.setattr(os, "getuid", lambda: os.stat(folder).st_uid + 1)
    assert not cache._is_private(folder)
