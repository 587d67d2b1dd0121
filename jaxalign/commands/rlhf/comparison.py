"""Comparison of the main job's policies, on texts and prompts that nothing was trained on."""

import dataclasses
from typing import Any

import numpy as np

from jaxalign.commands.rlhf.ratings import Corpus, first_tokens, spread
from jaxalign.commands.rlhf.samples import (
    EvaluationSampler,
    EvaluationSetup,
    MethodSamples,
    result_row,
)
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.preferences import cross_block_pairs
from jaxalign.evaluation.agreement import human_ceiling, scorer_agreement, scorer_row
from jaxalign.evaluation.best_of_n import best_of_n_kl, best_of_n_mean
from jaxalign.evaluation.calibration import preference_calibration
from jaxalign.evaluation.judges import RidgeJudge, rule_based_scorer
from jaxalign.evaluation.win_rates import wins
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import perplexity, score_rows
from jaxalign.recipes.text_models import TextModel
from jaxalign.train.metrics import read_metrics

METHODS = {
    "SFT": "sft",
    "preferred-FT": "preferred_ft",
    "DPO, human pairs": "dpo_human",
    "DPO, own samples": "dpo_samples",
    "PPO": "ppo",
}
UNPENALISED = "ppo_without_kl"
CALIBRATION_PAIRS = 8000  # single ratings of two held-out texts
WIN_RATES = tuple(
    f"{judge}win_rate{end}" for judge in ("", "rule_") for end in ("", "_low", "_high")
)


