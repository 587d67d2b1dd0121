"""The main job, `jaxalign rlhf`: from human ratings to aligned policies and their comparison."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.commands.rlhf.comparison import UNPENALISED, Comparison
from jaxalign.commands.rlhf.ratings import (
    comparison_groups,
    first_tokens,
    human_pairs,
    read_corpus,
    spread,
)
from jaxalign.commands.rlhf.samples import EvaluationSampler
from jaxalign.config.defaults import Start, following, reward_loop
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.data.chat import TokenIds, TokenRow, token_row
from jaxalign.evaluation.tables import METHOD_COLUMNS, SCORER_COLUMNS, rich_table
from jaxalign.recipes.adapters import with_adapters, without_adapters
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.inputs import inputs_of, rows_digest
from jaxalign.recipes.ppo import train_ppo
from jaxalign.recipes.preferences import train_dpo
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward import train_reward
from jaxalign.recipes.run import Run, keep_inputs, open_run
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.sft import train_sft
from jaxalign.recipes.text_batches import TextBatches, bucketed_batches
from jaxalign.recipes.text_models import TextModel, load_text_model, new_text_model, save_text_model
from jaxalign.report import write_report
from jaxalign.system.console import show as show_table
from jaxalign.system.console import tell
from jaxalign.system.files import (
    exists,
    make_directory,
    read_json,
    replaced_directory,
    write_atomically,
    writing,
)
from jaxalign.train.step import TrainState

Pair = tuple[TokenRow, TokenRow]  # chosen, rejected
TABLE_WIDTH = 140  # characters; a narrower terminal wraps the lines of the table


class Job:
    """Stages of the main job in order, with models in `models` and seconds in `timing`."""

    def __init__(self, config: RLHFConfig, run: Run):
        self.config, self.run = config, run
        self.base: TextModel | None = None
        self.models: dict[str, TextModel] = {}
        self.timing: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, stage: str):
        """Context that prints a stage's name and adds its seconds to those of earlier runs."""
        tell(f"== {stage}")
        path = self.run.directory / "timing.json"
        start = time.monotonic()
        yield
        self.timing = read_json(path, dict[str, float]) if exists(path) else {}
        self.timing[stage] = self.timing.get(stage, 0.0) + time.monotonic() - start
        write_atomically(path, json.dumps(self.timing, indent=2).encode())

    def prepare(self) -> None:
        """Load the pretrained model, the data and the tokenizer."""
        config = self.config
        with self.timed("data"):
            if config.init:
                self.base = load_text_model(config.init, "init", head="logits", place=config.place)
            self.corpus = read_corpus(config, self.base.tokenizer if self.base else None)
            rated = self.corpus.rated, self.corpus.judge, self.corpus.evaluation
            inputs = inputs_of(
                models={"init": self.base},
                tokenizer=self.corpus.tokenizer,
                data=self.corpus.sft_rows,
            )
            keep_inputs(self.run.directory, inputs | {"ratings": rows_digest(rated)})

    def sft(self) -> None:
        """Supervised fine-tuning of the model, new or pretrained, on the policy's texts."""
        config, corpus, updates = self.config, self.corpus, self.config.sft.updates
        with self.timed("sft"):
            start = self.base or new_text_model(
                config.model, corpus.tokenizer, self.run.key("init"), max_length=config.max_length
            )
            held_out = corpus.token_rows(
                spread(corpus.validation.texts, config.evaluation.perplexity_texts)
            )
            self._keep(
                "sft",
                train_sft(
                    self.run,
                    "sft",
                    with_adapters(start, "", config.lora, self.run.key("lora")),
                    self._batches(corpus.sft_rows, config.sft),
                    settings=dataclasses.replace(config.sft, eval_every=max(updates // 5, 1)),
                    evaluation_rows=held_out,
                ),
            )

    def reward(self) -> None:
        """Reward model trained on soft preferences of all raters."""
        config, corpus = self.config, self.corpus
        with self.timed("reward"):
            compared = config.comparisons
            groups = comparison_groups(
                corpus.rated,
                groups=compared.groups,
                group_size=compared.group_size,
                same_rater_share=compared.same_rater_share,
                seed=config.seed,
            )
            model, self.reward_deviation = train_reward(
                self.run,
                "reward",
                self.models["sft"],
                corpus.rows,
                groups=groups,
                settings=config.reward,
            )
            self._keep("reward", model)

    def compare(self) -> None:
        """Set up the comparison: judges, prompts, samples of the SFT policy."""
        with self.timed("evaluation"):
            self.comparison = Comparison(
                self.config, self.run, self.corpus, self.models, base=self.base
            )

    def preferred(self) -> None:
        """Supervised fine-tuning on the preferred sides of the human pairs."""
        with self.timed("preferred_ft"):
            settings, start = self.config.preferred, self.models["sft"]
            batches = self._batches([chosen for chosen, _ in self._human_pairs()], settings)
            model = train_sft(self.run, "preferred_ft", start, batches, settings=settings)
            self._keep("preferred_ft", model)

    def dpo_human(self) -> None:
        """DPO on the human pairs."""
        with self.timed("dpo_human"):
            self._dpo("dpo_human", self._human_pairs(), self.config.dpo_human)

    def dpo_samples(self) -> None:
        """DPO on samples of the SFT policy: the best against the worst by the reward model."""
        with self.timed("dpo_samples"):
            self._dpo("dpo_samples", self._sampled_pairs(), self.config.dpo_samples)

    def ppo(self, name: str, settings: PPOSettings) -> None:
        """PPO against the reward model."""
        with self.timed(name):
            task = TextTask(
                prompts=Prompts(ids=self._prompts()),
                reward=self.models["reward"],
                temperature=self.config.temperature,
                max_new_tokens=self.comparison.setup.max_new_tokens,
            )
            model = train_ppo(
                self.run,
                name,
                self.models["sft"],
                task,
                settings=settings,
                evaluation=self._curve(name, settings.total_iterations),
            )
            self._keep(name, model)

    def results(self) -> dict:
        """Results of the comparison, written to `results.json` and `samples.json`."""
        with self.timed("evaluation"):
            results, samples = self.comparison.results(self.reward_deviation)
        results |= {"timing": self.timing}
        self._write("results.json", results)
        self._write("samples.json", samples)
        return results

    def _batches(self, rows: list[TokenRow], settings: FitConfig) -> TextBatches:
        return bucketed_batches(
            rows,
            settings.rows,
            buckets=self.config.length_buckets,
            pad_id=self.corpus.tokenizer.pad_id,
            seed=self.config.seed,
        )

    def _dpo(self, name: str, pairs: list[Pair], settings: DPOSettings) -> None:
        model = train_dpo(
            self.run,
            name,
            self.models["sft"],
            pairs,
            settings=settings,
            temperature=self.config.temperature,
            evaluation=self._curve(name, settings.fit.updates),
        )
        self._keep(name, model)

    def _curve(self, name: str, steps: int) -> Evaluation:
        """Evaluation at the points of a method's learning curve, over this number of steps."""
        every = max(steps // self.config.evaluation.curve_points, 1)

        def point(state: TrainState) -> dict[str, float]:
            return self.comparison.point(name, state.all_params)

        return Evaluation(metrics=point, every=every, sign="kl")

    def _prompts(self) -> Sequence[TokenIds]:
        """Prompts from the beginnings of the policy's texts."""
        return first_tokens(self.corpus.policy_rows, self.config.prompt_tokens)

    def _human_pairs(self) -> list[Pair]:
        pairs, rows = human_pairs(self.corpus, self.config), self.corpus.rows
        return [(rows[i], rows[j]) for i, j in zip(pairs.chosen, pairs.rejected, strict=True)]

    def _sampled_pairs(self) -> list[Pair]:
        config, sft = self.config, self.models["sft"]
        prompts = self._prompts()
        order = np.random.default_rng(config.seed).permutation(len(prompts))
        prompts = [prompts[i] for i in order[: config.sampled_prompts]]
        sampler = EvaluationSampler(
            self.run, dataclasses.replace(self.comparison.setup, prompts=prompts)
        )
        drawn = sampler(sft.params, self.run.key("pairs"), samples=config.samples_per_prompt)
        scores = drawn.reward_scores - config.unfinished_penalty * ~drawn.ended
        best, worst = scores.argmax(axis=1), scores.argmin(axis=1)

        def row(i: int, k: int) -> TokenRow:
            response = drawn.responses[i][k] + drawn.ends[i][k]
            return token_row((prompts[i], False), (response, True))

        return [(row(i, best[i]), row(i, worst[i])) for i in range(len(prompts))]

    def _keep(self, name: str, model: TextModel) -> None:
        self.models[name] = model
        folder = self.run.directory / "models" / name
        make_directory(folder.parent)
        with replaced_directory(folder) as aside:
            save_text_model(aside, without_adapters(model))

    def _write(self, name: str, content: Any) -> None:
        write_atomically(self.run.directory / name, json.dumps(content, indent=1).encode())


def with_loops(config: RLHFConfig) -> RLHFConfig:
    """The configuration with all training loops filled in, whatever the model: the job fixes what
    it compares.

    Raises:
      UserError: one of them is shorter than its warm-up.
    """
    start = Start()

    def filled(given: Any, loop: str, flag: str):
        return following(given, loop, start, flag=flag).settled(1, announce=False)

    def with_fit(settings: Any, loop: str, flag: str):
        return dataclasses.replace(settings, fit=filled(settings.fit, loop, f"{flag}.fit"))

    return dataclasses.replace(
        config,
        sft=filled(config.sft, "sft", "sft"),
        preferred=filled(config.preferred, "sft", "preferred"),
        reward=with_fit(config.reward, reward_loop(config.reward, start), "reward"),
        dpo_human=with_fit(config.dpo_human, "dpo", "dpo_human"),
        dpo_samples=with_fit(config.dpo_samples, "dpo", "dpo_samples"),
        ppo=filled(config.ppo, "ppo", "ppo"),
        unpenalised=filled(config.unpenalised, "ppo", "unpenalised"),
    )


def run(config: RLHFConfig, directory: Path) -> dict:
    """All stages, from the ratings to `report.html`; the same command again resumes them.

    Returns:
      What `results.json` holds.
    """
    config = with_loops(config)
    with open_run(directory, config, config.place, config.seed) as opened:
        job = Job(config, opened)
        for stage in (job.prepare, job.sft, job.reward, job.compare):
            stage()
        for stage in (job.preferred, job.dpo_human, job.dpo_samples):
            stage()
        job.ppo("ppo", config.ppo)
        if config.unpenalised.total_iterations:
            job.ppo(UNPENALISED, config.unpenalised)
        results = job.results()
    show(results)
    with job.timed("report"), writing(directory / "report.html"):
        page = write_report(directory)
    tell(f"report: {page}")
    return results


def show(results: dict) -> None:
    """Print the two tables of results."""
    scorers = rich_table(results["reward_model"], SCORER_COLUMNS, title="Scorers on held-out texts")
    policies = rich_table(results["rows"], METHOD_COLUMNS, title="Policies on held-out prompts")
    for table in (scorers, policies):
        show_table(table, width=TABLE_WIDTH)
