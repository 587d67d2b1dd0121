"""The main job: people's ratings in, aligned policies and an honest comparison out."""

import contextlib
import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxalign.config import DPOSettings, PPOSettings, RLHFConfig
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.preferences import cross_block_pairs
from jaxalign.evaluation.agreement import human_ceiling, scorer_agreement, scorer_row
from jaxalign.evaluation.best_of_n import best_of_n_kl, best_of_n_mean
from jaxalign.evaluation.calibration import preference_calibration
from jaxalign.evaluation.judges import RidgeJudge, rule_based_scorer
from jaxalign.evaluation.tables import METHOD_COLUMNS, SCORER_COLUMNS, rich_table
from jaxalign.evaluation.win_rates import wins
from jaxalign.report import write_report
from jaxalign.stages.human_ratings import comparison_groups, human_pairs, read_corpus
from jaxalign.stages.measuring import Panel, Sampled, Sampler, result_row
from jaxalign.stages.run import Run, open_run
from jaxalign.stages.text_models import TextModel, new_text_model, save_text_model
from jaxalign.stages.text_ppo import train_ppo
from jaxalign.stages.training import (
    perplexity,
    score_rows,
    train_dpo,
    train_reward,
    train_sft,
)
from jaxalign.train.checkpoints import write_atomically
from jaxalign.train.metrics import read_metrics


