"""`jaxalign COMMAND`: reads a configuration, applies typed overrides, runs a stage.

Nothing here computes. A mistake of the user is one line on standard error and exit status 2.
"""

import contextlib
import importlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from jaxalign.cache import keep_programs
from jaxalign.errors import UserError
from jaxalign.files import reason, remedy, shown_path, writing
from jaxalign.memory import keep_freed_memory, return_compiler_memory, with_huge_pages
from jaxalign.signals import ending, ignore

HELP = """usage: jaxalign COMMAND [--run_dir DIR] [--config FILE.py] [--field value ...]

  rlhf      SFT, reward model, PPO, DPO, best-of-N and their comparison, on human ratings
  sft       supervised fine-tuning on texts, or on prompts and completions
  reward    a reward model from preferences; --loss NAME: from rankings, from labelled steps
  ppo       PPO: of text against reward models or functions, on a control task, on images
  grpo      GRPO against reward models or functions, without values; --loss NAME for its relatives
  dpo       Direct Preference Optimization from preferences; --loss NAME for its relatives
  kto       KTO from responses labelled good or bad; --loss NAME for its relatives
  online    online DPO on the policy's own samples, ranked by a reward model; --loss xpo, nash_md
  distill   a student from a teacher's distributions, on data and on its own samples
  evaluate  perplexity on texts, accuracy on preferences, rankings or steps
  generate  samples of a trained policy
  export    a model as a Hugging Face folder, with a model card
  explain   one batch of a run or of a file, token by token, as a page
  ratings   the embedded human ratings as files that the stages read
  report    DIR: write report.html and the plots of a run directory again

`jaxalign COMMAND --help` lists the fields. The same command again resumes an interrupted run."""

ALSO = "Also: --run_dir DIR (where results go), --config FILE.py"
# command: the field that `--loss` is short for
LOSS_FIELDS = {
    "reward": "reward.loss",
    "grpo": "grpo.loss",
    "dpo": "dpo.loss",
    "kto": "kto.loss",
    "online": "online.loss",
    "distill": "distill.loss",
}
# command: its default configuration, if it needs no file
DEFAULTS = {
    "rlhf": "config_rlhf.RLHFConfig",
    "sft": "config.SFTConfig",
    "reward": "config.RewardConfig",
    "ppo": "config.TextPPOConfig",
    "grpo": "config_grpo.GRPOConfig",
    "dpo": "config.DPOConfig",
    "kto": "config.KTOConfig",
    "online": "config_online.OnlineConfig",
    "distill": "config_distill.DistillConfig",
    "evaluate": "config.EvaluateConfig",
    "generate": "config.GenerateConfig",
    "explain": "config_explain.ExplainConfig",
    "export": "config_export.ExportConfig",
    "ratings": "config.RatingsConfig",
}
# configuration: the command it belongs to, the module whose `run` takes it, whether that takes a
# directory
STAGES = {
    "RLHFConfig": ("rlhf", "rlhf", True),
    "SFTConfig": ("sft", "sft", True),
    "RewardConfig": ("reward", "reward", True),
    "TextPPOConfig": ("ppo", "ppo", True),
    "ControlConfig": ("ppo", "control", True),
    "ImagesConfig": ("ppo", "images", True),
    "GRPOConfig": ("grpo", "grpo", True),
    "DPOConfig": ("dpo", "dpo", True),
    "KTOConfig": ("kto", "kto", True),
    "OnlineConfig": ("online", "online", True),
    "DistillConfig": ("distill", "distill", True),
    "EvaluateConfig": ("evaluate", "evaluate", False),
    "GenerateConfig": ("generate", "generate", False),
    "ExplainConfig": ("explain", "explain", False),
    "ExportConfig": ("export", "export", False),
    "RatingsConfig": ("ratings", "export_ratings", True),
}


def program() -> None:
    """The `jaxalign` program."""
    open_standard_streams()
    arguments = sys.argv[1:]
    if arguments[:1] and arguments[0] in DEFAULTS and not {"-h", "--help"} & set(arguments):
        with_huge_pages()
    try:
        main(arguments)
    finally:
        ignore()  # all is done, and Python is no longer there to answer


