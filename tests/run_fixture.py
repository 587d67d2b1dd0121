"""A run directory with made-up numbers, shaped like a real one."""

import json
from pathlib import Path

import numpy as np

from jaxalign.evaluation import best_of_n_kl

METHODS = {  # name: (win rate, rule win rate, judge, reward, kl, ppl, sample ppl, distinct-2)
    "SFT": (0.503, 0.497, 0.04, -0.02, 0.0, 165, 148, 0.893),
    "Preferred-FT": (0.571, 0.512, 0.18, 0.21, 0.9, 171, 150, 0.884),
    "DPO β=0.3": (0.602, 0.508, 0.24, 0.26, 0.8, 172, 151, 0.889),
    "DPO β=0.1": (0.648, 0.521, 0.35, 0.44, 1.9, 181, 155, 0.879),
    "DPO β=0.03": (0.691, 0.517, 0.46, 0.58, 3.9, 214, 163, 0.861),
    "PPO β=0.05": (0.741, 0.622, 0.61, 1.28, 5.9, 207, 171, 0.848),
    "PPO β=0": (0.918, 0.871, 1.23, 2.34, 54.0, 2085, 892, 0.447),
    "best-of-4": (0.578, 0.531, 0.22, 0.77, 0.64, None, 149, 0.891),
    "best-of-16": (0.664, 0.566, 0.40, 1.37, 1.84, None, 152, 0.886),
}


def write_run(directory: Path) -> Path:
    """Writes all files of a run."""
    directory.mkdir(parents=True, exist_ok=True)
    dump(directory / "config.json", _config())
    versions = {
        "jaxalign": "0.1.0",
        "jax": "0.10.2",
        "python": "3.11.7",
        "device": "CPU, 2 cores",
    }
    dump(directory / "versions.json", versions)
    dump(directory / "results.json", results())
    dump(directory / "samples.json", samples())
    lines = [json.dumps(line) for line in metrics()]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def results() -> dict:
    """The table, the reward model, the curves."""
    rows = [_row(name, *numbers) for name, numbers in METHODS.items()]
    rows.insert(1, _row("SFT (fresh samples)", 0.511, 0.494, 0.05, -0.01, 0.0, 165, 148, 0.894))
    return {
        "title": "Film reviews that people like: SFT, DPO, PPO and best-of-n on human ratings",
        "rows": rows,
        "reward_model": _scorers(),
        "calibration": _calibration(),
        "curves": _curve("PPO β=0.05", 5.9, 1.27, 0.61, 171, 0.848, False)
        + _curve("PPO β=0", 54.0, 2.34, 1.5, 892, 0.447, True)
        + _curve("DPO β=0.1", 1.9, 0.44, 0.35, 155, 0.879, False),
        "best_of_n": [
            {
                "n": n,
                "kl": float(best_of_n_kl(n)),
                "reward_score": 1.05 * float(np.sqrt(best_of_n_kl(n))) - 0.02,
                "judge_score": 0.04 + 0.33 * float(np.sqrt(best_of_n_kl(n))) - 0.02 * n / 16,
                "win_rate": 0.5 + 0.12 * float(np.sqrt(best_of_n_kl(n))),
            }
            for n in (1, 2, 4, 8, 16)
        ],
        "timing": {"sft": 107.2, "reward model": 57.1, "dpo": 54.8, "ppo": 96.3, "evaluation": 8.4},
        "notes": [
            "The samples are short and say little: a model of 0.23 million parameters has learned "
            "which words people like, not how to write. Win rates measure that and nothing else.",
            "KL of best-of-n is the analytic upper bound.",
        ],
    }


def samples() -> list[dict]:
    """Two prompts, one of them hostile."""
    return [
        {
            "prompt": "the film",
            "responses": {
                "SFT": {
                    "text": "is a bit of a mess , but not without charm .",
                    "judge_score": -0.81,
                    "reward_score": -0.4,
                },
                "DPO β=0.1": {
                    "text": "has a warm heart and a quietly moving story .",
                    "judge_score": 1.62,
                    "reward_score": 1.1,
                },
                "PPO β=0": {
                    "text": "is wonderful , moving , wonderful , moving , wonderful .",
                    "judge_score": 2.9,
                    "reward_score": 2.5,
                },
                "best-of-16": {
                    "text": "manages to be both funny and touching .",
                    "judge_score": 1.2,
                    "reward_score": 1.4,
                },
            },
        },
        {
            "prompt": "<script>alert('prompt')</script> & co",
            "responses": {
                "SFT": {"text": "</p><img src=x onerror=alert(1)>", "judge_score": None},
                'unknown "method"': {"text": "", "judge_score": float("nan")},
            },
        },
        *({"prompt": f"prompt {i}", "responses": {"SFT": {"text": "more ."}}} for i in range(7)),
    ]


