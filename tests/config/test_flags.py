"""Flags of all commands: every one takes what it should, and what it should not is one line."""

import dataclasses
import typing
from typing import Annotated, Literal

import jax
import pytest

from jaxalign import cli
from jaxalign import config as configurations
from jaxalign.cli import CONFIGS, DEFAULTS, REFUSED, main, named_config, read_config
from jaxalign.config.checks import config
from jaxalign.config.control import ControlConfig
from jaxalign.config.dpo import DPOConfig
from jaxalign.config.field_types import fits, hints_of, options_of
from jaxalign.config.flags import flags_of, given_flags, settings_of, value_of, with_flags
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.images import ImagesConfig
from jaxalign.config.loop import FitConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ranges import (
    Seed,
    Share,
    ShareBelowOne,
    Size,
    Temperature,
    out_of_range,
    ranged_types,
)
from jaxalign.config.sft import SFTConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.text_models import new_text_model
from jaxalign.system.files import FileError, whole_directory, write_atomically

COMMANDS = sorted(DEFAULTS)
DIGITS = "9" * 400
NO_NUMBERS = ("", " ", "abc", "1,5", "1_0", "0x1", "--", "٣", "None ", "1 2", "[1]", "\x1b[2J")
NO_INTS = (*NO_NUMBERS, "1.5", "1e12", "nan", "inf", "True", DIGITS, f"-{DIGITS}", str(2**70))
NO_FLOATS = (*NO_NUMBERS, "nan", "-inf", "inf", "1e400", "1e39", "-1e39", "1e-50", DIGITS, "True")


def flags(command):
    default = named_config(DEFAULTS[command])
    return default, flags_of(type(default))


def refusal(default, flag, words):
    """The line that a value is refused by; "" where it is taken."""
    try:
        with_flags(default, {flag: words})
    except UserError as error:
        line = str(error)
        assert len(line.splitlines()) == 1 and len(line) < 1000
        return line
    return ""


def never(hint):
    """Words that are no value of that type."""
    found = []
    for option in options_of(hint):
        kind, arguments = typing.get_origin(option), typing.get_args(option)
        if option is int:
            found.append([(word,) for word in NO_INTS])
        elif option is float:
            found.append([(word,) for word in NO_FLOATS])
        elif option is bool:
            found.append([(word,) for word in ("", "yes", "1", "nan", DIGITS)])
        elif kind is Literal:
            found.append([(word,) for word in ("", "nonsense", arguments[0].upper() + "x", DIGITS)])
        elif kind is tuple and arguments[0] in (int, float):
            wrong = NO_INTS if arguments[0] is int else NO_FLOATS
            found.append([(word, "1") for word in wrong] + [("1", word) for word in wrong])
        elif kind is dict and arguments[1] is float:
            found.append([("a",), ("a", "1", "b"), *(("a", word) for word in NO_FLOATS)])
    return found[0] if found else []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_value_of_a_flag_is_one_line_that_names_it(command):
    default, hints = flags(command)
    for flag, hint in hints.items():
        for words in never(hint):
            line = refusal(default, flag, words)
            assert flag in line or flag.rpartition(".")[2] in line, (flag, words, line)
        assert f"--{flag} needs a value" in refusal(default, flag, ())


@pytest.mark.parametrize("command", COMMANDS)
def test_any_number_is_taken_or_one_line(command):
    """Sizes of 0 and below, and far too large ones, never end in anything else."""
    default, hints = flags(command)
    words = ("0", "-0.0", "-1", "1", "3", "1e-6", "0.999999", "2147483647", "-2147483648", "1e38")
    for flag, hint in hints.items():
        pair = any(typing.get_origin(option) is tuple for option in options_of(hint))
        for word in words:
            refusal(default, flag, (word, word) if pair else (word,))
        refusal(default, flag, tuple(words))