class Job:
    """The stages of one main job, in order; each leaves its model in `models` and its time in
    `timing`.
    """

    def __init__(self, config: RLHFConfig, run: Run):
        self.config, self.run = config, run
        self.models: dict[str, TextModel] = {}
        self.timing: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, stage: str):
        """Announce a stage and add up its seconds, over resumed runs too."""
        print(f"== {stage}", flush=True)
        path = self.run.directory / "timing.json"
        start = time.monotonic()
        yield
        self.timing = json.loads(path.read_text()) if path.exists() else {}
        self.timing[stage] = self.timing.get(stage, 0.0) + time.monotonic() - start
        write_atomically(path, json.dumps(self.timing, indent=2).encode())

    def prepare(self) -> None:
        """Data, vocabulary and judges."""
        with self.timed("data"):
            self.corpus = read_corpus(self.config)
            judge = self.corpus.judge
            self.judge = RidgeJudge().fit(judge.texts, judge.means)
            self.rule = rule_based_scorer()

    def sft(self) -> None:
        """A new model learns to write the policy's texts."""
        config, corpus = self.config, self.corpus
        with self.timed("sft"):
            new = new_text_model(
                config.model, corpus.tokenizer, config.max_length, ("logits",), self.run.key("init")
            )
            held_out = corpus.token_rows(corpus.validation.texts)
            self._keep(
                "sft",
                train_sft(
                    self.run,
                    "sft",
                    new,
                    corpus.sft_rows,
                    config.sft,
                    evaluation_rows=held_out,
                    buckets=config.length_buckets,
                ),
            )

    def reward(self) -> None:
        """The reward model, from soft preferences of all raters."""
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
                self.run, "reward", self.models["sft"], corpus.rows, groups, config.reward
            )
            self._keep("reward", model)

    def open_panel(self) -> None:
        """The judges and prompts that every policy meets."""
        config, corpus = self.config, self.corpus
        prompts = corpus.prompts(corpus.evaluation.texts, config.prompt_tokens)
        order = np.random.default_rng(0).permutation(len(prompts))[: config.evaluation.prompts]
        self.panel = Panel(
            prompts=[prompts[i] for i in order],
            judge=self.judge.scores,
            rule=self.rule,
            reward=self.models["reward"],
            reference=self.models["sft"],
            training=[row.tokens[1:].tolist() for row in corpus.sft_rows],
            temperature=config.temperature,
            max_new_tokens=config.max_length - 1 - config.prompt_tokens[1],
            rows=config.evaluation.rows,
        )
        self.sampler = Sampler(self.run, self.panel)
        with self.timed("evaluation"):
            self.baseline = self.sampler(self.models["sft"].params, self.run.key("evaluation/sft"))

    def preferred(self) -> None:
        """Supervised fine-tuning on the preferred sides of the human pairs."""
        with self.timed("preferred_ft"):
            chosen, _ = self._human_rows()
            model = train_sft(
                self.run,
                "preferred_ft",
                self.models["sft"],
                chosen,
                self.config.preferred,
                buckets=self.config.length_buckets,
            )
            self._keep("preferred_ft", model)

    def dpo_human(self) -> None:
        """DPO on the human pairs."""
        with self.timed("dpo_human"):
            chosen, rejected = self._human_rows()
            self._dpo("dpo_human", chosen, rejected, self.config.dpo_human)

    def dpo_samples(self) -> None:
        """DPO on samples of the SFT policy, the best against the worst by the reward model."""
        with self.timed("dpo_samples"):
            chosen, rejected = self._sampled_rows()
            self._dpo("dpo_samples", chosen, rejected, self.config.dpo_samples)

    def ppo(self, name: str, settings: PPOSettings) -> None:
        """PPO against the reward model."""
        config, corpus = self.config, self.corpus
        with self.timed(name):
            model = train_ppo(
                self.run,
                name,
                self.models["sft"],
                self.models["reward"],
                corpus.prompts(corpus.policy.texts, config.prompt_tokens),
                settings,
                temperature=config.temperature,
                max_new_tokens=self.panel.max_new_tokens,
                evaluate=functools.partial(self.point, name),
                evaluate_every=max(settings.iterations // config.evaluation.curve_points, 1),
            )
            self._keep(name, model)

    def point(self, method: str, params) -> dict[str, float]:
        """One point of a method's curve, on the first of the held-out prompts."""
        number = self.config.evaluation.curve_prompts
        sampled = self.sampler(params, self.run.key(f"curve/{method}"), prompts=number)
        row = result_row(method, sampled, first(self.baseline, number), self.panel)
        names = ("kl", "reward_score", "judge_score", "win_rate", "distinct_2", "sample_perplexity")
        return {name: row[name] for name in (*names, "length")}

    def evaluate(self) -> dict:
        """All that the report shows."""
        with self.timed("evaluation"):
            rows, sampled = self._result_rows()
            best, best_row, chosen = self._best_of_n()
        results = {
            "title": "RLHF and DPO on human ratings of movie reviews",
            "rows": [*rows, best_row],
            "reward_model": self._reward_rows(),
            "calibration": self._calibration(),
            "curves": self._curves(),
            "best_of_n": best,
            "timing": self.timing,
            "notes": self._notes(),
        }
        self._write("results.json", results)
        self._write("samples.json", self._shown(sampled | {best_row["method"]: chosen}))
        return results

    def _result_rows(self):
        """A row for each policy, SFT first, then SFT against itself."""
        held_out = self.corpus.token_rows(self.corpus.evaluation.texts)
        rows, sampled = [], {"SFT": self.baseline}
        for method, name in METHODS.items():
            if name not in self.models:
                continue
            policy = dataclasses.replace(self.models["sft"], params=self._policy_params(name))
            if method != "SFT":
                key = self.run.key(f"evaluation/{method}")
                sampled[method] = self.sampler(policy.params, key)
            row = result_row(method, sampled[method], self.baseline, self.panel)
            rows.append(row | {"perplexity": perplexity(self.run, policy, held_out)})
        rows[0] |= dict.fromkeys(WIN_RATES)
        control = self.sampler(self.models["sft"].params, self.run.key("evaluation/control"))
        rows.insert(1, result_row("SFT again (control)", control, self.baseline, self.panel))
        return rows, sampled

    def _best_of_n(self):
        """The curve over n, the table row of the largest n, and its samples."""
        settings = self.config.evaluation
        n, number = settings.best_of, settings.best_of_prompts
        key = self.run.key("evaluation/best_of_n")
        pool = self.sampler(self.models["sft"].params, key, samples=n, prompts=number)
        baseline = first(self.baseline, number)
        won = wins_of_each(pool.judge_scores, baseline.judge_scores)
        curve = []
        for size in [2**power for power in range(n.bit_length()) if 2**power <= n]:
            means = {
                name: float(best_of_n_mean(pool.reward_scores, n=size, values=values).mean())
                for name, values in (
                    ("reward_score", pool.reward_scores),
                    ("judge_score", pool.judge_scores),
                    ("win_rate", won),
                )
            }
            curve.append({"n": size, "kl": float(best_of_n_kl(size)), **means})
        chosen = best(pool)
        row = result_row(f"best of {n}", chosen, baseline, self.panel)
        row |= {"kl": float(best_of_n_kl(n)), "kl_estimate": None, "kl_per_token": None}
        return curve, row, chosen

    def _reward_rows(self) -> list[dict]:
        """The reward model beside its baselines, on texts that none of them saw."""
        held_out, rated = self.corpus.evaluation, self.corpus.rated
        same_data = RidgeJudge().fit(rated.texts, rated.means)
        rows = self.corpus.token_rows(held_out.texts)
        centre = float(np.median(score_rows(self.run, self.models["reward"], self.corpus.rows)))
        scorers = {
            "reward model": (score_rows(self.run, self.models["reward"], rows), centre),
            "bag-of-words ridge, same texts": (same_data.scores(held_out.texts), 0.0),
            "rule-based scorer (second judge)": (self.rule(held_out.texts), 0.0),
            "judge (ridge on its own texts)": (self.judge.scores(held_out.texts), 0.0),
        }
        table = [
            scorer_row(
                name, scorer_agreement(scores, held_out.means, blocks=held_out.block, cut=cut)
            )
            for name, (scores, cut) in scorers.items()
        ]
        people = human_ceiling(held_out.ratings, held_out.rated, blocks=held_out.block)
        return [*table, scorer_row("one person against the rest", people)]

    def _calibration(self) -> list[dict]:
        """How often single people agree with the reward model, over its own probability."""
        held_out = self.corpus.evaluation
        pairs = cross_block_pairs(held_out, CALIBRATION_PAIRS, self.config.seed)
        rows = self.corpus.token_rows(held_out.texts)
        scores = self.reward_deviation * score_rows(self.run, self.models["reward"], rows)
        differences = scores[pairs.chosen] - scores[pairs.rejected]
        return preference_calibration(differences, np.ones(len(pairs)))

    def _curves(self) -> list[dict]:
        """The points that were measured along training."""
        titles = {name: method for method, name in METHODS.items()} | {
            UNPENALISED: "PPO without KL price"
        }
        return [
            {
                "method": titles[line["stage"]],
                **{k: v for k, v in line.items() if k not in ("stage", "time")},
            }
            for line in read_metrics(self.run.directory)
            if line["stage"] in titles and "judge_score" in line
        ]

    def _notes(self) -> list[str]:
        settings = self.config.evaluation
        return [
            f"{len(self.panel.prompts)} held-out prompts of {self.config.prompt_tokens[0]} to "
            f"{self.config.prompt_tokens[1]} tokens; best of {settings.best_of} on the first "
            f"{settings.best_of_prompts} of them.",
            f"Every policy samples at temperature {self.config.temperature:g}; its KL is that of "
            "the distribution it samples from.",
            "The judge is a ridge regression of human ratings on texts that no policy and no "
            "reward model saw. It judges sentiment, not grammar: read length, variety and "
            "perplexity beside it.",
            "The KL of best-of-N is the analytic bound ln n - (n - 1) / n.",
        ]

    def _shown(self, sampled: dict[str, Sampled]) -> list[dict]:
        """Samples of all methods side by side, of the first prompts."""
        number = min(self.config.evaluation.shown, *(len(s.texts) for s in sampled.values()))
        decode = self.corpus.tokenizer.decode
        return [
            {
                "prompt": decode(self.panel.prompts[i]),
                "responses": {
                    method: {
                        "text": s.texts[i][0].removeprefix(decode(self.panel.prompts[i])),
                        "judge_score": float(s.judge_scores[i, 0]),
                        "reward_score": float(s.reward_scores[i, 0]),
                    }
                    for method, s in sampled.items()
                },
            }
            for i in range(number)
        ]

    def _dpo(self, name: str, chosen, rejected, settings: DPOSettings) -> None:
        every = max(settings.fit.steps // self.config.evaluation.curve_points, 1)
        model = train_dpo(
            self.run,
            name,
            self.models["sft"],
            chosen,
            rejected,
            settings,
            temperature=self.config.temperature,
            evaluate=functools.partial(self.point, name),
            evaluate_every=every,
        )
        self._keep(name, model)

    def _human_rows(self) -> tuple[list[TokenRow], list[TokenRow]]:
        pairs, rows = human_pairs(self.corpus, self.config), self.corpus.rows
        return [rows[i] for i in pairs.chosen], [rows[i] for i in pairs.rejected]

    def _sampled_rows(self) -> tuple[list[TokenRow], list[TokenRow]]:
        config, sft = self.config, self.models["sft"]
        prompts = self.corpus.prompts(self.corpus.policy.texts, config.prompt_tokens)
        order = np.random.default_rng(config.seed).permutation(len(prompts))
        prompts = [prompts[i] for i in order[: config.sampled_prompts]]
        sampler = Sampler(self.run, dataclasses.replace(self.panel, prompts=prompts))
        drawn = sampler(sft.params, self.run.key("pairs"), samples=config.samples_per_prompt)
        scores = drawn.reward_scores - config.unfinished_penalty * ~drawn.ended
        picked = scores.argmax(axis=1), scores.argmin(axis=1)

        def row(i: int, k: int) -> TokenRow:
            end = [self.corpus.tokenizer.eos_id] if drawn.ended[i, k] else []
            return token_row((prompts[i], False), (drawn.responses[i][k] + end, True))

        chosen, rejected = ([row(i, k) for i, k in enumerate(side)] for side in picked)
        return chosen, rejected

    def _policy_params(self, name: str):
        """Parameters without the value head."""
        return {key: self.models[name].params[key] for key in self.models["sft"].params}

    def _keep(self, name: str, model: TextModel) -> None:
        self.models[name] = model
        save_text_model(self.run.directory / "models" / name, model)

    def _write(self, name: str, content) -> None:
        write_atomically(self.run.directory / name, json.dumps(content, indent=1).encode())


CALIBRATION_PAIRS = 8000  # single ratings of two held-out texts
UNPENALISED = "ppo_without_kl"
TABLE_WIDTH = 150  # characters; a narrower terminal wraps the lines of the table
METHODS = {
    "SFT": "sft",
    "preferred-FT": "preferred_ft",
    "DPO, human pairs": "dpo_human",
    "DPO, own samples": "dpo_samples",
    "PPO": "ppo",
}
WIN_RATES = tuple(
    f"{judge}win_rate{end}" for judge in ("", "rule_") for end in ("", "_low", "_high")
)


def first(sampled: Sampled, number: int) -> Sampled:
    """The samples of the first prompts."""
    return Sampled(
        **{f.name: getattr(sampled, f.name)[:number] for f in dataclasses.fields(Sampled)}
    )


def best(pool: Sampled) -> Sampled:
    """The one sample of each prompt that the reward model scores highest."""
    index = pool.reward_scores.argmax(axis=1)

    def pick(values) -> Any:
        if isinstance(values, list):
            return [[group[i]] for group, i in zip(values, index, strict=True)]
        return np.take_along_axis(values, index[:, None], axis=1)

    return Sampled(**{f.name: pick(getattr(pool, f.name)) for f in dataclasses.fields(Sampled)})


def wins_of_each(scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """`[N, S]` whether each sample beats its prompt's baseline; a tie counts half."""
    return np.stack([wins(column, baseline) for column in scores.T], axis=1)


def run(config: RLHFConfig, directory: Path) -> dict:
    """Everything, from the ratings to `report.html`; the same command again resumes it.

    Returns:
      What `results.json` holds.
    """
    with open_run(directory, config, config.place, config.seed) as opened:
        job = Job(config, opened)
        for stage in (job.prepare, job.sft, job.reward, job.open_panel):
            stage()
        for stage in (job.preferred, job.dpo_human, job.dpo_samples):
            stage()
        job.ppo("ppo", config.ppo)
        if config.unpenalised.iterations:
            job.ppo(UNPENALISED, config.unpenalised)
        results = job.evaluate()
    show(results)
    with job.timed("report"):
        page = write_report(directory)
    print(f"report: {page}")
    return results


def show(results: dict) -> None:
    """The two tables, on the terminal."""
    console = Console(width=max(Console().width, TABLE_WIDTH))
    console.print(
        rich_table(results["reward_model"], SCORER_COLUMNS, title="Scorers on held-out texts")
    )
    console.print(rich_table(results["rows"], METHOD_COLUMNS, title="Policies on held-out prompts"))
