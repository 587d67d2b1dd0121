"""Command line `jaxalign COMMAND`: reads a configuration, applies typed overrides, runs it.

A mistake of the user (`UserError`) is one line on standard error and exit status 2.
"""

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import inspect
import io
import os
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxalign.config.checks import nearest
from jaxalign.config.field_types import hints_of
from jaxalign.config.flags import flags_of, given_flags, settings_of
from jaxalign.config.new_run import new_run
from jaxalign.config.options import Flag, Options, ReportOptions, RunOptions, given_options
from jaxalign.config.packaged import packaged, packaged_names
from jaxalign.errors import CannotGoOn, UserError, one_line
from jaxalign.system.cache import use_compilation_cache
from jaxalign.system.console import clock, output, tell, telling
from jaxalign.system.files import FileError, quote, read_bytes, reason, remedy, short_path, writing
from jaxalign.system.memory import keep_freed_memory, return_compiler_memory
from jaxalign.system.opening import BEGAN, PRINTING
from jaxalign.system.signals import ending, ignore

HELP = """usage: jaxalign COMMAND [--output DIR] [--config FILE.py] [--field value ...]

  rlhf      SFT, reward model, PPO, DPO, best-of-N and their comparison, on human ratings
  sft       supervised fine-tuning on texts, or on prompts and completions
  reward    a reward model from preferences; --loss NAME: from rankings, from labelled steps
  ppo       PPO: of text against reward models or functions, on a control task, on images
  grpo      GRPO against reward models or functions, without values; --loss NAME for its relatives
  dpo       Direct Preference Optimization from preferences; --loss NAME for its relatives
  kto       KTO from responses labelled good or bad; --loss NAME for its relatives
  online    online DPO on the policy's own samples, ranked by rewards; --loss xpo, nash_md
  distill   a student from a teacher's distributions, on data and on its own samples
  evaluate  perplexity on texts, rewards of answers to prompts, accuracy on preferences and others
  generate  samples of a trained policy
  export    a model as a Hugging Face folder, with a model card
  explain   one batch of a run or of a file, token by token, as a page
  ratings   the embedded human ratings as files that the commands read
  report    DIR: write report.html and the plots of a run directory again; --watch shows it

`jaxalign COMMAND --help` shows the flags that are used most, `--help all` all of them. The same
command again resumes an interrupted run. `jaxalign --version` prints the version; `--quiet` leaves
nothing but warnings and errors."""

HELP_FLAGS = ("-h", "--help", "help")
LARGEST_CONFIG = 2**24  # bytes of a --config file
Config = Any  # a frozen dataclass of `jaxalign.config`

