"""The sides of the race: the command of each for a job, and how its milestones are seen."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.first_result.jobs import ALPHA, GROUP, NEW_TOKENS, RANK, Job
from benchmarks.first_result.timeline import Timeline, last_written
from benchmarks.speed.race import ROOT

REWARD = Path(__file__).with_name("reward.py")
VERSIONS = (
    "import importlib, platform\n"
    "from importlib.metadata import version\n"
    "for module in {modules}: importlib.import_module(module)\n"
    "numbers = [f'{{name}} {{version(name)}}' for name in {packages}]\n"
    "print('@', ', '.join([f'Python {{platform.python_version()}}', *numbers]))"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where one process of the race reads and writes.

    model: Hugging Face folder of the model that all start from.
    rows: folder with `train.jsonl`, and `test.jsonl` where rows are held out.
    output: folder that the process makes.
    cache: folder of compiled programs and prepared data, kept from a cold pass to the warm ones.
    """

    model: Path
    rows: Path
    output: Path
    cache: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One library.

    name: for the table, and the key of `Job.expected`.
    methods: that it has, of those of the jobs.
    passes: of `PASSES`; a side without a cache of programs has the cold one alone.
    cache_variable: of the environment, which tells the folder of its cache.
    command: `(job, job's name, place, learning rate) -> arguments` of its Python.
    look: adds to a timeline what the files say: `(timeline, place, start)`.
    modules, packages: that it is made of, to import and to tell the versions of.
    """

    name: str
    methods: tuple[str, ...]
    passes: tuple[str, ...]
    cache_variable: str
    command: Callable[[Job, str, Place, float], list[str]]
    look: Callable[[Timeline, Place, float], None]
    modules: tuple[str, ...]
    packages: tuple[str, ...]


PASSES = {
    "cold": "an empty cache of compiled programs and of prepared data",
    "warm": "the same command again",
    "other rate": "again, with another learning rate",
}


def our_command(job: Job, name: str, place: Place, learning_rate: float) -> list[str]:
    """`jaxalign METHOD` with the flags of a job."""
    command = ["-m", "jaxalign", job.method, "--output", str(place.output)]
    if job.method == "rlhf":
        return command
    start = "--init" if job.method in ("sft", "reward") else "--policy"
    flags = {
        start: place.model,
        "--data.path": place.rows / "train.jsonl",
        "--steps": job.steps,
        "--batch_size": job.batch * (2 if job.method == "reward" else 1),  # both of a pair count
        "--lora.rank": RANK,
        "--lora.alpha": ALPHA,
        "--learning_rate": learning_rate,
        "--schedule": "linear",
        "--warmup": 0,
        "--log_every": 1,
    }
    if job.held_out:
        flags["--data.evaluation_path"] = place.rows / "test.jsonl"
    if job.method == "grpo":
        flags |= {
            "--group_size": GROUP,
            "--max_new_tokens": NEW_TOKENS,
            "--kl_coef": 0.0,
            "--reward": f"{REWARD}:plain_words",
        }
    if job.method == "reward":
        flags["--reward.dropout"] = 0.0
    return command + [str(word) for flag in flags.items() for word in flag]


def look_at_run(seen: Timeline, place: Place, start: float) -> None:
    """Milestones of a run directory, from its metrics and the times of its files."""
    metrics = place.output / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    for line in map(json.loads, lines):
        if line["step"] >= 1 and "loss" in line:
            seen.marks["first step"] = line["time"] - start
            break
    for mark, part in (("model", "model"), ("evaluation", "results.json")):
        path = place.output / part
        moment = path.stat().st_mtime - start if path.is_file() else last_written(path, start)
        if moment is not None:
            seen.marks[mark] = moment


def peer_command(worker: str):
    """Command of a worker of this package, which marks its milestones itself."""

    def command(job: Job, name: str, place: Place, learning_rate: float) -> list[str]:
        module = f"benchmarks.first_result.workers.{worker}"
        paths = [str(path) for path in (place.model, place.rows, place.output)]
        return ["-m", module, name, *paths, str(learning_rate)]

    return command


def look_nowhere(seen: Timeline, place: Place, start: float) -> None:
    """Nothing: the worker has marked all."""


OURS = Side(
    name="jaxalign",
    methods=("dpo", "sft", "reward", "kto", "grpo", "rlhf"),
    passes=tuple(PASSES),
    cache_variable="XDG_CACHE_HOME",
    command=our_command,
    look=look_at_run,
    modules=("jaxalign",),
    packages=("jax", "flax", "optax"),
)
SIDES = (
    OURS,
    Side(
        name="TRL",
        methods=("dpo", "sft", "reward", "kto", "grpo"),
        passes=("cold",),
        cache_variable="HF_DATASETS_CACHE",
        command=peer_command("trl_scripts"),
        look=look_nowhere,
        modules=("trl", "peft", "datasets"),
        packages=("trl", "transformers", "torch", "peft", "accelerate", "datasets"),
    ),
    Side(
        name="Tunix",
        methods=("dpo", "sft"),
        passes=("cold", "warm"),
        cache_variable="JAX_COMPILATION_CACHE_DIR",
        command=peer_command("tunix_scripts"),
        look=look_nowhere,
        modules=("tunix", "qwix"),
        packages=("google-tunix", "qwix", "jax", "flax"),
    ),
)


def versions(side: Side, python: str, env: dict[str, str]) -> str:
    """What a side is made of; raises `LookupError` with the reason where it is not installed."""
    code = VERSIONS.format(modules=side.modules, packages=side.packages)
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("@ ")]
    if done.returncode or not lines:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        raise LookupError(errors[-1] if errors else "it does not import")
    return lines[-1].removeprefix("@ ")
