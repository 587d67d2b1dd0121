"""Defaults of training loops, which depend on the model where settings are not given.

A field of `FitConfig`, `OptimizerConfig`, `PPOSettings` or `GRPOSettings` that is None is filled in
here and nowhere else, once the model and the data are known and before anything is computed or
written. A given value always stays.
"""

import dataclasses
import math
from typing import Any

from jaxalign.config.checks import require
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.reward import RewardSettings
from jaxalign.system.console import tell

LARGE = 10_000_000  # parameters from which a model of this program is treated as a published one
MOST_STEPS = 2**31 - 1  # what the counter of a training state holds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defaults:
    """Default settings of a training loop.

    learning_rate: of AdamW and RMSprop.
    adapter_rate: the same for LoRA; None: there is none.
    schedule, b2, warmup_steps, warmup_share: of the optimizer; one of the last two.
    steps, epochs: how long; one of them. For PPO and GRPO, iterations or passes over the prompts.
    batch_size: rows of a step; None where an iteration has sizes of its own.
    """

    learning_rate: float
    adapter_rate: float | None = None
    schedule: str = "cosine"
    b2: float = 0.99
    warmup_steps: int | None = None
    warmup_share: float | None = None
    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None


# A model trained from scratch by this program, of fewer than LARGE parameters.
NEW: dict[str, Defaults] = {
    "sft": Defaults(learning_rate=1e-3, warmup_steps=20, steps=500, batch_size=64),
    "dpo": Defaults(learning_rate=3e-4, warmup_steps=10, steps=120, batch_size=32),
    "kto": Defaults(learning_rate=3e-4, warmup_steps=10, steps=120, batch_size=64),
    "reward": Defaults(learning_rate=1e-3, warmup_steps=20, steps=400, batch_size=128),
    "process": Defaults(learning_rate=1e-3, warmup_steps=20, steps=300, batch_size=32),
    "ppo": Defaults(learning_rate=2e-4, schedule="linear", warmup_steps=0, steps=14),
    "grpo": Defaults(learning_rate=1e-3, schedule="constant", warmup_steps=0, steps=40),
    "online": Defaults(learning_rate=3e-4, warmup_steps=5, steps=100, batch_size=64),
    "distill": Defaults(learning_rate=1e-3, warmup_steps=20, steps=200, batch_size=32),
}
# A score head by itself, above a transformer that is not read or not trained: of every model.
HEAD = Defaults(learning_rate=0.02, b2=0.999, warmup_steps=0, steps=400, batch_size=128)


def _published(rate: float, adapters: float, share: float, **given: Any) -> Defaults:
    fields = {"schedule": "linear", "b2": 0.999, "epochs": 1.0} | given
    return Defaults(learning_rate=rate, adapter_rate=adapters, warmup_share=share, **fields)