RLHF_LOOPS = ("sft", "preferred", "reward.fit", "dpo_human.fit", "dpo_samples.fit", "ppo")
RLHF_LOOPS += ("unpenalised",)
# what says more of the rows than where they are
ONE_SOURCE = ("evaluation_path", "evaluation_share", "mixture", "streaming")
# command: flags that it always refuses, which its help leaves out
REFUSED = {
    "rlhf": (
        *("reward.loss", "lora.dropout", "sft.epochs", "preferred.epochs", "reward.fit.epochs"),
        *("dpo_human.fit.epochs", "dpo_samples.fit.epochs"),
        *("ppo.prompt_epochs", "unpenalised.prompt_epochs"),
        *(f"{loop}.{field}" for loop in RLHF_LOOPS for field in ("eval_every", "best", "patience")),
    ),
    "reward": ("model.dropout", "model.value_trunk", "data.streaming"),
    "ppo": ("lora.dropout", "data.streaming"),
    "grpo": ("lora.dropout", "data.streaming"),
    "online": ("lora.dropout", "data.streaming"),
    "kto": ("data.streaming",),
    "distill": ("data.streaming",),
    "evaluate": tuple(f"data.{name}" for name in ONE_SOURCE),
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
    """Entry point of the installed `jaxalign` program."""
    open_standard_streams()
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a letter of a name
            stream.reconfigure(errors="backslashreplace")
    try:
        main(arguments)
    finally:
        ignore()  # all is done, and Python is no longer there to answer
        gc.freeze()  # Python would look for cycles among all that is imported, for half a second


def open_standard_streams() -> None:
    """Open `/dev/null` in place of a closed standard stream.

    Otherwise the first file that is opened would take its descriptor and receive its lines.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def main(arguments: list[str]) -> None:
    """One command with these arguments; errors and signals end the process with a status."""
    with ending():
        try:
            keep_freed_memory()
            return_compiler_memory()
            use_compilation_cache()
            dispatch(arguments)
            sys.stdout.flush()
        except UserError as error:
            refuse(str(error), 2)
        except BrokenPipeError:  # nobody reads any longer, as after `| head`
            drop_output()
            raise SystemExit(128 + 13) from None
        except OSError as error:
            drop_output()
            where = "" if error.filename is None else f"{short_path(error.filename)}: "
            refuse(f"{where}{reason(error)}; {remedy(error)}", 2)
        except KeyboardInterrupt:
            raise SystemExit(128 + 2) from None


def drop_output() -> None:
    """Discard buffered standard output that cannot be written, so that exit does not retry it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse(line: str, status: int) -> None:
    """Exit with this status and one line on standard error."""
    with contextlib.suppress(OSError):
        print(f"jaxalign: {one_line(line)}", file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def dispatch(arguments: list[str]) -> Any:
    """Result of the command that the first argument names."""
    if not arguments or (arguments[0] in HELP_FLAGS and len(arguments) == 1):
        print(f"{HELP}\n\nConfigurations by name, for --config: {', '.join(packaged_names())}.")
        return None
    if arguments == ["--version"]:
        version = importlib.metadata.version
        print(f"jaxalign {version('jaxalign')} (jax {version('jax')})")
        return None
    if arguments[0] == "--quiet":  # before the command is as good as behind it
        arguments = [*arguments[1:], "--quiet"]
    command, rest = arguments[0], arguments[1:]
    if command in HELP_FLAGS and len(rest) in (1, 2):  # jaxalign help dpo, help dpo all
        command, rest = rest[0], ["--help", *rest[1:]]
    if command == "report":
        return report(rest)
    if command not in DEFAULTS:
        near = nearest(command.lower(), [*DEFAULTS, "report"]) or "; `jaxalign --help` lists them"
        raise UserError(f"no command {quote(command)}{near}")
    return run_command(command, rest)


def run_command(command: str, arguments: list[str]) -> Any:
    """Result of a command run with these flags; with `--help`, its flags are printed instead."""
    given = given_flags(["--help" if word == "-h" else word for word in arguments])
    options, flags = given_options(given, options_of_command(command))
    default = (
        named_config(DEFAULTS[command])
        if options.config is None
        else read_config(Path(options.config), command)
    )
    topic, flags = help_topic(flags)
    hints = flags_of(type(default))
    refused = REFUSED.get(command, ())  # but where given by its whole name: the reason is told
    known = [name for name in hints if name not in refused or name in dict(flags)]
    known += hints_of(type(options))  # taken already: for suggestions
    try:
        settings = settings_of(default, flags, known=known, command=command)
    except UserError:
        if topic is not None:
            print_help(command, default, topic)
        raise
    if topic is not None:
        return print_help(command, settings, topic)
    try:
        return run_configured(settings, options)
    except CannotGoOn as error:
        directory, given = run_directory(settings, options), given_flags(arguments)
        again = new_run(command, settings, given, directory=directory, field=error.field)
        raise UserError(f"{error}; {again}") from None


def help_topic(flags: list[Flag]) -> tuple[str | None, list[Flag]]:
    """What `--help` asks about, empty for the first page, None where it is not given; other flags.

    >>> help_topic([("help", ("all",)), ("loss", ("ipo",))]), help_topic([])
    (('all', [('loss', ('ipo',))]), (None, []))
    """
    topics = [" ".join(words) for name, words in flags if name == "help"]
    return (topics[0] if topics else None), [flag for flag in flags if flag[0] != "help"]


def options_of_command(command: str) -> type[Options]:
    """Options that a command takes beside the fields of its configuration."""
    writes_run = any(owner == command and folder for owner, folder in CONFIGS.values())
    return RunOptions if writes_run else Options


def asks_for_help(arguments: list[str]) -> bool:
    """Whether `-h` or `--help` is among the arguments."""
    return bool({"-h", "--help"} & set(arguments))


def run_configured(config: Config, options: Options) -> Any:
    """Result of the command that this class of configuration belongs to.

    Args:
      config: of the command.
      options: of the command line beside it.
    """
    began = BEGAN or time.monotonic()
    command, _ = CONFIGS[type(config).__name__]
    with telling(quiet=options.quiet, stderr=command in PRINTING):
        module = importlib.import_module(f"jaxalign.commands.{command}")
        if not isinstance(options, RunOptions):
            return module.run(config)
        from jaxalign.recipes.run_directory import locked_directory, set_aside, settle
        from jaxalign.recipes.tracking import keep_services, services_of

        folder = run_directory(config, options)
        services = None if options.track is None else services_of(options.track)
        settle(folder)
        emptied = set_aside(folder, config) if options.overwrite else contextlib.nullcontext()
        with emptied, locked_directory(folder):
            if services is not None:
                keep_services(folder, services)
            result = module.run(config, folder)
        tell(f"done in {clock(time.monotonic() - began)}")
    return result


def run_directory(config: Config, options: Options) -> Path:
    """Directory of the run of a configuration: the given one, or that of the command."""
    from jaxalign.recipes.run_directory import directory_of

    _, default = CONFIGS[type(config).__name__]
    given = options.output if isinstance(options, RunOptions) else None
    return directory_of(f"runs/{default}" if given is None else given)


def print_help(command: str, settings: Config, topic: str) -> None:
    """Print the first page of a command's help, or all its fields, or those of a section.

    Args:
      command: its name.
      settings: its configuration, with the flags that are given beside --help.
      topic: empty, `all`, or the name of a section.

    Raises:
      UserError: there is no such section.
    """
    from jaxalign.config.all_fields import print_fields
    from jaxalign.config.help_page import Page, print_first_page

    fields = [name for name in flags_of(type(settings)) if name not in REFUSED.get(command, ())]
    if not topic:
        page = Page(
            command=command,
            settings=settings,
            fields=tuple(fields),
            options=options_of_command(command),
            directory=CONFIGS[type(settings).__name__][1],
        )
        return print_first_page(page)
    shown = [name for name in fields if topic == "all" or name.startswith(f"{topic}.")]
    if not shown:
        sections = {name.rpartition(".")[0] for name in fields if "." in name}
        raise UserError(
            f"--help {quote(topic)[1:-1]} is no section of `{command}`; there are "
            f"{', '.join(['all', *sorted(sections)])}{nearest(topic, sections)}"
        )
    print_fields(command, settings, shown)


def named_config(name: str) -> Config:
    """Default configuration by its name `module.Class` below `jaxalign.config`.

    >>> named_config("generate.GenerateConfig").samples
    4
    """
    module, cls = name.split(".")
    return getattr(importlib.import_module(f"jaxalign.config.{module}"), cls)()


def read_config(file: Path, command: str | None = None) -> Config:
    """Configuration that `get_config()` of a Python file returns.

    Args:
      file: Python source, which is executed; or the name of one of the package's.
      command: that the configuration must belong to; None: any command.

    Raises:
      UserError: it cannot be read, does not run, or gives something else.
    """
    origin, file = f"--config {short_path(file)}", packaged(file)
    try:
        source = read_bytes(file, largest=LARGEST_CONFIG)
    except FileError as error:
        near = nearest(file.name.removesuffix(".py"), packaged_names())
        known = near or f"; by name there are {', '.join(packaged_names())}"
        raise UserError(f"--config {error}{known}") from None
    module = types.ModuleType(f"config_{file.stem}")
    module.__file__ = str(file)
    run = functools.partial(_run_file, file=str(file), origin=origin)
    run(lambda: exec(compile(source, str(file), "exec"), module.__dict__))
    make = vars(module).get("get_config")
    if not callable(make):
        raise UserError(f"{origin} defines no get_config()")
    config = run(make)
    if inspect.iscoroutine(config):
        config.close()  # which nobody will await
    name = config.__name__ if isinstance(config, type) else type(config).__name__
    takes = [key for key, value in CONFIGS.items() if command in (None, value[0])]
    is_ours = type(config).__module__.startswith("jaxalign.config")
    if isinstance(config, type) or not is_ours or name not in takes:
        what = f"the class {name}, no instance" if isinstance(config, type) else f"a {name}"
        is_other = is_ours and name in CONFIGS and not isinstance(config, type)
        verb = "is" if is_other else "gives"
        raise UserError(
            f"{origin} {verb} {what}, which `jaxalign {command}` does not take; its get_config() "
            f"must return {' or '.join(f'{key}(...)' for key in takes)}"
        )
    return config


def _run_file(action: Callable[[], Any], *, file: str, origin: str) -> Any:
    """Result of `action`, whose failures become one line with the line number in the file."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines = [error.lineno]
        where = f" (line {lines[-1]})" if lines and lines[-1] else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{origin} does not run{where}: {kind}{message}") from None


def report(arguments: list[str]) -> Path | None:
    """Path of the report of a run directory, written again; with `--watch` it is served."""
    usage = "usage: jaxalign report DIR [--watch [--port N]], with DIR a run directory"
    if asks_for_help(arguments):
        print(
            f"{usage}\n\nWrites DIR/report.html and DIR/plots/*.png again. --watch shows the page "
            f"of a run that goes on in a browser on this machine, until Ctrl-C."
        )
        return None
    if [word.startswith("--") for word in arguments[:2]] not in ([False], [False, True]):
        raise UserError(usage)
    options, rest = given_options(given_flags(arguments[1:]), ReportOptions)
    if rest or (options.port is not None and not options.watch):
        raise UserError(usage)
    directory = Path(arguments[0])
    if options.watch:
        return watch_report(directory, options.port)
    from jaxalign.report import write_report

    with writing(directory / "report.html"):
        page = write_report(directory)
    with telling(quiet=options.quiet):
        output(str(page), needed=False)
    return page


def watch_report(directory: Path, port: str | None) -> None:
    """Serve the report of a run, which is written first where there is none."""
    from jaxalign.report import write_report
    from jaxalign.report.watch import PAGE, PORT, watch

    number = PORT if port is None else int(port) if port.isdecimal() and len(port) < 6 else -1
    if number not in range(2**16):
        raise UserError(f"--port {quote(port)} is no port; give a whole number up to {2**16 - 1}")
    if not (directory / PAGE).exists():
        with writing(directory / PAGE):
            write_report(directory)
    watch(directory, number)
