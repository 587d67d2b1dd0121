"""Reward models that read part of a trunk, and leave it as it is."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.reward import RewardConfig, RewardSettings
from jaxalign.data.chat import TokenRow
from jaxalign.data.preferences import Groups
from jaxalign.errors import UserError
from jaxalign.losses import BRADLEY_TERRY
from jaxalign.models.functions import pooled_texts
from jaxalign.models.heads import pooled
from jaxalign.models.lora import ADAPTERS
from jaxalign.models.ngram_reward import FEATURES, NgramConfig
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.reward import train_reward
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import by_rows, score_rows
from jaxalign.recipes.text_models import TextModel, new_parameters, shallow, with_heads

KEY = jax.random.key(0)
CONFIG = TransformerConfig(
    vocab_size=16, max_length=8, width=8, layers=3, heads=2, kv_heads=1, mlp_width=8
)
LORA = LoraConfig(rank=2, targets=(".*/(value|up)",))
SETTINGS = RewardSettings(
    pooling="both",
    layers=2,
    trunk="frozen",
    bag=True,
    bag_characters=0,
    bag_buckets=32,
    fit=FitConfig(
        steps=40,
        batch_size=8,
        log_every=20,
        optimizer=OptimizerConfig(learning_rate=0.05, warmup_steps=0),
    ),
)


class Letters:
    """A vocabulary of as many letters as the model reads."""

    pad_id = bos_id = eos_id = 0
    vocab_size = 16

    def save(self, directory):
        (directory / "tokenizer.json").write_text("{}")


def base_model(*, scan: bool = False, lora: LoraConfig | None = None) -> TextModel:
    config = dataclasses.replace(CONFIG, scan_layers=scan)
    params = new_parameters(Transformer(config), KEY)
    model = TextModel(model=Transformer(config), params=params, tokenizer=Letters())  # pyright: ignore
    return with_adapters(model, "", lora or LoraConfig(), KEY)


def text_rows(number: int = 12) -> list[TokenRow]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 8, number)
    return [TokenRow(rng.integers(1, 16, n).astype(np.int32), np.ones(n, bool)) for n in lengths]


def compared(rows) -> Groups:
    """The text with the larger first token is preferred by all, in random groups of 4."""
    groups = np.random.default_rng(1).integers(0, len(rows), (24, 4))
    first = np.array([row.tokens[0] for row in rows])[groups]
    return Groups(groups, (first[:, :, None] > first[:, None, :]).astype(np.float32))


@pytest.mark.slow
def test_pooling_agrees_with_loops():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3, 4, 2)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    for row in range(3):
        real = [hidden[row, t].astype(float) for t in range(4) if mask[row, t]]
        mean = sum(real) / len(real) if real else np.zeros(2)
        expected = {"last": hidden[row, 3], "mean": mean, "both": [*mean, *hidden[row, 3]]}
        for pooling, wanted in expected.items():
            np.testing.assert_allclose(pooled(hidden, mask, pooling)[row], wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_a_shallow_trunk_is_one_whose_other_layers_add_nothing(scan):
    base = base_model(scan=scan, lora=LORA)
    adapters = jax.tree.map(lambda x: x + 0.1, base.params[ADAPTERS])
    base = dataclasses.replace(base, params=base.params | {ADAPTERS: adapters})
    tokens = np.arange(1, 13, dtype=np.int32).reshape(2, 6)

    def hidden(model, params):
        return model.apply({"params": params}, tokens, tokens > 0).hidden

    def silenced(path, x):
        """Zero for what the third layer adds to the residual stream."""
        names = [key.key for key in path]
        if not {"output", "down"} & set(names):
            return x
        if scan:
            return np.where(np.arange(3).reshape(3, *[1] * (np.ndim(x) - 1)) == 2, 0, x)
        return 0 * x if "layers_2" in names else x

    deep = jax.tree_util.tree_map_with_path(silenced, base.params)
    cut = shallow(base, 2)
    assert cut.model.config.layers == 2
    expected = hidden(base.model, deep)
    np.testing.assert_allclose(hidden(cut.model, cut.params), expected, atol=1e-5)
    assert np.abs(np.asarray(expected - hidden(base.model, base.params))).max() > 1e-3
    sizes = [sum(np.size(x) for x in jax.tree.leaves(m.params)) for m in (cut, base)]
    assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_windows_are_cut_with_the_layers_and_none_are_made_up():
    base = base_model()
    config = dataclasses.replace(CONFIG, windows=(0, 2, 3))
    windowed = dataclasses.replace(base, model=Transformer(config))
    assert shallow(windowed, 2).model.config.windows == (0, 2)
    with pytest.raises(UserError, match=r"reward\.layers is 4, but the model has 3 layers"):
        shallow(base, 4)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [LoraConfig(), LORA], ids=["plain", "adapted"])
def test_a_frozen_trunk_stays_and_its_head_learns(tmp_path, lora):
    base, rows = base_model(lora=lora), text_rows()
    with open_run(tmp_path, SETTINGS, PlaceConfig(layout="device"), 0) as run:
        trained, deviation = train_reward(
            run, "reward", base, rows, groups=compared(rows), settings=SETTINGS
        )
        scores = score_rows(run, trained, rows)
    kept = shallow(base, 2).params
    for name in kept:
        jax.tree.map(np.testing.assert_array_equal, trained.params[name], kept[name])
    assert trained.params["score"]["readout"]["kernel"].shape == (16, 1)
    assert scores.mean() == pytest.approx(0, abs=1e-5) and scores.std() == pytest.approx(1)
    assert deviation > 0
    first = np.array([row.tokens[0] for row in rows])
    larger = first[:, None] > first[None]
    assert (scores[:, None] > scores[None])[larger].mean() > 0.85  # chance is half


@pytest.mark.slow
def test_what_is_learned_above_a_frozen_trunk_is_the_gradient_of_the_whole_model(tmp_path):
    """The first step of both ways, by hand: same loss, same gradient of the head."""
    from jaxalign import objectives
    from jaxalign.data.preference_batches import comparison_batch
    from jaxalign.models.functions import head_scores, text_scores

    rows = text_rows()
    base = shallow(base_model(), 2)
    read = NgramConfig(buckets=32)
    model = with_heads(base, ("score",), KEY, ngrams=read, score_pooling="both")
    groups = compared(rows)
    batch = comparison_batch(
        [[rows[i] for i in group] for group in groups.texts],
        groups.preferences,
        pad_id=0,
        index=groups.texts,
    )
    with open_run(tmp_path, SETTINGS, PlaceConfig(layout="device"), 0) as run:
        of_texts = by_rows(run, pooled_texts(model.model), model.params, rows, pad_id=0)

    def loss(scores, head, others):
        return objectives.reward(scores, BRADLEY_TERRY)({"score": head, **others}, batch, KEY)[0]

    def grad_of(scores, others):
        head = model.params["score"]
        return jax.value_and_grad(lambda head: loss(scores, head, others))(head)

    known = {FEATURES: model.params[FEATURES]}
    whole = grad_of(text_scores(model.model), known | {"trunk": model.params["trunk"]})
    frozen = grad_of(head_scores(model.model.config, read), known | {"pooled": of_texts})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), frozen, whole)
    assert np.abs(whole[1]["readout"]["kernel"]).max() > 1e-2
    assert np.abs(whole[1]["bigrams"]).max() > 1e-2


REFUSED = [
    (
        lambda: RewardSettings(trunk="frozen", pooling="none", bag=True),
        r"pooling none reads nothing of the trunk",
    ),
    (
        lambda: RewardSettings(layers=2, pooling="none", bag=True),
        r"reward\.layers is 2 and reward\.pooling none",
    ),
    (lambda: RewardSettings(pooling="last", layers=0), r"layers is 0"),
    (
        lambda: RewardConfig(init="x", lora=LORA, reward=SETTINGS),
        r"reward\.trunk frozen trains no adapters",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