@pytest.mark.parametrize("command", COMMANDS)
def test_default_values_written_out_change_nothing(command):
    default, hints = flags(command)
    for flag, hint in hints.items():
        value = default
        for name in flag.split("."):
            value = getattr(value, name)
        if isinstance(value, dict) and not value:
            continue
        words = tuple(map(str, value)) if isinstance(value, tuple) else (str(value),)
        assert fits(value_of(flag, words, hint), hint)
        assert with_flags(default, {flag: words}) == default


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_has_a_range_that_its_default_lies_in(command):
    def check(settings):
        for name, hint in hints_of(type(settings)).items():
            value = getattr(settings, name)
            if dataclasses.is_dataclass(hint):
                check(value)
            elif int in options_of(hint):
                options = options_of(ranged_types(type(settings))[name])
                assert any(typing.get_origin(option) is Annotated for option in options), name

    check(named_config(DEFAULTS[command]))


LORA = {"lora.rank": "8", "init": "x", "reward.pooling": "mean", "distill.on_policy": "0"}
LOOPS = ("sft", "preferred", "reward.fit", "dpo_human.fit", "dpo_samples.fit", "ppo", "unpenalised")
SECTIONS = ("fit", "dpo.fit", "kto.fit", "reward.fit", "process.fit", "online.fit", "distill.fit")
SECTIONS += ("ppo", "grpo")
CONTEXTS = (
    *({f"{s}.best": "x", f"{s}.eval_every": "1", "method": s.partition(".")[0]} for s in SECTIONS),
    {f"{loop}.optimizer.warmup_steps": "None" for loop in LOOPS},
    *({}, {"init": "x"}, LORA | {"sft.optimizer.name": "adamw"}, {"reward.pooling": "mean"}),
    *({"on": "steps"}, {"on": "preferences"}, {"reward.bag": "True"}),
    {"ppo.kl_target": "1", "unpenalised.kl_target": "1", "method": "ppo"},
    {"grpo.importance_cap": "2", "method": "grpo"},
    *({"method": method} for method in ("sft", "kto")),
)
CANDIDATES = ("1", "2", "0.5", "0.3", "1.5", "64", "4", "True", "False", "x")
PAIRS = (("0.1", "0.3"), ("1", "2"), ("x", "1"), ("prompt", "question"))


def contexts(default, hints):
    """Settings beside which a flag may make sense; every loss among them."""
    found = [{k: v for k, v in context.items() if k in hints} for context in CONTEXTS]
    for flag, hint in hints.items():
        if flag.endswith("loss"):
            section = {"method": flag.partition(".")[0]} if "method" in hints else {}
            found += [{flag: name} | section for name in typing.get_args(hint)]
    found += [one | other for one in found for other in found if "process.fit.best" in other]
    for context in found:
        try:
            yield with_flags(default, {name: (word,) for name, word in context.items()})
        except UserError:
            continue


def values_of(flag, hint):
    """Words that are of the flag's type."""
    words = [(word,) for word in CANDIDATES]
    for option in options_of(hint):
        words += [(x,) for x in typing.get_args(option) if isinstance(x, str)]
    for given in (*words, *PAIRS):
        try:
            value_of(flag, given, hint)
        except UserError:
            continue
        yield given


def is_ever_taken(settings, flag, hint):
    """Whether some other value is taken beside some other settings."""
    words = list(values_of(flag, hint))
    for start in settings:
        for given in words:
            try:
                if with_flags(start, {flag: given}) != start:
                    return True
            except UserError:
                continue
    return False


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_always_refuses_is_not_advertised_and_nothing_else(command):
    default, hints = flags(command)
    settings = list(contexts(default, hints))
    taken = {flag for flag, hint in hints.items() if is_ever_taken(settings, flag, hint)}
    assert hints.keys() - taken == set(REFUSED.get(command, ()))


