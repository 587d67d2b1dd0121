"""What configurations are made of: the decorator, and checks that raise one clear line.

Every field is checked for its type, its finiteness and its range when a configuration is made,
wherever it comes from: the command line, a Python file, or the `config.json` of a run.
"""

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, dataclass_transform

from jaxalign.errors import UserError
from jaxalign.numerics.bounds import LARGEST
from jaxalign.system.files import shown

Config = TypeVar("Config")
HIGHEST, SMALLEST = 3.4e38, 1.2e-38  # of normal float32 numbers
WHOLE = "[-2147483648, 2147483647]"  # jax computes with int32
ROWS, SHARE, WEIGHT = "[1, 1048576]", "[0, 1]", "[0, 1e30]"
POSITIVE, SEED = "(0, 1e30]", "[0, 4294967295]"
# Ranges of fields by name, or by class and name where that differs. Of what does not stand here,
# whole numbers fit into int32 and others into float32.
RANGES = {
    **dict.fromkeys(("batch_size", "micro_batches", "minibatches", "group_size"), ROWS),
    **dict.fromkeys(("rows", "samples", "environments", "rollout_length", "devices"), ROWS),
    **dict.fromkeys(("max_new_tokens", "max_episode_steps", "prompt_words"), ROWS),
    **dict.fromkeys(("rare_examples", "shown", "best_of_prompts", "curve_prompts"), "[0, 1048576]"),
    **dict.fromkeys(("prompts", "sampled_prompts", "samples_per_prompt", "best_of"), ROWS),
    **dict.fromkeys(("groups", "curve_points", "length_buckets", "prompt_tokens"), ROWS),
    **dict.fromkeys(("epochs", "prompt_epochs"), "(0, 1000000]"),
    **dict.fromkeys(("steps", "iterations", "updates", "batch"), "[0, 1000000000]"),
    **dict.fromkeys(("pretraining_steps", "warmup_steps"), "[0, 1000000000]"),
    **dict.fromkeys(("log_every", "checkpoint_every", "kl_horizon"), "[1, 1000000000]"),
    **dict.fromkeys(("total_steps", "perplexity_texts", "pairs"), "[1, 2147483647]"),
    **dict.fromkeys(("seed", "seeds"), SEED),  # beyond, jax takes two seeds as one
    **dict.fromkeys(("width", "widths", "mlp_width"), "[1, 1048576]"),
    **dict.fromkeys(("layers", "heads", "kv_heads"), "[1, 1024]"),
    **dict.fromkeys(("rank", "bag_characters"), "[0, 65536]"),
    **dict.fromkeys(("vocab_size", "bag_buckets"), "[1, 268435456]"),
    **dict.fromkeys(("max_length", "top_k"), "[0, 268435456]"),
    **dict.fromkeys(("learning_rate", "pretraining_learning_rate", "weight_decay"), "[0, 1000]"),
    **dict.fromkeys(("same_rater_share", "on_policy", "gae_lambda", "ld_alpha"), SHARE),
    **dict.fromkeys(("overlong_share", "top_entropy", "warmup_share"), SHARE),
    **dict.fromkeys(("dropout", "b2"), "[0, 1)"),
    **dict.fromkeys(("top_p",), "(0, 1]"),
    **dict.fromkeys(("test_share",), "(0, 1)"),
    **dict.fromkeys(("label_smoothing",), "[0, 0.5)"),
    **dict.fromkeys(("entropy_coef", "value_coef", "kl_coef", "nll_coef", "centering"), WEIGHT),
    **dict.fromkeys(("missing_eos_penalty", "unfinished_penalty", "bag_l2"), WEIGHT),
    **dict.fromkeys(("desirable_weight", "undesirable_weight"), WEIGHT),
    **dict.fromkeys(("max_grad_norm", "adam_eps", "importance_cap", "max_logits_gib"), POSITIVE),
    **dict.fromkeys(("kl_target", "value_clip_range", "dual_clip", "score_scale"), POSITIVE),
    **dict.fromkeys(("positive_temperature", "negative_temperature"), POSITIVE),
    **dict.fromkeys(("discopop_temperature",), POSITIVE),
    **dict.fromkeys(("temperature",), "[1e-6, 1e6]"),
    **dict.fromkeys(("clip_range",), WEIGHT),
    **dict.fromkeys(("rare_classes",), "[0, 9]"),
    "bag_power": "[0, 10]",
    "shard_gigabytes": "(0, 1e6]",
    "PPOSettings.gamma": SHARE,
    "GRPOSettings.gamma": SHARE,
    "UpdateSettings.gamma": SHARE,
    "UpdateSettings.clip_range": POSITIVE,
    "LoraConfig.alpha": POSITIVE,
}
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    types.NoneType: "None",
}
RANGE = re.compile(r"(?P<from>[\[(])(?P<low>[^,]+), (?P<high>[^,]+)(?P<to>[\])])")


