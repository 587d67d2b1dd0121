"""`jaxalign COMMAND`: reads a configuration, applies typed overrides, runs the command.

Nothing here computes. A mistake of the user is one line on standard error and exit status 2.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import io
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from jaxalign.config.checks import hints_of, nearest
from jaxalign.config.flags import flags_of, given_flags, named_flags, single, with_flags
from jaxalign.errors import UserError, one_line
from jaxalign.system.cache import keep_programs
from jaxalign.system.files import FileError, read_bytes, reason, remedy, shown, shown_path, writing
from jaxalign.system.memory import keep_freed_memory, return_compiler_memory, with_huge_pages
from jaxalign.system.signals import ending, ignore

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
  ratings   the embedded human ratings as files that the commands read
  report    DIR: write report.html and the plots of a run directory again

`jaxalign COMMAND --help` lists the fields. The same command again resumes an interrupted run.
`jaxalign --version` prints the version."""

HELP_FLAGS = ("-h", "--help", "help")
LARGEST_CONFIG = 2**24  # bytes of a --config file
Flag = tuple[str, tuple[str, ...]]  # its name, and the words that follow it

# command: flags that it always refuses, which its help leaves out
REFUSED = {
    "rlhf": (
        *("reward.loss", "lora.dropout", "sft.epochs", "preferred.epochs", "reward.fit.epochs"),
        *("dpo_human.fit.epochs", "dpo_samples.fit.epochs"),
        *("ppo.prompt_epochs", "unpenalised.prompt_epochs"),
    ),
    "reward": ("model.dropout", "model.value_trunk"),
    "ppo": ("data.evaluation_path", "lora.dropout"),
    "grpo": ("data.evaluation_path", "lora.dropout"),
    "online": ("data.evaluation_path", "lora.dropout"),
    "evaluate": ("data.evaluation_path",),
    "explain": ("data.evaluation_path",),
}
# command: its default configuration, if it needs no file
DEFAULTS = {
    "rlhf": "rlhf.RLHFConfig",
    "sft": "sft.SFTConfig",
    "reward": "reward.RewardConfig",
    "ppo": "ppo.TextPPOConfig",
    "grpo": "grpo.GRPOConfig",
    "dpo": "dpo.DPOConfig",
    "kto": "kto.KTOConfig",
    "online": "online.OnlineConfig",
    "distill": "distill.DistillConfig",
    "evaluate": "evaluate.EvaluateConfig",
    "generate": "generate.GenerateConfig",
    "explain": "explain.ExplainConfig",
    "export": "export.ExportConfig",
    "ratings": "ratings.RatingsConfig",
}
# configuration: the command it belongs to, its directory below `runs/` where none is given
CONFIGS = {
    "RLHFConfig": ("rlhf", "rlhf"),
    "SFTConfig": ("sft", "sft"),
    "RewardConfig": ("reward", "reward"),
    "TextPPOConfig": ("ppo", "ppo"),
    "ControlConfig": ("ppo", "control"),
    "ImagesConfig": ("ppo", "images"),
    "GRPOConfig": ("grpo", "grpo"),
    "DPOConfig": ("dpo", "dpo"),
    "KTOConfig": ("kto", "kto"),
    "OnlineConfig": ("online", "online"),
    "DistillConfig": ("distill", "distill"),
    "EvaluateConfig": ("evaluate", None),
    "GenerateConfig": ("generate", None),
    "ExplainConfig": ("explain", None),
    "ExportConfig": ("export", None),
    "RatingsConfig": ("ratings", "ratings"),
}


