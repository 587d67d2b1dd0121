"""What is not given follows the model: values, steps, warm-up, the line that says so, refusals."""

import dataclasses
import math
import re

import pytest

from jaxalign.cli import dispatch
from jaxalign.commands.rlhf import job as rlhf
from jaxalign.config.defaults import (
    HEAD,
    LARGE,
    NEW,
    PUBLISHED,
    Start,
    filled_optimizer,
    following,
    reward_loop,
)
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.reward import RewardSettings
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.errors import UserError
from jaxalign.train.optimizers import make_schedule

SMALL, HUB = Start(parameters=LARGE - 1), Start(published=True, parameters=1)
ADAPTERS = dataclasses.replace(HUB, adapters=True)
OF_LOOP = {"ppo": PPOSettings(), "grpo": GRPOSettings()}  # FitConfig() of all others
# As the commands trained before: rate, schedule, warm-up, b2, steps or iterations, batch.
SMALL_VALUES = {
    "sft": (1e-3, "cosine", 20, 0.99, 500, 64),
    "dpo": (3e-4, "cosine", 10, 0.99, 120, 32),
    "kto": (3e-4, "cosine", 10, 0.99, 120, 64),
    "head": (0.02, "cosine", 0, 0.999, 400, 128),
    "process": (1e-3, "cosine", 20, 0.99, 300, 32),
    "ppo": (2e-4, "linear", 0, 0.99, 14, 256),
    "grpo": (1e-3, "constant", 0, 0.99, 40, 256),
    "online": (3e-4, "cosine", 5, 0.99, 100, 64),
    "distill": (1e-3, "cosine", 20, 0.99, 200, 32),
}


def values_of(settings) -> tuple:
    optimizer = settings.optimizer
    steps = settings.steps if isinstance(settings, FitConfig) else settings.iterations
    assert optimizer.warmup_share is None and optimizer.warmup_steps is not None
    return (
        *(optimizer.learning_rate, optimizer.schedule, optimizer.warmup_steps, optimizer.b2),
        *(steps, settings.batch_size),
    )


@pytest.mark.parametrize("loop", SMALL_VALUES)
def test_small_models_train_as_they_did(loop):
    settled = following(OF_LOOP.get(loop, FitConfig()), loop, SMALL).settled(1e9)
    assert values_of(settled) == SMALL_VALUES[loop]


# The usual ranges of full fine-tuning, and what adapters are trained with.
USUAL = {"sft": (5e-6, 5e-5), "distill": (5e-6, 5e-5), "reward": (1e-6, 5e-5), "ppo": (1e-6, 1e-5)}


@pytest.mark.parametrize("loop", PUBLISHED)
def test_published_models_get_the_fields_values(loop):
    given = OF_LOOP.get(loop, FitConfig())
    low, high = USUAL.get(loop, USUAL["reward"] if loop == "process" else (5e-7, 5e-6))
    whole, adapters = (following(given, loop, start).settled(100) for start in (HUB, ADAPTERS))
    assert low <= whole.optimizer.learning_rate <= high
    assert math.isclose(adapters.optimizer.learning_rate, 10 * whole.optimizer.learning_rate)
    assert adapters.optimizer.learning_rate <= 2e-4 and whole.optimizer.b2 == 0.999
    large = following(given, loop, Start(parameters=LARGE)).settled(100)
    assert (
        values_of(large) == values_of(whole) != values_of(following(given, loop, SMALL).settled(1))
    )


def test_a_head_by_itself_follows_no_model():
    bag, both = {"pooling": "none", "bag": True}, {"pooling": "last", "bag": True}
    cases = [
        ({}, SMALL, "reward"), ({}, HUB, "reward"), (bag, HUB, "head"), (bag, SMALL, "head"),
        ({"trunk": "frozen"}, HUB, "head"), (both, SMALL, "head"), (both, HUB, "reward"),
    ]  # fmt: skip
    for fields, start, loop in cases:
        assert reward_loop(RewardSettings(**fields), start) == loop, fields
    for start in (SMALL, HUB, ADAPTERS):
        rate = following(FitConfig(), "head", start).settled(1).optimizer.learning_rate
        assert rate == HEAD.learning_rate


@pytest.mark.parametrize(
    ("given", "steps_of_epoch", "steps", "warmup"),
    [
        ({"epochs": 2.0}, 10.5, 21, 3),  # 10% of 21, rounded up
        ({"epochs": 1.0}, 0.01, 1, 1),  # fewer rows than a batch: one step
        ({"epochs": 0.1}, 30.0, 3, 1),  # 0.1 x 30 in binary is above 3
        ({}, 411.2, 412, 42),
        ({"steps": 7}, 411.2, 7, 1),
        ({"steps": 0}, 411.2, 0, 0),
        ({"steps": 7, "optimizer": OptimizerConfig(warmup_steps=7)}, 1.0, 7, 7),
        ({"epochs": 1.0, "optimizer": OptimizerConfig(warmup_share=1.0)}, 9.0, 9, 9),
        ({"epochs": 1.0, "optimizer": OptimizerConfig(warmup_share=0.0)}, 9.0, 9, 0),
    ],
)
def test_steps_of_passes_and_of_a_share(given, steps_of_epoch, steps, warmup):
    settled = following(FitConfig(**given), "dpo", HUB).settled(steps_of_epoch)
    assert (settled.steps, settled.epochs) == (steps, None)
    assert settled.optimizer.warmup_steps == warmup
    again = following(settled, "dpo", SMALL).settled(1.0)  # nothing is left that follows a model
    assert again == settled