@pytest.mark.parametrize("command", ["ppo", "rlhf", "generate"])
def test_help_all_shows_what_can_be_given(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help", "all"])
    shown = capsys.readouterr().out
    _, hints = flags(command)
    assert not stop.value.code
    for flag in hints:
        assert (f"--{flag} " in shown) != (flag in REFUSED.get(command, ())), flag


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dpoo"], "no command 'dpoo'; did you mean dpo?"),
        (["DPO"], "no command 'DPO'; did you mean dpo?"),
        (["--polcy"], "no command '--polcy'"),
        (["dpo", "--dpo.bta", "1"], "has no flag --dpo.bta; did you mean --dpo.beta?"),
        (["dpo", "--dpo.fit.optimiser.lr", "1"], "has no flag --dpo.fit.optimiser.lr"),
        (["dpo", "--", "1"], "'--' follows no flag"),
        (["dpo", "--\x1b[2J", "1"], r"has no flag --\x1b[2J"),
        (["dpo", "runs/sft"], "'runs/sft' follows no flag"),
        (["dpo", "-seed", "1"], "'-seed' follows no flag"),
        (["dpo", "--seed", "1", "2"], "'2' follows --seed 1, which takes one value"),
        (["dpo", "--seed", "1", "--seed", "1"], "--seed is given twice"),
        (["dpo", "--seed", "1", "--seed=2"], "--seed is given twice"),
        (["sft", "--max-grad-norm", "1", "--fit.optimizer.max_grad_norm", "2"], "given twice"),
        (["dpo", "--run_dir", "a", "--output=b"], "--output is given twice"),
        (["dpo", "--ouput", "a"], "has no flag --ouput; did you mean --output?"),
        (["dpo", "--config"], "--config needs a value"),
        (["dpo", "--seed"], "--seed needs a value: a whole number"),
        (["dpo", "--seed="], "--seed is ''; it must be a whole number"),
        (["dpo", "--loss", "dop"], "did you mean dpo?"),
        (["sft", "--dropout", "0.1"], "--dropout may be any of --lora.dropout, --model.dropout"),
        (["ppo", "--rewards", "a", "1", "a", "2"], "--rewards has 'a' twice"),
        (["ppo", "--rewards", "a"], "--rewards is 'a'; it must be pairs of a text and a number"),
        (["grpo", "--clip_range", "0.2"], "--grpo.clip_range is '0.2'; it must be 2 numbers"),
        (["sft", "--learning_rate", "nan"], "--fit.optimizer.learning_rate is nan"),
        (["sft", "--batch_size", "1000000000"], "--fit.batch_size is 1000000000; it must lie in"),
        (["sft", "--steps", "1000000000000"], "it must lie in [0, 1000000000]"),
        (["sft", "--seed", "-1"], "--seed is -1; it must not be negative"),
        (["sft", "--seed", str(2**32)], "--seed is 4294967296; it must lie in"),
        (["generate", "--sampling.temperature", "1"], "did you mean --temperature?"),
        (["generate", "--run_dir", "x"], "`jaxalign generate` has no flag --run_dir"),
        (["generate", "--output", "x"], "`jaxalign generate` has no flag --output"),
        (["report"], "usage: jaxalign report DIR"),
        (["report", "a", "b"], "usage: jaxalign report DIR"),
        (["report", "--directory=a"], "usage: jaxalign report DIR"),
        (["report", ""], "holds none of versions.json"),
        (["--version", "x"], "no command '--version'"),
        (
            ["dpo", "--help", "dpo.fits"],
            "is no section of `dpo`; there are all, data, dpo",
        ),
        (["ppo", "--epochs", "x"], "--ppo.prompt_epochs is 'x'; it must be a number or None"),
        (
            ["rlhf", "--steps", "3"],
            "--steps may be any of --sft.steps, --reward.fit.steps, ",
        ),
        (["rlhf", "--epochs", "3"], "`jaxalign rlhf` has no flag --epochs"),
        (["rlhf", "--warmup", "0.1"], "--warmup_share may be any of --sft.optimizer.warmup_share"),
        (["evaluate", "--epochs", "3"], "`jaxalign evaluate` has no flag --epochs"),
        (["export", "--steps", "3"], "`jaxalign export` has no flag --steps"),
        (["dpo", "--warmup", "1.0"], "--warmup is '1.0'; give steps as a whole number, or a share"),
        (["dpo", "--warmup", "-1"], "warmup_steps is -1; it must not be negative"),
        (["dpo", "--warmup", "None"], "--warmup is 'None'; it must be a whole number or a number"),
        (["dpo", "--steps", "3", "--epochs", "1"], "steps 3 and epochs 1.0 are both given"),
        (["explain", "--data.evaluation_path", "x"], "explain reads --data.path"),
        (["kto", "--data.streaming", "True"], "kto needs its rows in memory"),
        (["dpo", "--data.streaming", "True", "--ld_alpha", "0.5"], "dpo with ld_alpha needs its"),
        (["evaluate", "--data.evaluation_share", "0.1"], "leave --data.evaluation_share out"),
        (["explain", "--method", "kto", "--dpo.beta", "1"], "method kto does not read dpo.beta"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, errors = capsys.readouterr()
    assert stop.value.code == 2 and not out
    assert errors.startswith("jaxalign: ") and errors.count("\n") == 1 and line in errors
    assert not list(tmp_path.iterdir())


def test_version_and_help_are_printed(capsys):
    for arguments, line in (
        (["--version"], f"jaxalign 0.1.0 (jax {jax.__version__})"),
        ([], "usage: jaxalign COMMAND"),
        (["help"], "usage: jaxalign COMMAND"),
        (["--help"], "usage: jaxalign COMMAND"),
        (["report", "--help"], "usage: jaxalign report DIR"),
        (["help", "report"], "usage: jaxalign report DIR"),
        (["-h", "export"], "usage: jaxalign export"),
        (["help", "export"], "usage: jaxalign export"),
        (["export", "-h"], "usage: jaxalign export"),
    ):
        main(arguments)
        assert capsys.readouterr().out.startswith(line)
    with pytest.raises(SystemExit) as stop:
        main(["help", "dpo", "dpo.fit"])
    shown = capsys.readouterr().out
    assert not stop.value.code
    assert "--dpo.fit.steps" in shown and "--dpo.beta" not in shown and "--seed" not in shown


def test_a_configuration_file_says_which_flags_there_are(capsys):
    cartpole = ["ppo", "--config", "ppo_cartpole"]
    main([*cartpole, "--help"])
    shown = capsys.readouterr().out
    assert "--rollout_length" in shown and "--policy" not in shown
    with pytest.raises(UserError, match=r"has no flag --data\.evaluation_path"):
        cli.dispatch([*cartpole, "--data.evaluation_path", "x"])


def test_a_flag_may_be_given_by_its_last_words():
    """Where several fields end so it is refused; the whole name is always one."""
    default, hints = flags("dpo")
    given = given_flags(["--learning-rate", "1e-6", "--loss=ipo", "--fit.steps", "7"])
    made = settings_of(default, given, known=hints, command="dpo")
    assert made.dpo.fit.optimizer.learning_rate == 1e-6
    assert (made.dpo.loss, made.dpo.fit.steps) == ("ipo", 7)
    whole = {"dpo.fit.optimizer.learning_rate": "1e-6", "dpo.loss": "ipo", "dpo.fit.steps": "7"}
    assert made == with_flags(default, {name: (word,) for name, word in whole.items()})


def test_the_same_setting_has_the_same_flag_in_all_commands():
    """Of what a run draws with, there is one name each."""
    for name in ("temperature", "max_new_tokens", "top_p", "top_k", "seed"):
        whole = {flag for c in COMMANDS for flag in flags(c)[1] if flag.endswith(f".{name}")}
        assert not whole, name


def test_negative_numbers_and_texts_with_dashes_are_values():
    assert given_flags(["--prompt", "-h", "--x=--y", "--a-b"]) == [
        ("prompt", ("-h",)), ("x", ("--y",)), ("a_b", ()),
    ]  # fmt: skip
    assert value_of("x", ["-1"], int) == -1 and value_of("x", ["-1e-3"], float) == -1e-3


GOOD = "from jaxalign.config import DPOConfig, FitConfig\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("def get_config(:\n", "does not run (line 1): SyntaxError"),
        (b"x = 1\n\xff\n", "SyntaxError"),
        (b"x = '\0'", "null bytes"),
        ("import no_such_module_of_mine\n", "(line 1): ModuleNotFoundError: No module named"),
        ("x = 1\nx.y\n", "does not run (line 2): AttributeError"),
        ("import sys\nsys.exit(0)\n", "does not run (line 2): SystemExit: 0"),
        ("def get_config():\n    raise SystemExit\n", "does not run (line 2): SystemExit"),
        ("def get_config():\n    return get_config()\n", "RecursionError"),
        ("def get_config(x):\n    return x\n", "TypeError: get_config() missing 1 required"),
        ("def get_config():\n    raise ValueError('a\\nb\\x1b[2J')\n", r"ValueError: a; b\x1b[2J"),
        ("", "defines no get_config()"),
        ("get_config = 3", "defines no get_config()"),
        ("def get_config():\n    return {}\n", "gives a dict, which `jaxalign dpo` does not take"),
        ("def get_config():\n    return None\n", "gives a NoneType"),
        (f"{GOOD}def get_config():\n    return DPOConfig\n", "gives the class DPOConfig"),
        (f"{GOOD}def get_config():\n    return FitConfig()\n", "gives a FitConfig"),
        (
            "from jaxalign.config import SFTConfig as C\ndef get_config():\n    return C()\n",
            "is a SFTConfig, which `jaxalign dpo` does not take; its get_config() must return DPOC",
        ),
        ("class DPOConfig: pass\ndef get_config():\n    return DPOConfig()\n", "gives a DPOConfig"),
        (
            f"{GOOD}def get_config():\n    return DPOConfig(polcy='x')\n",
            "does not run (line 3): DPOConfig has no field 'polcy'; did you mean policy?",
        ),
        (
            f"{GOOD}def get_config():\n    return DPOConfig(seed='x')\n",
            "does not run (line 3): seed is 'x'; it must be a whole number",
        ),
        (
            f"{GOOD}def get_config():\n    return FitConfig(batch_size=0)\n",
            "(line 3): batch_size is 0; it must be at least 1",
        ),
    ],
)
def test_a_configuration_file_that_is_none_is_one_line(content, line, tmp_path, capsys):
    file = tmp_path / "config.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit) as stop:
        main(["dpo", "--config", str(file)])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.count("\n") == 1
    assert f"--config {file}" in errors and line in errors


def test_what_is_no_configuration_file_is_one_line(tmp_path):
    (tmp_path / "large.py").write_bytes(b"#" * (cli.LARGEST_CONFIG + 1))
    for name, why in (
        (".", "is a directory"),
        ("none.py", "does not exist"),
        ("large.py", "bytes; at most"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UserError, match=why):
            read_config(tmp_path / name, "dpo")


def test_a_configuration_file_is_a_module_of_its_own(tmp_path):
    file = tmp_path / "mine.py"
    lines = ("from pathlib import Path", "HERE = Path(__file__).parent", GOOD)
    ends = ("def get_config():", "    return DPOConfig(policy=str(HERE))", "")
    file.write_text("\n".join((*lines, *ends)))
    assert read_config(file, "dpo") == DPOConfig(policy=str(tmp_path))


def test_a_model_that_no_memory_holds_is_refused_before_it_is_made():
    """Four matrices of attention and three of 8/3 D: 12 D^2 numbers a layer, here 1.35e16."""
    tokenizer = train_bpe(["a b"], vocab_size=260)
    with pytest.raises(UserError, match=r"make 1\.4e\+16 parameters, .* GiB of memory; lower them"):
        new_text_model(
            ModelConfig(width=2**20, layers=1024, heads=1), tokenizer, None, max_length=8
        )


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: GenerateConfig(prompt="a\udcff"), "--prompt is not UTF-8"),
        (lambda: FitConfig(steps="3"), "steps is '3'; it must be a whole number"),
        (lambda: FitConfig(steps=True), "steps is True; it must be a whole number"),
        (lambda: FitConfig(optimizer=None), "optimizer is None; it must be a OptimizerConfig"),
        (lambda: SFTConfig(fit={}), "fit is {}; it must be a FitConfig"),
        (lambda: PlaceConfig(layout="gpu"), "layout is 'gpu'; it must be auto, device, pmap"),
        (lambda: PlaceConfig(devices=0), "devices is 0; it must be at least 1"),
        (lambda: GRPOSettings(clip_range=[0.1, 0.2]), "clip_range is [0.1, 0.2]; it must be 2 num"),
        (lambda: GRPOSettings(clip_range=(0.1, float("nan"))), "clip_range is nan"),
        (lambda: ControlConfig(seeds=(1, 2**32)), "seeds is 4294967296"),
        (lambda: ControlConfig(log_every=0), "log_every is 0; it must be at least 1"),
        (lambda: ImagesConfig(test_share=1.0), "test_share is 1.0; it must lie in (0, 1)"),
        (lambda: ImagesConfig(rare_classes=(10,)), "rare_classes is 10; it must lie in [0, 9]"),
    ],
)
def test_a_configuration_is_checked_when_it_is_made(make, line):
    with pytest.raises(UserError) as error:
        make()
    assert line in str(error.value)


