"""Eight CPU devices for the layout tests; shapes never broadcast by rank silently.

Tests compile without most optimisations, in a fifth of the time. With JAXALIGN_TESTS_OPTIMISED=1
they compile as programs of users do: `JAXALIGN_TESTS_OPTIMISED=1 pytest -m compiled tests`.
"""

import atexit
import os
import shutil
import signal
import tempfile
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "JAXALIGN_TESTS_OPTIMISED" not in os.environ and version("jaxlib").startswith("0.10."):
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", quick)  # a fifth of the time; another version may not know
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Of this test run alone, for all its processes: a run that is resumed compiles nothing again.
    PROGRAMS = tempfile.mkdtemp(prefix="jaxalign-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)

import jax
import pytest

from jaxalign.train.metrics import MetricsWriter

pytest.register_assert_rewrite("tests.checks")
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a shell's background
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", "JAXALIGN_TESTS_OPTIMISED" not in os.environ)
collect_ignore_glob = ["files/*"]  # scripts that need other libraries


@pytest.fixture
def x64():
    """Double precision inside one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def ratings_dir(tmp_path_factory):
    """Where the human ratings are prepared, once in a session."""
    return tmp_path_factory.mktemp("ratings")


@pytest.fixture
def interrupted(monkeypatch):
    """Calls a function whose process is told to stop when it writes the metrics of step 1: it
    must.
    """
    write = MetricsWriter.write

    def stopped(self, stage, step, metrics):
        write(self, stage, step, metrics)
        if step == 1:
            signal.raise_signal(signal.SIGTERM)  # at once: the kernel may choose another thread

    def call(function):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(MetricsWriter, "write", stopped)
            function()

    return call
