"""Every loss as a whole training step: model, loss, gradient, clipping, AdamW."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks.losses.material import RANKED, ROWS, Material
from jaxalign import objectives
from jaxalign.losses import (
    DISTILLATION_LOSSES,
    DPO,
    GROUP_LOSSES,
    ONLINE_LOSSES,
    PAIR_LOSSES,
    UNPAIRED_LOSSES,
)
from jaxalign.losses.bco import no_shift
from jaxalign.losses.group_methods import with_parts
from jaxalign.models.functions import (
    text_decisions,
    text_divergences,
    text_logps,
    text_logps_and_collisions,
    text_policy,
    text_scores,
    text_step_scores,
)
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import initial_state, train_step

MODIFIERS = {
    "dpo, label smoothing": {"loss": DPO.given(label_smoothing=0.1)},
    "dpo, ld_alpha": {"loss": DPO, "ld_alpha": 0.5},
    "dpo, wpo": {"loss": DPO, "wpo": True},
}
PPO = {"clip_range": 0.2, "value_coef": 0.1, "value_clip_range": 0.2}
ENTROPY = {"entropy_coef": 0.01}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A loss with the model and the batch of one step.

    name: of the loss.
    kind: what a row of its batch is.
    texts: sequences that the model reads in a step.
    loss_fn, params, batch: what `train_step` takes.
    statistics: at the start, of a loss with a running mean.
    """

    name: str
    kind: str
    texts: int
    loss_fn: Callable
    params: Any
    batch: Any
    statistics: Any = None


def cases(material: Material) -> list[Case]:
    """All losses, plain DPO first."""
    makers = (pairs, labelled, online, group, with_values, from_texts, rewards)
    return [case for make in makers for case in make(material)]


def pairs(material: Material) -> Iterator[Case]:
    """Losses on pairs of a file, and the modifiers."""
    logps, params, batch = text_logps(material.model), material.params, material.pairs
    for name, loss in PAIR_LOSSES.items():
        yield Case(
            name=name,
            kind="pair and a third response" if loss.needs("gold_logps") else "pair",
            texts=ROWS * (3 if loss.needs("gold_logps") else 2),
            loss_fn=objectives.paired(logps, loss),
            params=params,
            batch=batch,
            statistics=no_shift() if loss.needs("shift") else None,
        )
    for name, modifier in MODIFIERS.items():
        read = text_logps_and_collisions(material.model) if "wpo" in modifier else logps
        loss_fn = objectives.paired(read, **modifier)
        yield Case(
            name=name, kind="pair", texts=2 * ROWS, loss_fn=loss_fn, params=params, batch=batch
        )


def labelled(material: Material) -> Iterator[Case]:
    """Losses on single labelled responses."""
    logps = text_logps(material.model)
    for name, loss in UNPAIRED_LOSSES.items():
        kind = "labelled response"
        yield Case(
            name=name,
            kind=f"{kind} and a mismatched one" if loss.needs("kl") else kind,
            texts=ROWS * (2 if loss.needs("kl") else 1),
            loss_fn=objectives.unpaired(logps, loss),
            params=material.params,
            batch=material.labelled,
            statistics=no_shift() if loss.needs("shift") else None,
        )


def online(material: Material) -> Iterator[Case]:
    """Losses on fresh samples; the sampling is no part of the step."""
    for name, loss in ONLINE_LOSSES.items():
        both = loss.needs("policy")
        yield Case(
            name=name,
            kind="pair of samples" if both else "sample",
            texts=ROWS * (2 if both else 1),
            loss_fn=objectives.online(text_logps(material.model), loss),
            params=material.params,
            batch=material.online,
        )


def group(material: Material) -> Iterator[Case]:
    """Policy gradients without values."""
    evaluate, batch = text_decisions(material.model), material.responses
    given = {name: (name, {}) for name in GROUP_LOSSES}
    for name, (loss, changes) in (given | {"grpo, entropy bonus": ("grpo", ENTROPY)}).items():
        method = with_parts(GROUP_LOSSES[loss], **changes)
        loss_fn = objectives.group_policy_gradient(evaluate, method, length=material.length)
        advantages = material.experience.advantages if method.per_token else batch.advantages
        yield Case(
            name=name,
            kind="sample",
            texts=ROWS,
            loss_fn=loss_fn,
            params=material.params,
            batch=dataclasses.replace(batch, advantages=advantages),
        )


def with_values(material: Material) -> Iterator[Case]:
    """PPO, whose model has a value head."""
    model, params = material.network("logits", "value")
    for name, bonus in (("ppo", {}), ("ppo, entropy bonus", ENTROPY)):
        yield Case(
            name=name,
            kind="sample with values",
            texts=ROWS,
            loss_fn=objectives.ppo(text_policy(model), **PPO, **bonus),
            params=params,
            batch=material.experience,
        )


def from_texts(material: Material) -> Iterator[Case]:
    """Imitation: of texts, or of a teacher's distributions."""
    loss_fn, batch = objectives.sft(text_logps(material.model)), material.pairs.chosen
    params = material.params
    yield Case(name="sft", kind="text", texts=ROWS, loss_fn=loss_fn, params=params, batch=batch)
    for name, loss in DISTILLATION_LOSSES.items():
        yield Case(
            name=f"distillation, {name}",
            kind="text with teacher logits",
            texts=ROWS,
            loss_fn=objectives.distillation(text_divergences(material.model), loss),
            params=params,
            batch=material.taught,
        )


def rewards(material: Material) -> Iterator[Case]:
    """Reward models: no logits, which are most of the work of the others."""
    model, params = material.network("score")
    scores = text_scores(model)
    yield Case(
        name="reward (bradley_terry)",
        kind="pair, scores only",
        texts=2 * ROWS,
        loss_fn=objectives.reward(scores),
        params=params,
        batch=material.comparisons,
    )
    yield Case(
        name="ranking (plackett_luce)",
        kind=f"{RANKED} responses, scores only",
        texts=RANKED * ROWS,
        loss_fn=objectives.ranking(scores),
        params=params,
        batch=material.rankings,
    )
    model, params = material.network("step_score")
    yield Case(
        name="process_reward",
        kind="solution, scores only",
        texts=ROWS,
        loss_fn=objectives.process_reward(text_step_scores(model)),
        params=params,
        batch=material.steps,
    )


def compiled(cases: list[Case]) -> list[Callable[[], Any]]:
    """For each a function of no arguments that takes the same jitted step again."""
    optimizer = make_optimizer(learning_rate=3e-4, total_steps=1000)
    states = {}  # one for each model: the moments of sixty would fill the memory
    for case in cases:
        key = id(case.params)
        if key not in states:
            states[key] = initial_state(case.params, optimizer, jax.random.key(0))
    runs = []
    for case in cases:
        step = functools.partial(
            train_step,
            loss_fn=case.loss_fn,
            optimizer=optimizer,
            track=None if case.statistics is None else objectives.shift_after_batch,
        )
        state = dataclasses.replace(states[id(case.params)], statistics=case.statistics)
        runs.append(functools.partial(jax.jit(step), state, case.batch))
    return runs