@pytest.mark.parametrize(
    ("given", "rows", "steps", "batch"),
    [
        (FitConfig(epochs=2.0), 12, 2, 12),  # and not one step of five times all rows
        (FitConfig(), 1, 1, 1),
        (FitConfig(), 64, 1, 64),
        (FitConfig(), 65, 2, 64),
        (FitConfig(epochs=2.0, batch_size=64), 12, 1, 64),  # as was asked for
        (FitConfig(steps=3), 12, 3, 64),
    ],
)
def test_a_batch_of_passes_is_not_larger_than_the_data(given, rows, steps, batch):
    fit = following(given, "dpo", HUB)
    settled = fit.settled(rows / fit.settings.rows)
    assert (settled.steps, settled.batch_size) == (steps, batch)


def test_rounds_count_prompts_and_warm_up_counts_updates():
    given = PPOSettings(prompt_epochs=1.5, update_epochs=3, minibatches=2,
                        optimizer=OptimizerConfig(warmup_share=0.1))  # fmt: skip
    settled = following(given, "ppo", SMALL).settled(1000 / 256)
    assert settled.iterations == math.ceil(1.5 * 1000 / 256) == 6
    assert settled.optimizer.warmup_steps == 4  # 10% of 6 x 3 x 2 updates, rounded up


def test_a_given_value_stays():
    own = OptimizerConfig(learning_rate=0.5, schedule="constant", warmup_steps=0, b2=0.5)
    given = FitConfig(steps=3, batch_size=5, optimizer=own)
    for start in (SMALL, HUB, ADAPTERS):
        assert following(given, "dpo", start).settled(99.0) == given


@pytest.mark.parametrize(
    ("given", "start", "line"),
    [
        (FitConfig(), HUB, "a published model: learning_rate 1e-06, b2 0.999, linear schedule, "
         "warm-up 10%, 1 epoch (412 steps), batches of 64"),
        (FitConfig(), ADAPTERS, "a published model with adapters: learning_rate 1e-05, b2 0.999, "
         "linear schedule, warm-up 10%, 1 epoch (412 steps), batches of 64"),
        (FitConfig(batch_size=8), Start(parameters=LARGE), "a large model: learning_rate 1e-06, "
         "b2 0.999, linear schedule, warm-up 10%, 1 epoch (412 steps)"),
        (FitConfig(epochs=1 / 999), HUB, "a published model: learning_rate 1e-06, b2 0.999, "
         "linear schedule, warm-up 10%, 0.001001 epochs (1 step), batches of 64"),
        (FitConfig(epochs=2.0, optimizer=OptimizerConfig(learning_rate=1.0, warmup_steps=1)),
         SMALL, "a small model: b2 0.99, cosine schedule, 2 epochs (824 steps), batches of 32"),
        (FitConfig(steps=3, batch_size=5, optimizer=OptimizerConfig(
            learning_rate=0.5, schedule="constant", warmup_share=0.0, b2=0.5)), HUB, None),
    ],
)  # fmt: skip
def test_a_line_says_what_was_not_given(given, start, line, capsys):
    following(given, "dpo", start).settled(411.9)
    assert capsys.readouterr().out == ("" if line is None else f"defaults of {line}\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitConfig(steps=3, epochs=1.0), "^steps 3 and epochs 1.0 are both given; set one"),
        (lambda: PPOSettings(iterations=0, prompt_epochs=1.0), r"^ppo\.iterations 0 and ppo\.pro"),
        (lambda: GRPOSettings(iterations=2, prompt_epochs=1.0), r"^grpo\.iterations 2 and grpo\.p"),
        (lambda: OptimizerConfig(warmup_steps=0, warmup_share=0.0), "are both given"),
        (lambda: OptimizerConfig(warmup_share=1.5), r"warmup_share is 1.5; it must lie in"),
        (lambda: OptimizerConfig(warmup_share=math.nan), "warmup_share is nan"),
        (lambda: OptimizerConfig(learning_rate=math.inf), "learning_rate is inf; it must be"),
        (lambda: OptimizerConfig(learning_rate=math.nan), "learning_rate is nan"),
        (lambda: FitConfig(epochs=0.0), "epochs is 0.0; it must be above 0"),
        (lambda: FitConfig(epochs=math.nan), "epochs is nan; it must be a finite number"),
        (lambda: GRPOSettings(prompt_epochs=-1.0), "prompt_epochs is -1.0; it must be"),
        (lambda: following(FitConfig(epochs=1e6), "sft", HUB).settled(3e6), "epochs 1e.06 is"),
        (lambda: FitConfig(steps=2**31), "steps is 2147483648; it must lie in"),
        (lambda: following(GRPOSettings(iterations=10**9, update_epochs=4), "grpo", HUB),
         "4,000,000,000"),
        (lambda: following(FitConfig(optimizer=OptimizerConfig(name="muon")), "sft", HUB),
         "--fit.optimizer.name muon has no usual learning rate for a published model; give --fit"),
        (lambda: RLHFConfig(sft=FitConfig(epochs=1.0)), "give sft.steps, not sft.epochs"),
        (lambda: RLHFConfig(ppo=PPOSettings(prompt_epochs=1.0)), "give ppo.iterations, not ppo.pr"),
    ],
)  # fmt: skip
def test_what_says_two_things_or_nothing_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def longer(loop: str):
    """Settings of two optimizer steps, with a warm-up of three."""
    optimizer = OptimizerConfig(warmup_steps=3)
    if loop not in OF_LOOP:
        return FitConfig(steps=2, optimizer=optimizer)
    sizes = {"iterations": 1, "update_epochs": 1, "minibatches": 2, "optimizer": optimizer}
    return dataclasses.replace(OF_LOOP[loop], **sizes)