class FieldError(UserError):
    """One field that cannot be: `name` and what is wrong with it.

    Whoever makes a configuration in another one says where: `within`.
    """

    def __init__(self, name: str, wrong: str):
        super().__init__(f"{name} {wrong}")
        self.name, self.wrong = name, wrong

    def within(self, section: str) -> "FieldError":
        """The same for the field of a section."""
        return FieldError(f"{section}.{self.name}", self.wrong)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls):
    """Class decorator of every configuration: its fields are checked when it is made."""
    own = cls.__dict__.get("__post_init__", lambda self: None)

    def checked(self):
        for name, value, hint in _fields_of(self):
            check_type(name, value, hint)
            check_finite(name, value)
        try:
            own(self)
        except ArithmeticError:  # by a size of 0, which has its range
            _check_ranges(self)
            raise
        _check_ranges(self)

    cls.__post_init__ = checked
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    made.__init__ = _by_known_names(made)
    return made


def _by_known_names(cls: type) -> Any:
    """The constructor, which names the field nearest to one that there is not."""
    init: Any = cls.__init__

    @functools.wraps(init)
    def named(self, *args, **fields):
        known = [field.name for field in dataclasses.fields(type(self))]
        for name in fields:
            if name not in known:
                raise UserError(
                    f"{type(self).__name__} has no field {name!r}{nearest(name, known)}"
                )
        init(self, *args, **fields)

    return named


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" for a name that there is not; empty where none is like it.

    >>> nearest("polcy", ["policy", "seed"])
    '; did you mean policy?'
    """
    found = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _fields_of(settings: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and type of every field."""
    for name, hint in hints_of(type(settings)).items():
        yield name, getattr(settings, name), hint


