"""The main job in miniature, on the real ratings: every file it leaves, and that it can be
resumed.
"""

import dataclasses
import functools
import json

import numpy as np
import pytest

from jaxalign.commands.rlhf import job as rlhf
from jaxalign.commands.rlhf.ratings import first_tokens, human_pairs, read_corpus, spread
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.model import ModelConfig, TokenizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.reward import RewardSettings
from jaxalign.config.rlhf import (
    NEW_MODEL,
    NEW_TOKENIZER,
    ComparisonSettings,
    EvaluationSettings,
    RLHFConfig,
)
from jaxalign.config.sft import SFTConfig
from jaxalign.data.batching import token_batch
from jaxalign.errors import UserError
from jaxalign.recipes.text_models import load_text_model
from jaxalign.train.metrics import read_metrics

FIT = FitConfig(
    steps=2,
    batch_size=8,
    log_every=1,
    optimizer=OptimizerConfig(warmup_steps=1, learning_rate=1e-3),
)
PPO = PPOSettings(iterations=1, batch_size=16, update_epochs=1, minibatches=2)
CONFIG = RLHFConfig(
    model=ModelConfig(width=16, layers=1, heads=2),
    tokenizer=TokenizerConfig(vocab_size=1000),
    max_length=30,
    length_buckets=1,
    sft=FIT,
    comparisons=ComparisonSettings(groups=4, group_size=4),
    reward=RewardSettings(pooling="none", bag=True, fit=FIT, bag_buckets=1024),
    ppo=PPO,
    unpenalised=dataclasses.replace(PPO, iterations=0),
    pairs=64,
    preferred=FIT,
    dpo_human=DPOSettings(fit=FIT),
    dpo_samples=DPOSettings(fit=FIT),
    sampled_prompts=8,
    samples_per_prompt=2,
    evaluation=EvaluationSettings(
        prompts=16,
        curve_prompts=16,
        curve_points=1,
        best_of=2,
        best_of_prompts=8,
        rows=16,
        shown=2,
        perplexity_texts=64,
    ),
)
PLOTS = {"calibration", "frontier_judge_score", "frontier_reward_score", "scorers", "win_rates"}


@pytest.fixture(scope="module")
def job(tmp_path_factory, ratings_dir):
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(ratings_dir))
        directory = tmp_path_factory.mktemp("rlhf")
        yield directory, rlhf.run(CONFIG, directory)


@pytest.mark.slow
def test_every_method_is_compared(job):
    _, results = job
    methods = [row["method"] for row in results["rows"]]
    assert methods == [
        *("SFT", "SFT again (control)", "preferred-FT", "DPO, human pairs"),
        *("DPO, own samples", "PPO", "best of 2"),
    ]
    for row in results["rows"][1:]:
        assert 0 <= row["win_rate_low"] <= row["win_rate"] <= row["win_rate_high"] <= 1
        assert row["distinct_2"] > 0 and row["length"] > 0
    sft = results["rows"][0]
    assert sft["kl"] == pytest.approx(0, abs=1e-3) and sft["win_rate"] is None
    assert all(row["kl"] > -1e-3 for row in results["rows"])
    best_of_2 = results["rows"][-1]
    assert best_of_2["kl"] == pytest.approx(np.log(2) - 1 / 2)
    assert best_of_2["reward_score"] > sft["reward_score"]
    scorers = {row["scorer"]: row["pair_accuracy"] for row in results["reward_model"]}
    assert len(scorers) == 5
    people = scorers["one person against the rest"]
    assert 0.8 < people < 0.9 and scorers["bag-of-words ridge, same texts"] < people


@pytest.mark.slow
def test_the_run_directory_is_complete(job):
    directory, _ = job
    for name in ("config.json", "versions.json", "results.json", "samples.json", "report.html"):
        assert (directory / name).stat().st_size > 0
    plots = {path.stem for path in (directory / "plots").glob("*.png")}
    assert plots >= PLOTS
    shown = json.loads((directory / "samples.json").read_text())
    assert len(shown) == 2 and "PPO" in shown[0]["responses"]
    stages = {line["stage"] for line in read_metrics(directory)}
    assert stages >= {"sft", "reward", "preferred_ft", "dpo_human", "dpo_samples", "ppo"}