# A published or large model. LoRA learns best at about ten times the rate of full fine-tuning
# (https://thinkingmachines.ai/blog/lora/); b2 is Adam's own. Sources of the others:
#   sft, distill: Alpaca (2e-5, cosine, warm-up 3%, 3 epochs), TRL's SFTConfig and GKDConfig (2e-5);
#     QLoRA, https://arxiv.org/abs/2305.14314 (adapters: 2e-4)
#   dpo, kto: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290 (1e-6, batches of 64); Zephyr,
#     https://arxiv.org/abs/2310.16944, and Tulu 3, https://arxiv.org/abs/2411.15124 (linear,
#     warm-up 10%, 5e-7); TRL's DPOConfig and KTOConfig (1e-6)
#   reward, process: InstructGPT, https://arxiv.org/abs/2203.02155 (9e-6, cosine, 1 epoch, 64
#     comparisons or prompts); TRL's PRMConfig (1e-5)
#   ppo: TRL's PPOConfig (3e-6, linear)
#   grpo: DeepSeekMath, https://arxiv.org/abs/2402.03300, TRL's GRPOConfig, and DAPO,
#     https://arxiv.org/abs/2503.14476 (1e-6, constant)
#   online: Guo et al. 2024, https://arxiv.org/abs/2402.04792, and TRL's OnlineDPOConfig (5e-7)
PUBLISHED: dict[str, Defaults] = {
    "sft": _published(2e-5, 2e-4, 0.03, schedule="cosine", epochs=3.0, batch_size=64),
    "dpo": _published(1e-6, 1e-5, 0.1, batch_size=64),
    "kto": _published(1e-6, 1e-5, 0.1, batch_size=64),
    "reward": _published(1e-5, 1e-4, 0.1, schedule="cosine", batch_size=128),
    "process": _published(1e-5, 1e-4, 0.1, schedule="cosine", batch_size=64),
    "ppo": _published(3e-6, 3e-5, 0.0),
    "grpo": _published(1e-6, 1e-5, 0.0, schedule="constant"),
    "online": _published(5e-7, 5e-6, 0.1, batch_size=64),
    "distill": _published(2e-5, 2e-4, 0.03, schedule="cosine", epochs=3.0, batch_size=32),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Kind of model that training starts from, as far as defaults depend on it.

    published: it comes from a Hugging Face folder, the hub, or a GGUF file.
    parameters: how many it has; 0 for a model that is yet to be made.
    adapters: LoRA adapters are trained, and not all parameters.
    """

    published: bool = False
    parameters: int = 0
    adapters: bool = False

    @property
    def small(self) -> bool:
        """Whether it is a model trained by this program that is not large."""
        return not self.published and self.parameters < LARGE

    @property
    def length(self) -> int:
        """Default of `DataConfig.max_length`, in tokens."""
        return 128 if self.small else 1024

    @property
    def name(self) -> str:
        """Kind of model in words, as the first line of a run names it."""
        model = "published" if self.published else "small" if self.small else "large"
        return f"a {model} model{' with adapters' if self.adapters else ''}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Following:
    """Settings of a training loop with the model's defaults; those that depend on the data are
    still open.

    given: as the user gave them.
    settings: filled in, but for steps (or iterations) where passes over the data are wanted.
    flag: under which the command has them.
    start: what training starts from.
    """

    given: Any
    settings: Any
    flag: str
    start: Start

    def settled(self, steps_of_epoch: float, *, announce: bool = True) -> Any:
        """The settings with all defaults filled in; prints a line of those that the user did not
        give.

        Args:
          steps_of_epoch: optimizer steps (iterations) in which all data come once; may be broken.

        Raises:
          UserError: the schedule is shorter than its warm-up, or longer than can be counted.
        """
        length, epochs = _lengths(self.settings)
        passes = getattr(self.settings, epochs)
        settled = self.settings
        unsized = isinstance(self.given, FitConfig) and self.given.batch_size is None
        if passes is not None and unsized and steps_of_epoch < 1:  # a batch of all rows, once
            rows = max(round(settled.rows * steps_of_epoch), 1)
            settled, steps_of_epoch = dataclasses.replace(settled, batch_size=rows), 1
        if passes is not None:
            steps = max(math.ceil(round(passes * steps_of_epoch, 6)), 1)
            require(
                steps <= MOST_STEPS,
                f"--{self.flag}.{epochs} {passes:g} is {steps:,} steps; lower it",
            )
            settled = dataclasses.replace(settled, **{length: steps, epochs: None})
        settled = _with_warmup(settled, self.flag, self.given.optimizer)
        if announce and (line := self._line(settled, passes)):
            tell(f"defaults of {self.start.name}: {line}")
        return settled

    def _line(self, settled: Any, passes: float | None) -> str:
        """List of the defaults that were filled in, `name value, ...`, or nothing."""
        given, asked, now = self.given, self.given.optimizer, settled.optimizer
        length = _lengths(given)[0]
        share = self.settings.optimizer.warmup_share
        parts = [f"{name} {getattr(now, name):g}" for name in ("learning_rate", "b2")
                 if getattr(asked, name) is None]  # fmt: skip
        if asked.schedule is None:
            parts.append(f"{now.schedule} schedule")
        if asked.warmup_steps is None and asked.warmup_share is None:
            parts.append(f"warm-up {now.warmup_steps if share is None else f'{share:.0%}'}")
        if getattr(given, length) is None:
            number = getattr(settled, length)
            kind = "iteration" if length == "iterations" else "step"
            count = f"{number} {kind}{'' if number == 1 else 's'}"
            plural = "" if passes == 1 else "s"
            parts.append(count if passes is None else f"{passes:g} epoch{plural} ({count})")
        if isinstance(given, FitConfig) and given.batch_size is None:
            parts.append(f"batches of {settled.batch_size}")
        return ", ".join(parts)


def following(given: Any, loop: str, start: Start, *, flag: str | None = None) -> Following:
    """Settings with the model's defaults filled in; those that depend on the data are left to
    `settled`.

    Args:
      given: `FitConfig`, `PPOSettings` or `GRPOSettings`.
      loop: row of the tables; "head" for a score head by itself.
      start: what training starts from.
      flag: under which the command has them; that of the loop by default.

    Raises:
      UserError: the schedule is shorter than its warm-up, or the learning rate has no default.
    """
    flag = flag or FLAGS.get(loop, loop)
    values = HEAD if loop == "head" else (NEW if start.small else PUBLISHED)[loop]
    optimizer = _filled_optimizer(given.optimizer, values, flag, start)
    settings = dataclasses.replace(given, optimizer=optimizer)
    length, epochs = _lengths(given)
    if getattr(given, length) is None and getattr(given, epochs) is None:
        settings = dataclasses.replace(settings, **{length: values.steps, epochs: values.epochs})
    if isinstance(settings, FitConfig) and settings.batch_size is None:
        settings = dataclasses.replace(settings, batch_size=values.batch_size)
    if getattr(settings, length) is not None:
        _with_warmup(settings, flag, given.optimizer)  # refused now, before the data are read
    return Following(given=given, settings=settings, flag=flag, start=start)


# loop: the section of its command
FLAGS = {
    "sft": "fit",
    "dpo": "dpo.fit",
    "kto": "kto.fit",
    "reward": "reward.fit",
    "head": "reward.fit",
    "process": "process.fit",
    "online": "online.fit",
    "distill": "distill.fit",
}


def filled_optimizer(
    given: OptimizerConfig, total_steps: int, *, loop: str = "sft", start: Start | None = None
) -> OptimizerConfig:
    """Optimizer settings with all defaults: those of this loop and start, or else of SFT of a small
    model.
    """
    fit = FitConfig(steps=total_steps, optimizer=given)
    return following(fit, loop, start or Start()).settled(1, announce=False).optimizer


def reward_loop(settings: RewardSettings, start: Start) -> str:
    """Name of the row of defaults for a reward model.

    The weights of a bag are few a text and want large steps, the transformer small ones; where both
    are trained, a published transformer decides, and a small one does not.
    """
    trained = settings.pooling != "none" and settings.trunk == "trained"
    return "reward" if trained and not (settings.bag and start.small) else "head"


def _filled_optimizer(
    given: OptimizerConfig, values: Defaults, flag: str, start: Start
) -> OptimizerConfig:
    rate = values.adapter_rate if start.adapters and values.adapter_rate else values.learning_rate
    require(
        given.learning_rate is not None or given.name != "muon" or start.small,
        f"--{flag}.optimizer.name muon has no usual learning rate for {start.name}; give "
        f"--{flag}.optimizer.learning_rate",
    )
    fields: dict[str, Any] = {
        "learning_rate": rate, "schedule": values.schedule, "b2": values.b2
    }  # fmt: skip
    fields = {name: value for name, value in fields.items() if getattr(given, name) is None}
    if given.warmup_steps is None and given.warmup_share is None:
        fields |= {"warmup_steps": values.warmup_steps, "warmup_share": values.warmup_share}
    return dataclasses.replace(given, **fields)


def _lengths(settings: FitConfig | PPOSettings | GRPOSettings) -> tuple[str, str]:
    """Names of the two fields for the length of training: in steps or iterations, and in epochs."""
    if isinstance(settings, FitConfig):
        return "steps", "epochs"
    return "iterations", "prompt_epochs"


def _with_warmup(settings: Any, flag: str, given: OptimizerConfig) -> Any:
    """The settings with their warm-up in steps: one that was given is checked not to exceed the
    training, a default is cut to it.
    """
    optimizer, length = settings.optimizer, _lengths(settings)[0]
    total = getattr(settings, length)
    if length == "iterations":
        total *= settings.update_epochs * settings.minibatches
    require(
        total <= MOST_STEPS,
        f"--{flag}.{length} {getattr(settings, length)} is {total:,} optimizer steps; at most "
        f"{MOST_STEPS:,} can be counted",
    )
    warmup = optimizer.warmup_steps
    if warmup is None:
        warmup = math.ceil(round(optimizer.warmup_share * total, 6))
    if given.warmup_steps is None:
        warmup = min(warmup, total)
    require(
        warmup <= total,
        f"--{flag}.optimizer.warmup_steps {warmup} is longer than the whole schedule of {total} "
        f"optimizer steps (--{flag}.{length} {getattr(settings, length)}); lower it",
    )
    optimizer = dataclasses.replace(optimizer, warmup_steps=warmup, warmup_share=None)
    return dataclasses.replace(settings, optimizer=optimizer)