def test_a_field_without_a_range_has_that_of_its_type():
    @config
    class Settings:
        size: int = 1
        share: float = 1.0

    assert Settings(size=2**31 - 1, share=3e38).size == 2**31 - 1
    assert Settings(share=0.0).share == 0 and Settings(share=-1.2e-38).share < 0
    for wrong in ({"size": 2**31}, {"share": 1e39}, {"share": 1e-39}, {"share": 10**30}):
        with pytest.raises(UserError):
            Settings(**wrong)
    with pytest.raises(UserError, match=r"Settings has no field 'sise'; did you mean size\?"):
        Settings(sise=1)


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (0, Size | None, "it must be at least 1"),
        (2**20 + 1, Size, "it must lie in [1, 1048576]"),
        ((0, -1), tuple[Seed, ...], "it must not be negative"),
        (-0.5, Share, "it must lie in [0, 1]"),
        ((0.5, 1.0), tuple[Share, ShareBelowOne], "it must lie in [0, 1)"),
        (0.0, Temperature, "it must be above 0"),
        (1e-7, Temperature, "it must lie in [1e-06, 1e+06]"),
        (2**31, int, "it must lie in [-2147483648, 2147483647]"),
        ({"a": 2**31}, dict[str, int], "it must lie in [-2147483648, 2147483647]"),
    ],
)
def test_a_number_out_of_its_range_is_told_its_range(value, hint, wanted):
    assert out_of_range(value, hint)[1] == wanted


def test_numbers_in_their_ranges_are_taken():
    for value, hint in ((None, Size | None), (1, Size), (1.0, Share), (2**20, Size), (True, bool)):
        assert out_of_range(value, hint) is None


def test_the_configurations_of_all_modules_are_names_of_the_package():
    for name in configurations.__all__:
        assert getattr(configurations, name).__name__ == name
    assert {*CONFIGS} <= {*configurations.__all__}
    with pytest.raises(AttributeError):
        _ = configurations.NoSuchConfig


def test_commands_are_those_of_configurations():
    for name in DEFAULTS.values():
        assert name.partition(".")[2] in CONFIGS


def test_what_has_no_name_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", "/", "a\0b"):
        with pytest.raises(FileError, match="is no name that can be written to"):
            write_atomically(path, "x")
    with pytest.raises(FileError, match="is no name"), whole_directory(""):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with (
        pytest.raises(FileError, match="could not be written: Directory not empty"),
        whole_directory(tmp_path / "full") as aside,
    ):
        (aside / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