@pytest.mark.parametrize("start", [SMALL, HUB])
@pytest.mark.parametrize("loop", [*NEW, "head"])
def test_a_schedule_shorter_than_its_warm_up_is_refused_by_its_flag(loop, start):
    section = {"sft": "fit", "head": "reward.fit", "ppo": "ppo", "grpo": "grpo"}
    flag = section.get(loop, f"{loop}.fit")
    said = rf"^--{flag}\.optimizer\.warmup_steps 3 is longer than the whole schedule of 2 optimizer"
    with pytest.raises(UserError, match=said):  # before the data are read
        following(longer(loop), loop, start)
    if isinstance(longer(loop), FitConfig):  # and once they are known
        pending = following(FitConfig(epochs=1.0, optimizer=longer(loop).optimizer), loop, start)
        with pytest.raises(UserError, match=said):
            pending.settled(2.0)


@pytest.mark.parametrize("start", [SMALL, HUB])
@pytest.mark.parametrize("loop", [*NEW, "head"])
def test_a_default_warm_up_is_cut_to_a_short_schedule(loop, start):
    given = dataclasses.replace(longer(loop), optimizer=OptimizerConfig())
    settled = following(given, loop, start).settled(4.0, announce=False)
    assert settled.optimizer.warmup_steps <= 2


@pytest.mark.parametrize("loop", ["sft", "reward", "preferred", "dpo_human", "ppo", "unpenalised"])
def test_the_main_job_refuses_it_before_anything_is_written(loop, tmp_path):
    config = RLHFConfig()
    section = getattr(config, loop)
    if loop in ("reward", "dpo_human"):
        flag, changed = f"{loop}.fit", dataclasses.replace(section, fit=longer("sft"))
    elif loop in ("ppo", "unpenalised"):
        fields = {
            f: getattr(longer("ppo"), f) for f in ("iterations", "update_epochs", "minibatches")
        }
        fields["optimizer"] = longer("ppo").optimizer
        flag, changed = loop, dataclasses.replace(section, **fields)
    else:
        flag, changed = loop, longer("sft")
    if loop == "reward":
        changed = dataclasses.replace(changed, fit=dataclasses.replace(changed.fit, batch_size=128))
    with pytest.raises(UserError, match=rf"^--{flag}\.optimizer\.warmup_steps 3 is longer"):
        rlhf.run(dataclasses.replace(config, **{loop: changed}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_main_job_says_all_its_values_itself():
    config = RLHFConfig()
    assert rlhf.with_loops(config) == config
    assert config.reward.bag and config.reward.pooling == "none"


def test_an_optimizer_without_a_command_is_that_of_a_small_model():
    found = filled_optimizer(OptimizerConfig(warmup_share=0.1), 30)
    assert (found.learning_rate, found.schedule, found.b2) == (1e-3, "cosine", 0.99)
    assert (found.warmup_steps, found.warmup_share) == (3, None)
    rate = make_schedule(learning_rate=1.0, schedule="linear", warmup_steps=3, total_steps=30)
    assert [round(float(rate(step)), 6) for step in (0, 2, 3, 30)] == [0.333333, 1.0, 1.0, 0.0]


def rate_in(text: str, number: float) -> bool:
    return any(float(found) == number for found in re.findall(r"\d[\d.]*(?:e-?\d+)?\b", text))


@pytest.mark.parametrize(
    "command", ["sft", "dpo", "kto", "reward", "ppo", "grpo", "online", "distill"]
)
def test_help_says_the_values_of_the_tables(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "4000")
    with pytest.raises(SystemExit):
        dispatch([command, "--help", "all"])
    text = " ".join(capsys.readouterr().out.split())
    for loop in (command, *(("process",) if command == "reward" else ())):
        for values in (NEW[loop], PUBLISHED[loop]):
            numbers = (values.learning_rate, values.adapter_rate, values.b2, values.batch_size)
            for number in filter(None, (*numbers, values.steps)):
                assert rate_in(text, number), (loop, number)
    assert "10 million parameters" in text and LARGE == 10_000_000