@functools.cache
def hints_of(cls: type) -> Mapping[str, Any]:
    """The types of the fields of a configuration, by name."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # pyright: ignore


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of another type that one alone."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type that a configuration uses.

    >>> fits(1, float), fits(True, int), fits((1, 2), tuple[int, ...]), fits(None, int | None)
    (True, False, True, True)
    """
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in arguments)
    if kind is Literal:
        return isinstance(value, str) and value in arguments
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        each = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(each) and all(map(fits, value, each))
    if kind is dict:
        return isinstance(value, dict) and all(
            fits(key, arguments[0]) and fits(one, arguments[1]) for key, one in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def wanted(hint: Any) -> str:
    """A type in words.

    >>> wanted(int | None), wanted(tuple[float, float]), wanted(Literal["a", "b"])
    ('a whole number or None', '2 numbers', 'a or b')
    """
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return " or ".join(map(wanted, arguments))
    if kind is Literal:
        *first, last = arguments
        return f"{', '.join(first)} or {last}" if first else last
    if kind is tuple:
        many = wanted(arguments[0]).removeprefix("a ") + "s"
        return many if arguments[-1] is ... else f"{len(arguments)} {many}"
    if kind is dict:
        return f"pairs of {' and '.join(map(wanted, arguments))}"
    return KINDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def check_type(name: str, value: Any, hint: Any):
    """Raise a `FieldError` unless the value is of that type."""
    if fits(value, hint):
        return
    literal = [option for option in options_of(hint) if typing.get_origin(option) is Literal]
    near = nearest(value, typing.get_args(literal[0])) if literal and isinstance(value, str) else ""
    raise FieldError(name, f"is {shown(value)}; it must be {wanted(hint)}{near}")


def check_finite(name: str, value: Any):
    """Raise a `FieldError` unless every number is one that jax computes with as it is."""
    if isinstance(value, dict):
        for key, one in value.items():
            check_finite(f"{name} {key}", one)
        return
    for number in _numbers_of(value):
        if isinstance(number, int):
            wrong = "it is too large" if abs(number) >= 2**63 else ""
        elif not math.isfinite(number):
            wrong = "it must be a finite number"
        elif abs(number) > HIGHEST:
            wrong = "it is too large for float32"
        else:
            wrong = "for float32 it is 0" if 0 < abs(number) < SMALLEST else ""
        if wrong:
            raise FieldError(name, f"is {shown(number)}; {wrong}")


def _check_ranges(settings: Any):
    for name, value, _ in _fields_of(settings):
        check_range(type(settings), name, value)


def check_range(cls: type, name: str, value: Any):
    """Raise a `FieldError` unless every number of a field lies in its range."""
    text = RANGES.get(f"{cls.__name__}.{name}") or RANGES.get(name)
    for number in _numbers_of(value):
        given = text or (WHOLE if isinstance(number, int) else "")
        if given and not within(number, given):
            raise FieldError(name, f"is {shown(number)}; it must lie in {given}")


def within(number: float, text: str) -> bool:
    """Whether a number lies in an interval.

    >>> within(1.0, "[0, 1)"), within(0, "[0, 1)")
    (False, True)
    """
    found = RANGE.fullmatch(text)
    assert found is not None, text
    low, high = float(found["low"]), float(found["high"])
    above = low <= number if found["from"] == "[" else low < number
    return above and (number <= high if found["to"] == "]" else number < high)


def _numbers_of(value: Any) -> Iterator[int | float]:
    """The numbers in a value, of tuples and dicts too; nothing of nested configurations."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from _numbers_of(one)
    elif isinstance(value, dict):
        yield from _numbers_of(tuple(value.values()))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def changed(settings: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with other values of some fields, named by dotted paths.

    Raises:
      FieldError: names the path of what cannot be.
    """
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    for name, inner in nested.items():
        try:
            own[name] = changed(getattr(settings, name), inner)
        except FieldError as error:
            raise error.within(name) from None
    return dataclasses.replace(settings, **own)  # pyright: ignore[reportArgumentType]


def restored(cls: type[Config], fields: Any) -> Config:
    """A configuration from what `config.json` holds of it.

    Raises:
      FieldError: a field that there is not, or a value that cannot be.
    """
    if not isinstance(fields, dict):
        raise UserError(f"{shown(fields)} stands where the fields of {cls.__name__} should")
    hints = hints_of(cls)
    for name in fields:
        if name not in hints:
            text = name if name.isprintable() and len(name) < 80 else shown(name)
            raise FieldError(text, f"is no field of {cls.__name__}; the run is of another version")
    for name in hints:
        if name not in fields:
            raise FieldError(name, "is missing; the run is of another version")
    values = {}
    for name, value in fields.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            try:
                values[name] = restored(typing.cast(type, hint), value)
            except FieldError as error:
                raise error.within(name) from None
        else:
            pair = any(typing.get_origin(option) is tuple for option in options_of(hint))
            values[name] = tuple(value) if pair and isinstance(value, list) else value
    return cls(**values)


def require(condition: bool, message: str):
    """Raise a one-line `UserError` unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_at_least(least: int, section: str, settings, *names: str):
    """Raise a one-line `UserError` that names the first field of `settings` below `least`.

    A field that is None is not given.
    """
    for name in names:
        value = getattr(settings, name)
        wanted = {0: "it must not be negative"}.get(least, f"it must be at least {least}")
        require(value is None or value >= least, f"{section}{name} is {value}; {wanted}")
        require(value != math.inf, f"{section}{name} is infinite; give a number")


def require_one(section: str, settings, first: str, second: str):
    """Raise a one-line `UserError` where two fields say the same thing in two ways."""
    values = getattr(settings, first), getattr(settings, second)
    require(
        None in values,
        f"{section}{first} {values[0]} and {section}{second} {values[1]} are both given; "
        "set one of them to None",
    )


def require_passes(name: str, passes: float | None):
    """Raise a one-line `UserError` unless a number of passes over data is one."""
    require(
        passes is None or 0 < passes < math.inf, f"{name} is {passes}; it must be a number above 0"
    )


def require_no_held_out(data: Any, command: str):
    """Raise a one-line `UserError` where held-out rows are given to a command that reads none."""
    require(
        not data.evaluation_path,
        f"{command} reads no held-out rows; leave data.evaluation_path out and use "
        "`jaxalign evaluate`",
    )


def require_temperature(temperature: float):
    """Raise a one-line `UserError` unless it is above 0."""
    require(temperature > 0, f"temperature is {temperature}; it must be above 0")


def require_penalty(section: str, penalty: float):
    """Raise a one-line `UserError` for a missing_eos_penalty that rewards more than it takes, or
    beyond what scores may be.
    """
    require(
        0 <= penalty <= LARGEST,
        f"{section}.missing_eos_penalty is {penalty}; it must not be negative, nor above "
        f"{LARGEST:,.0f}",
    )


def require_one_reward(reward: str, rewards: dict[str, float]):
    """Raise a one-line `UserError` where two options say what judges, or weights say nothing."""
    require(
        not (reward and rewards),
        f"--reward {reward} and --rewards are both given; give one of them",
    )
    for source, weight in rewards.items():
        require(
            abs(weight) <= LARGEST,
            f"rewards weighs {source} by {weight:g}; give a number between {-LARGEST:,.0f} and "
            f"{LARGEST:,.0f}",
        )
    require(
        not rewards or any(rewards.values()), "rewards weighs everything by 0: nothing is learned"
    )


def changed_fields(settings, default, prefix: str) -> list[str]:
    """Names of the fields, those of nested settings too, that are not as in the default.

    The default may be a class: what its fields are where nothing is given.
    """
    names = []
    for field in dataclasses.fields(settings):
        name = f"{prefix}.{field.name}" if prefix else field.name
        ours = getattr(settings, field.name)
        if isinstance(default, type) and field.default_factory is not dataclasses.MISSING:
            theirs = field.default_factory()
        else:
            theirs = getattr(default, field.name)
        if dataclasses.is_dataclass(ours):
            names += changed_fields(ours, theirs, name)
        elif ours != theirs:
            names.append(name)
    return names