def program() -> None:
    """The `jaxalign` program."""
    open_standard_streams()
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a letter of a name
            stream.reconfigure(errors="backslashreplace")
    if arguments[:1] and arguments[0] in DEFAULTS and not wants_help(arguments):
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
        print(f"jaxalign: {one_line(line)}", file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def dispatch(arguments: list[str]) -> Any:
    """Run the command and return what it returns."""
    if not arguments or (arguments[0] in HELP_FLAGS and len(arguments) == 1):
        print(HELP)
        return None
    if arguments == ["--version"]:
        print(f"jaxalign {importlib.metadata.version('jaxalign')}")
        return None
    command, rest = arguments[0], arguments[1:]
    if command in HELP_FLAGS and len(rest) == 1:  # jaxalign help dpo
        command, rest = rest[0], ["--help"]
    if command == "report":
        return report(rest)
    if command not in DEFAULTS:
        near = nearest(command.lower(), [*DEFAULTS, "report"]) or "; `jaxalign --help` lists them"
        raise UserError(f"no command {shown(command)}{near}")
    return run_command(command, rest)


def run_command(command: str, arguments: list[str]) -> Any:
    """Run a command with the flags that follow it, or print those that it has."""
    words = [word for word in arguments if word not in HELP_FLAGS[:2]]
    file, given = option(given_flags(words), "config")
    default = named_config(DEFAULTS[command]) if file is None else read_config(Path(file), command)
    if wants_help(arguments):
        return print_help(command, default)
    directory, given = option(given, "run_dir")
    hints = flags_of(type(default))
    refused = REFUSED.get(command, ())  # but where given by its whole name: the reason is told
    known = [name for name in hints if name not in refused or name in dict(given)]
    settings = with_flags(default, named_flags(given, known, command))
    return run_configured(settings, directory)


def wants_help(arguments: list[str]) -> bool:
    """Whether a command is asked for its flags."""
    return bool({"-h", "--help"} & set(arguments))


def run_configured(config, directory: str | None) -> Any:
    """Import the command of that configuration and run it."""
    command, default = CONFIGS[type(config).__name__]
    module = importlib.import_module(f"jaxalign.commands.{command}")
    if default is None:
        if directory is not None:
            raise UserError(f"`{command}` writes no run directory; leave --run_dir out")
        return module.run(config)
    from jaxalign.recipes.run_directory import directory_of, held

    folder = directory_of(f"runs/{default}" if directory is None else directory)
    with held(folder):
        return module.run(config, folder)


def print_help(command: str, default) -> None:
    """The flags of a command, but for those that it always refuses."""
    import tyro

    shown_default = narrowed(default, REFUSED.get(command, ()))
    takes_directory = CONFIGS[type(default).__name__][1] is not None
    also = "--run_dir DIR (where results go), " if takes_directory else ""
    tyro.cli(
        type(shown_default),
        default=shown_default,
        args=["--help"],
        prog=f"jaxalign {command}",
        description=f"{type(default).__doc__}\n\nAlso: {also}--config FILE.py.\n"
        "Where one flag alone ends so, its last words do: --learning_rate, --loss.",
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )


def narrowed(config, refused: Sequence[str], prefix: str = "") -> Any:
    """The same configuration as one of a class whose help leaves fields out."""
    import tyro

    cls = type(config)
    fields, values = [], {}
    told = {field.name: field.metadata.get("help") for field in dataclasses.fields(cls)}
    for name, hint in hints_of(cls).items():
        value = getattr(config, name)
        if prefix + name in refused:
            hint = Annotated[hint, tyro.conf.Suppress]
        elif told[name]:
            hint = Annotated[hint, tyro.conf.arg(help=told[name])]
        elif dataclasses.is_dataclass(value):
            value = narrowed(value, refused, f"{prefix}{name}.")
            hint = type(value)
        values[name] = value
        fields.append((name, hint))
    made = dataclasses.make_dataclass(
        cls.__name__,
        fields,
        bases=(cls,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": cls.__doc__},
    )
    instance = object.__new__(made)  # its checks are for what a user gives
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


def named_config(name: str):
    """The default configuration, `module.Class` below `jaxalign.config`.

    >>> named_config("generate.GenerateConfig").samples
    4
    """
    module, cls = name.split(".")
    return getattr(importlib.import_module(f"jaxalign.config.{module}"), cls)()


def read_config(file: Path, command: str | None = None):
    """What `get_config()` of the user's own Python file returns.

    Args:
      file: is run.
      command: whose configuration it must be; None: of any.

    Raises:
      UserError: it cannot be read, does not run, or gives something else.
    """
    given = f"--config {shown_path(file)}"
    try:
        source = read_bytes(file, largest=LARGEST_CONFIG)
    except FileError as error:
        raise UserError(f"--config {error}") from None
    module = types.ModuleType(f"config_{file.stem}")
    module.__file__ = str(file)
    run = functools.partial(_of_file, file=str(file), given=given)
    run(lambda: exec(compile(source, str(file), "exec"), module.__dict__))
    make = vars(module).get("get_config")
    if not callable(make):
        raise UserError(f"{given} defines no get_config()")
    found = run(make)
    if inspect.iscoroutine(found):
        found.close()  # which nobody will await
    name = found.__name__ if isinstance(found, type) else type(found).__name__
    takes = [key for key, value in CONFIGS.items() if command in (None, value[0])]
    ours = type(found).__module__.startswith("jaxalign.config")
    if isinstance(found, type) or not ours or name not in takes:
        what = f"the class {name}, no instance" if isinstance(found, type) else f"a {name}"
        is_other = ours and name in CONFIGS and not isinstance(found, type)
        verb = "is" if is_other else "gives"
        raise UserError(
            f"{given} {verb} {what}, which `jaxalign {command}` does not take; its get_config() "
            f"must return {' or '.join(f'{key}(...)' for key in takes)}"
        )
    return found


def _of_file(action: Callable[[], Any], *, file: str, given: str) -> Any:
    """What a user's file does, its failures in a line with the place in the file."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines = [error.lineno]
        where = f" (line {lines[-1]})" if lines and lines[-1] else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{given} does not run{where}: {kind}{said}") from None


def option(given: list[Flag], name: str) -> tuple[str | None, list[Flag]]:
    """The word of a flag that is no field, and the other flags.

    >>> option([("seed", ("1",)), ("run_dir", ("runs/a",))], "run_dir")
    ('runs/a', [('seed', ('1',))])
    """
    found = [words for other, words in given if other == name]
    if len(found) > 1:
        raise UserError(f"--{name} is given twice; give it once")
    rest = [flag for flag in given if flag[0] != name]
    return (single(name, found[0]) if found else None), rest


def report(arguments: list[str]) -> Path | None:
    """Write the report of a run directory again."""
    usage = "usage: jaxalign report DIR, with DIR a run directory"
    if wants_help(arguments):
        print(f"{usage}\n\nWrites DIR/report.html and DIR/plots/*.png again.")
        return None
    if len(arguments) != 1 or arguments[0].startswith("--"):
        raise UserError(usage)
    from jaxalign.report import write_report

    with writing(Path(arguments[0]) / "report.html"):
        page = write_report(Path(arguments[0]))
    print(page)
    return page