class Comparison:
    """Judges, held-out prompts and baseline that every policy of the main job is compared on.

    Args:
      config, run, corpus: of the main job.
      models: its models by name, with `sft` and `reward`; the job adds the others as it trains
        them.
      base: the model that the job started from, if it was not a new one.
    """

    def __init__(
        self,
        config: RLHFConfig,
        run: Run,
        corpus: Corpus,
        models: dict[str, TextModel],
        *,
        base: TextModel | None = None,
    ):
        self.config, self.run, self.corpus, self.models = config, run, corpus, models
        self.base = base
        self.judge = RidgeJudge().fit(corpus.judge.texts, corpus.judge.means)
        self.rule = rule_based_scorer()
        prompts = first_tokens(corpus.evaluation_rows, config.prompt_tokens)
        order = np.random.default_rng(0).permutation(len(prompts))[: config.evaluation.prompts]
        self.setup = EvaluationSetup(
            prompts=[prompts[i] for i in order],
            judge=self.judge.scores,
            rule=self.rule,
            reward=models["reward"],
            reference=models["sft"],
            training=[row.tokens[1:].tolist() for row in corpus.sft_rows],
            temperature=config.temperature,
            max_new_tokens=config.max_length - 1 - config.prompt_tokens[1],
            rows=config.evaluation.rows,
        )
        self.sampler = EvaluationSampler(run, self.setup)
        self.baseline = self.sampler(models["sft"].params, run.key("evaluation/sft"))

    def point(self, method: str, params: dict[str, Any]) -> dict[str, float]:
        """One point of a method's learning curve, on the first of the held-out prompts."""
        number = self.config.evaluation.curve_prompts
        samples = self.sampler(params, self.run.key(f"curve/{method}"), prompts=number)
        row = result_row(method, samples, first(self.baseline, number), self.setup)
        names = ("kl", "reward_score", "judge_score", "win_rate", "distinct_2", "sample_perplexity")
        return {name: row[name] for name in (*names, "length")}

    def results(self, reward_deviation: float) -> tuple[dict, list[dict]]:
        """Contents of `results.json`, but for the timing, and of `samples.json`.

        Args:
          reward_deviation: what a difference of scores is multiplied by to be a logit of
            Bradley-Terry again, from `train_reward`.
        """
        rows, samples = self._result_rows()
        best, best_row, chosen = self._best_of_n()
        results = {
            "title": "RLHF and DPO on human ratings of movie reviews",
            "rows": [*rows, best_row, *self._human_rows()],
            "reward_model": self._reward_rows(),
            "calibration": self._calibration(reward_deviation),
            "curves": self._curves(),
            "best_of_n": best,
            "notes": self._notes(),
        }
        return results, self._shown(samples | {best_row["method"]: chosen})

    def _result_rows(self):
        """Result rows of all policies, SFT first, then SFT against itself, and their samples."""
        held_out = self._held_out()
        rows, samples = [], {"SFT": self.baseline}
        for method, name in METHODS.items():
            if name not in self.models:
                continue
            policy = dataclasses.replace(self.models["sft"], params=self._policy_params(name))
            if method != "SFT":
                key = self.run.key(f"evaluation/{method}")
                samples[method] = self.sampler(policy.params, key)
            row = self._row(method, samples[method], self.baseline)
            rows.append(row | {"perplexity": perplexity(self.run, policy, held_out)})
        rows[0] |= dict.fromkeys(WIN_RATES)
        control = self.sampler(self.models["sft"].params, self.run.key("evaluation/control"))
        rows.insert(1, self._row("SFT again (control)", control, self.baseline))
        return rows, samples

    def _held_out(self) -> list[TokenRow]:
        """Human texts for perplexities."""
        number = self.config.evaluation.perplexity_texts
        return spread(self.corpus.evaluation_rows, number)

    def _human_rows(self) -> list[dict]:
        """Result row of held-out human texts under the pretrained model; none for a new model."""
        if self.base is None:
            return []
        value = perplexity(self.run, self.base, self._held_out())
        return [{"method": "held-out human texts", "base_perplexity": value}]

    def _row(self, method: str, samples: MethodSamples, baseline: MethodSamples) -> dict:
        """Result row of a method, with the samples' perplexity under the pretrained model if there
        is one.
        """
        row = result_row(method, samples, baseline, self.setup)
        if self.base is None:
            return row
        answers = zip(samples.responses, samples.ends, self.setup.prompts, strict=False)
        rows = [
            token_row((prompt, False), (response + end, True))
            for responses, ends, prompt in answers
            for response, end in zip(responses, ends, strict=True)
        ]
        return row | {"base_perplexity": perplexity(self.run, self.base, rows)}

    def _best_of_n(self):
        """Best-of-n curve over n, the result row of the largest n, and its samples."""
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
        row = self._row(f"best of {n}", chosen, baseline)
        row |= {"kl": float(best_of_n_kl(n)), "kl_estimate": None, "kl_per_token": None}
        return curve, row, chosen

    def _reward_rows(self) -> list[dict]:
        """Agreement of the reward model and of its baselines with people, on held-out texts."""
        held_out, rated = self.corpus.evaluation, self.corpus.rated
        same_data = RidgeJudge().fit(rated.texts, rated.means)
        rows = self.corpus.evaluation_rows
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

    def _calibration(self, deviation: float) -> list[dict]:
        """Calibration curve of the reward model against single people's preferences."""
        held_out = self.corpus.evaluation
        pairs = cross_block_pairs(held_out, CALIBRATION_PAIRS, self.config.seed)
        rows = self.corpus.evaluation_rows
        scores = deviation * score_rows(self.run, self.models["reward"], rows)
        differences = scores[pairs.chosen] - scores[pairs.rejected]
        return preference_calibration(differences, np.ones(len(pairs)))

    def _curves(self) -> list[dict]:
        """Points of all methods' learning curves, from the metrics."""
        titles = {name: method for method, name in METHODS.items()} | {
            UNPENALISED: "PPO without KL penalty"
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
            f"{len(self.setup.prompts)} held-out prompts of {self.config.prompt_tokens[0]} to "
            f"{self.config.prompt_tokens[1]} tokens; best of {settings.best_of} on the first "
            f"{settings.best_of_prompts} of them.",
            f"Every policy samples at temperature {self.config.temperature:g}; its KL is that of "
            "the distribution it samples from. Perplexities of samples under the supervised model "
            "are at that temperature too, those of human texts and under the model that all "
            "started from at 1.",
            "The judge is a ridge regression of human ratings on texts that no policy and no "
            "reward model saw. It judges sentiment, not grammar: read length, variety and "
            "perplexity beside it.",
            "The KL of best-of-N is the analytic bound ln n - (n - 1) / n.",
        ]

    def _shown(self, samples: dict[str, MethodSamples]) -> list[dict]:
        """Samples of all methods for the first prompts, for `samples.json`."""
        number = min(self.config.evaluation.shown, *(len(s.texts) for s in samples.values()))
        decode = self.corpus.tokenizer.decode
        return [
            {
                "prompt": decode(self.setup.prompts[i]),
                "responses": {
                    method: {
                        "text": s.texts[i][0].removeprefix(decode(self.setup.prompts[i])),
                        "judge_score": float(s.judge_scores[i, 0]),
                        "reward_score": float(s.reward_scores[i, 0]),
                    }
                    for method, s in samples.items()
                },
            }
            for i in range(number)
        ]

    def _policy_params(self, name: str):
        """Parameters of a model without the value head."""
        return {key: self.models[name].params[key] for key in self.models["sft"].params}


def first(samples: MethodSamples, number: int) -> MethodSamples:
    """The samples of the first prompts."""
    return MethodSamples(
        **{f.name: getattr(samples, f.name)[:number] for f in dataclasses.fields(MethodSamples)}
    )


def best(pool: MethodSamples) -> MethodSamples:
    """The sample of each prompt with the highest reward-model score."""
    index = pool.reward_scores.argmax(axis=1)

    def pick(values: list | np.ndarray) -> Any:
        if isinstance(values, list):
            return [[group[i]] for group, i in zip(values, index, strict=True)]
        return np.take_along_axis(values, index[:, None], axis=1)

    return MethodSamples(
        **{f.name: pick(getattr(pool, f.name)) for f in dataclasses.fields(MethodSamples)}
    )


def wins_of_each(scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """`[N, S]` whether each sample beats the baseline's of its prompt; a tie counts half."""
    return np.stack([wins(column, baseline) for column in scores.T], axis=1)