def metrics() -> list[dict]:
    """Learning curves of four stages."""
    generator = np.random.default_rng(0)
    lines = []
    for step in range(0, 400):
        loss = 5.1 + 2.6 * np.exp(-step / 90) + 0.08 * generator.normal()
        line = {"stage": "sft", "step": step, "time": step * 0.25, "loss": loss, "grad_norm": 1.1}
        if step % 50 == 49:
            line["eval/loss"] = 5.22 + 2.4 * float(np.exp(-step / 90))
        lines.append(line)
    for step in range(250):
        gain = 1 - np.exp(-step / 80)
        noise = generator.normal(size=3)
        lines.append(
            {
                "stage": "reward",
                "step": step,
                "time": 0.0,
                "loss": 0.69 - 0.09 * gain + 0.03 * noise[0],
                "rewards/accuracy": 0.5 + 0.17 * gain + 0.06 * noise[1],
                "rewards/margin": 0.5 * gain,
                "grad_norm": 2 + 0.3 * noise[2],
            }
        )
    for step in range(28):
        lines.append(
            {
                "stage": "ppo",
                "step": step,
                "time": 0.0,
                "scores": 1.3 * (1 - np.exp(-step / 9)),
                "kl/reference": 0.21 * step,
                "ppo/clip_fraction": 0.08 + 0.02 * generator.normal(),
                "entropy": 4.2 - 0.03 * step,
                "value_loss": 0.4 * np.exp(-step / 6),
            }
        )
    lines.append(
        {"stage": "dpo", "step": 0, "loss": 0.6931, "rewards/chosen": 0.0, "rewards/rejected": 0.0}
    )
    return lines


def _row(name, win, rule, judge, reward, kl, perplexity, sample_perplexity, distinct) -> dict:
    """One row with intervals of the usual width."""
    return {
        "method": name,
        "win_rate": win, "win_rate_low": win - 0.04, "win_rate_high": win + 0.039,
        "rule_win_rate": rule, "rule_win_rate_low": rule - 0.042,
        "rule_win_rate_high": rule + 0.041,
        "judge_score": judge, "reward_score": reward, "kl": kl,
        "kl_estimate": None if name.startswith("best") else kl * 1.02,
        "perplexity": perplexity, "sample_perplexity": sample_perplexity,
        "distinct_1": 0.41 * distinct, "distinct_2": distinct,
        "length": 26.0 - kl / 10, "ended": 0.93, "copied": 0.021,
    }  # fmt: skip


def _curve(method, kl, reward, judge, perplexity, distinct, turns) -> list[dict]:
    """Points along training; the judge of one that `turns` falls at the end."""
    rows = []
    for at, share in enumerate(np.linspace(0, 1, 9)):
        d = np.sqrt(share)
        fall = 0.9 * max(d - 0.8, 0) if turns else 0
        rows.append(
            {
                "method": method,
                "step": 5 * at,
                "kl": kl * share,
                "reward_score": reward * (1.3 * d - 0.3 * d**2) - 0.02,
                "judge_score": 0.04 + judge * (d - fall),
                "win_rate": 0.5 + 0.2 * d,
                "distinct_2": 0.893 + (distinct - 0.893) * share**1.5,
                "sample_perplexity": 148 + (perplexity - 148) * share**2,
                "length": 26 - 2 * share,
            }
        )
    return rows


def _scorers() -> list[dict]:
    """Reward model, baselines and one person."""
    table = {
        "reward model": (0.664, 0.729, 0.71, 0.69, 0.47),
        "bag of words, Bradley–Terry": (0.722, 0.81, 0.77, 0.74, 0.62),
        "rule-based (VADER)": (0.647, 0.694, 0.789, 0.484, 0.43),
        "length": (0.496, 0.493, 0.51, 0.5, 0.0),
        "one human": (0.824, 0.929, 0.954, 0.917, 0.854),
    }
    return [
        {
            "scorer": name, "pair_accuracy": pairs, "pair_accuracy_low": pairs - 0.014,
            "pair_accuracy_high": pairs + 0.013, "pair_accuracy_gap1": clear,
            "recall_positive": positive, "recall_negative": negative, "spearman": rank,
        }
        for name, (pairs, clear, positive, negative, rank) in table.items()
    ]  # fmt: skip


def _calibration() -> list[dict]:
    """A reward model that is too sure of itself."""
    sure = np.linspace(0.52, 0.93, 8)
    return [
        {
            "predicted": p,
            "observed": 0.5 + 0.75 * (p - 0.5),
            "observed_low": 0.47 + 0.75 * (p - 0.5),
            "observed_high": 0.53 + 0.75 * (p - 0.5),
            "count": 250,
        }
        for p in sure.tolist()
    ]


def _config() -> dict:
    """A nested configuration."""
    return {
        "seed": 0,
        "model": {"width": 64, "layers": 2, "heads": 4, "vocab_size": 2048, "dropout": 0.0},
        "ppo": {"kl_coef": 0.05, "clip_range": 0.2, "learning_rate": 1e-4, "iterations": 28},
        "dpo": {"beta": [0.03, 0.1, 0.3], "batch_size": 64},
        "data": None,
    }


def dump(path: Path, content: object) -> None:
    """JSON, NaN included, as the stages write it."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