@pytest.mark.slow
def test_dpo_starts_at_log_2_and_ppo_at_the_reference(job):
    directory, _ = job
    lines = [line for line in read_metrics(directory) if line["step"] == 1]
    first = {line["stage"]: line for line in lines if "grad_norm" in line}
    for stage in ("dpo_human", "dpo_samples"):
        assert first[stage]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert first["ppo"]["kl/reference"] == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_perplexity_of_human_texts_is_at_temperature_1(job):
    """And not at that of the policies, by a loop in double precision."""
    directory, results = job
    corpus, sft = read_corpus(CONFIG), load_text_model(directory / "models" / "sft", "model")
    rows = corpus.token_rows(spread(corpus.evaluation.texts, 64))
    batch = token_batch(rows, pad_id=0)
    logits = sft.model.apply({"params": sft.params}, batch.tokens, batch.mask).logits
    nats, tokens = 0.0, 0
    for row, row_logits in zip(rows, np.float64(logits), strict=True):
        for t in np.flatnonzero(row.is_response):
            before = row_logits[t - 1]
            nats += np.log(np.exp(before - before.max()).sum()) + before.max()
            nats -= before[row.tokens[t]]
            tokens += 1
    assert results["rows"][0]["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    assert any("human texts" in note and note.endswith("from at 1.") for note in results["notes"])


@pytest.mark.slow
def test_the_same_command_again_gives_the_same_results(job):
    directory, results = job
    lines = read_metrics(directory)
    again = rlhf.run(CONFIG, directory)
    del again["timing"], results["timing"]
    assert json.dumps(again) == json.dumps(results)
    assert read_metrics(directory) == lines


@pytest.mark.slow
def test_human_pairs_are_of_whole_texts(job):
    corpus = read_corpus(CONFIG)
    pairs = human_pairs(corpus, CONFIG)
    assert 0 < len(pairs) < CONFIG.pairs
    for side in (pairs.chosen, pairs.rejected):
        assert all(corpus.rows[i].tokens[-1] == corpus.tokenizer.eos_id for i in side)
    with pytest.raises(UserError, match="each of the 1 human pairs has a text of more than max"):
        human_pairs(corpus, dataclasses.replace(CONFIG, pairs=1, seed=0))


@pytest.mark.slow
def test_splits_share_no_text_and_prompts_are_beginnings(job):
    corpus = read_corpus(CONFIG)
    parts = [corpus.policy, corpus.validation, corpus.judge, corpus.evaluation]
    texts = [set(part.texts) for part in parts]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert [len(part) for part in parts] == [5295, 1080, 2639, 1589]
    prompts = first_tokens(corpus.evaluation_rows[:8], (2, 5))
    assert [len(prompt) for prompt in prompts] == [3, 4, 5, 6, 3, 4, 5, 6]
    for prompt, text in zip(prompts, corpus.evaluation.texts, strict=False):
        assert prompt[0] == corpus.tokenizer.bos_id
        assert text.lower().startswith(corpus.tokenizer.decode(prompt))


@pytest.mark.slow
def test_the_job_starts_from_a_known_model_with_adapters(job, tmp_path):
    directory, _ = job
    config = dataclasses.replace(
        CONFIG,
        init=str(directory / "models" / "sft"),
        lora=LoraConfig(rank=2, targets=(".*/(query|up)",)),
        model=NEW_MODEL,
        tokenizer=NEW_TOKENIZER,
        reward=dataclasses.replace(CONFIG.reward, pooling="both", layers=1, trunk="frozen"),
    )
    results = rlhf.run(config, tmp_path)
    human = results["rows"][-1]
    assert human["method"] == "held-out human texts" and human["base_perplexity"] > 1
    for row in results["rows"][:-1]:
        assert row["base_perplexity"] > 1
    before, after = (
        load_text_model(folder / "models" / name, "model").params
        for folder, name in ((directory, "sft"), (tmp_path, "ppo"))
    )
    assert "adapters" not in after
    block = "trunk", "layers_0", "attention"
    for name, changes in (("query", True), ("key", False)):
        old, new = (functools.reduce(dict.get, block, tree)[name]["kernel"]
                    for tree in (before, after))  # fmt: skip
        assert np.array_equal(old, new) != changes


def test_what_does_not_go_with_a_known_model_is_refused():
    with pytest.raises(UserError, match=r"has a model and a vocabulary, .* with model\.width"):
        RLHFConfig(init="x", model=dataclasses.replace(NEW_MODEL, width=32))
    with pytest.raises(UserError, match=r"has a model and a vocabulary, .* tokenizer\.vocab_size"):
        SFTConfig(init="x", tokenizer=TokenizerConfig(vocab_size=300))
    with pytest.raises(UserError, match=r"lora\.rank needs a trained model"):
        RLHFConfig(lora=LoraConfig(rank=2))