def open_standard_streams() -> None:
    """Where one is closed, the first file that is opened would take its place and get its lines."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def main(arguments: list[str]) -> None:
    """The same within a process."""
    with ending():
        try:
            keep_freed_memory()
            return_compiler_memory()
            keep_programs()
            dispatch(arguments)
            sys.stdout.flush()
        except UserError as error:
            refuse(str(error), 2)
        except BrokenPipeError:  # nobody reads any longer, as after `| head`
            drop_output()
            raise SystemExit(128 + 13) from None
        except OSError as error:
            drop_output()
            where = "" if error.filename is None else f"{shown_path(error.filename)}: "
            refuse(f"{where}{reason(error)}; {remedy(error)}", 2)
        except KeyboardInterrupt:
            raise SystemExit(128 + 2) from None


def drop_output() -> None:
    """What cannot be printed is not tried again when the process ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse(line: str, status: int) -> None:
    """End with that line on standard error."""
    with contextlib.suppress(OSError):
        print(f"jaxalign: {line}", file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def dispatch(arguments: list[str]) -> Any:
    """Run the command and return what its stage returns."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return None
    command, rest = arguments[0], arguments[1:]
    if command == "report":
        return report(rest)
    if command not in DEFAULTS:
        raise UserError(f"no command {command!r}; `jaxalign --help` lists them")
    file, rest = option(rest, "config")
    directory, rest = option(rest, "run_dir")
    if command in LOSS_FIELDS:
        loss, rest = option(rest, "loss")
        rest += [] if loss is None else [f"--{LOSS_FIELDS[command]}", loss]
    default = named_config(DEFAULTS[command]) if file is None else read_config(Path(file))
    name = type(default).__name__
    if STAGES.get(name, ("",))[0] != command:
        raise UserError(f"{file} is a {name}, which `jaxalign {command}` does not take")
    return run_stage(name, with_overrides(command, default, rest), directory)


def run_stage(name: str, config, directory: str | None) -> Any:
    """Import the stage of that configuration and run it."""
    _, module, takes_directory = STAGES[name]
    stage = importlib.import_module(f"jaxalign.stages.{module}")
    if not takes_directory:
        if directory is not None:
            raise UserError(f"`{module}` writes no run directory; leave --run_dir out")
        return stage.run(config)
    from jaxalign.stages.run_directory import directory_of, held

    folder = directory_of(f"runs/{module}" if directory is None else directory)
    with held(folder):
        return stage.run(config, folder)


def with_overrides(command: str, default, arguments: list[str]):
    """The configuration with the fields that the command line gives."""
    import tyro

    return tyro.cli(
        type(default),
        default=default,
        args=arguments,
        prog=f"jaxalign {command}",
        description=f"{type(default).__doc__}\n\n{ALSO}",
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )


def named_config(name: str):
    """The default configuration, `module.Class` below `jaxalign`.

    >>> named_config("config.GenerateConfig").samples
    4
    """
    module, cls = name.split(".")
    return getattr(importlib.import_module(f"jaxalign.{module}"), cls)()


def read_config(file: Path):
    """What `get_config()` of the user's own Python file returns."""
    if not file.is_file():
        raise UserError(f"--config {file}: no such file")
    contents = runpy.run_path(str(file))
    if "get_config" not in contents:
        raise UserError(f"--config {file} defines no get_config()")
    return contents["get_config"]()


def option(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `--name value` or `--name=value`, and the other arguments.

    >>> option(["--seed", "1", "--run_dir=runs/a"], "run_dir")
    ('runs/a', ['--seed', '1'])
    """
    spellings = (f"--{name}", f"--{name.replace('_', '-')}")
    for position, argument in enumerate(arguments):
        before = arguments[:position]
        if argument in spellings:
            if position + 1 == len(arguments):
                raise UserError(f"--{name} needs a value")
            return arguments[position + 1], before + arguments[position + 2 :]
        if argument.partition("=")[0] in spellings:
            return argument.partition("=")[2], before + arguments[position + 1 :]
    return None, arguments


def report(arguments: list[str]) -> Path:
    """Write the report of a run directory again."""
    from jaxalign.report import write_report

    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise UserError("usage: jaxalign report DIR, with DIR a run directory")
    with writing(Path(arguments[0]) / "report.html"):
        page = write_report(Path(arguments[0]))
    print(page)
    return page
