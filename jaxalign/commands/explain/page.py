"""`jaxalign explain`: the loss of one batch, token by token, as an HTML page."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxalign.commands.explain.responses import labelled_responses, pairs, texts
from jaxalign.commands.explain.run_directory import of_run
from jaxalign.commands.explain.samples import decisions, groups
from jaxalign.config.explain import ExplainConfig
from jaxalign.data.templates import fixed_template_date
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.explanation import Explanation, Sum
from jaxalign.numerics.types import Tree
from jaxalign.recipes.inputs import started
from jaxalign.recipes.optimizer import optimizer_of
from jaxalign.report.explanation import explanation_page
from jaxalign.system.console import output
from jaxalign.system.files import write_atomically
from jaxalign.train.checks import checked, truncated_fields, watched
from jaxalign.train.step import train_step

PREPARE = {"sft": texts, "dpo": pairs, "kto": labelled_responses, "ppo": decisions, "grpo": groups}
ROUNDING = 1e-5  # of float32 sums in another order, relative to the loss or to 1


def run(config: ExplainConfig) -> Explanation:
    """Explanation of one batch, written as a page; sums and checks are printed.

    Args:
      config: of a run (its models, data and settings are read from there), or of its own.
    """
    if not config.run:
        return explain_batch(config)
    config = of_run(config)
    with fixed_template_date(
        started(Path(config.run))
    ):  # templates are told the date that the run was told
        return explain_batch(config)


def explain_batch(config: ExplainConfig) -> Explanation:
    """Explanation of the batch of a configuration whose run, if any, has been read."""
    prepared = PREPARE[config.method](config)
    objective, learner = prepared.objective, prepared.objective.learner(prepared.policy)
    optimizer = optimizer_of(prepared.optimizer, max(config.updates, 1))
    step = jax.jit(learner.step(train_step, optimizer))
    state = learner.state(jax.random.key(config.seed), optimizer)
    for _ in range(config.updates):
        state, _ = step(state, prepared.batch)
    explanation = prepared.explanation(state)
    result = step(state, prepared.batch)
    of_step = Sum(name="loss of the step", loss=float(result[1]["loss"]), table=explanation.loss)
    explanation = dataclasses.replace(explanation, sums=[*explanation.sums, of_step])
    findings = []
    if config.check:
        loss = watched(objective.make_loss(prepared.watch(objective.read)))
        watched_step = dataclasses.replace(learner, loss_fn=loss).step(train_step, optimizer)
        findings = check(watched_step, state, prepared.batch, result)
    finish(config, explanation, prepared.policy.tokenizer, findings)
    return explanation


def check(
    watched_step: Callable[..., Any], state: Tree, batch: Tree, result: Any
) -> list[tuple[str, str | None]]:
    """Names of the checks of a training step, each with its finding: None where all is well.

    The page shows the numbers of the plain step, whether it is checked or not. The watched one is
    another program, which the compiler fuses in its own way: it may differ by rounding.
    """
    message, watched_result = checked(watched_step, state, batch)
    loss, watched_loss = (float(metrics["loss"]) for _, metrics in (result, watched_result))
    apart = abs(loss - watched_loss) > ROUNDING * max(1.0, abs(loss))
    other = f"loss {watched_loss:.9g} under checks, {loss:.9g} without" if apart else None
    return [
        ("NaN, empty mask, ratio overflow", message),
        ("dtypes that truncate", ", ".join(truncated_fields(batch)) or None),
        ("a loss that changes under checks", other),
    ]


def finish(
    config: ExplainConfig, explanation: Explanation, tokenizer: Tokenizer, findings: Any
) -> None:
    """Write the page; print sums, notes, findings and where the page lies."""
    page = explanation_page(config.method, explanation, tokenizer, findings)
    write_atomically(Path(config.output), page.encode())
    for total in explanation.sums:
        verdict = "equal" if total.agrees else "DIFFERENT"
        output(
            f"{total.name}: {total.loss:.7g}, from the table {total.table:.7g}: {verdict}",
            needed=False,
        )
    for note in explanation.notes:
        output(note, needed=False)
    for name, found in findings:
        output(f"check: {name}: {found or 'nothing found'}", needed=False)
    output(config.output, needed=False)
