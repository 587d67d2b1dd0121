"""What is exported is what was published, and is read back as it was."""

import json

import jax
import numpy as np
import pytest
import tokenizers
import yaml
from huggingface_hub.repocard import metadata_load
from markdown_it import MarkdownIt
from safetensors.numpy import load_file

from jaxalign.cli import dispatch
from jaxalign.commands.export import write_folder
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError, printable
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.rope import RopeScaling
from jaxalign.models.transformer import Transformer, TransformerConfig, unrolled
from jaxalign.pretrained.folders import load_folder
from jaxalign.pretrained.hugging_face.config import read_config
from jaxalign.pretrained.hugging_face.writer import config_of
from jaxalign.recipes.model_card import model_card
from jaxalign.recipes.text_models import TextModel, load_text_model, new_parameters, save_text_model
from tests.folders import FILES

HF = FILES / "hf"
NAMES = sorted(path.name for path in HF.iterdir() if path.is_dir())
SIZES = {
    "vocab_size": 268,
    "max_length": 32,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "mlp_width": 24,
}
BIASES = {"qkv_biases": True, "output_biases": True, "mlp_biases": True}
LINEAR = RopeScaling(kind="linear", factor=4.0)
YARN = RopeScaling(kind="yarn", factor=4.0, original_length=8, beta_fast=16.0, truncate=False)
LLAMA3 = RopeScaling(kind="llama3", factor=8.0, original_length=8, low_frequency_factor=2.0)
GEMMA = {
    "activation": "geglu",
    "post_norms": True,
    "embedding_scale": 4.0,
    "attention_scale": 10**-0.5,
    "windows": (4, 0),
}
KINDS = {  # our features: the kind of model that has them
    "llama": {},
    "llama/biases": BIASES | {"rope_scaling": LLAMA3, "activation": "geglu_exact"},
    "gpt2": BIASES | {"norm": "layer", "positions": "learned", "activation": "gelu", "kv_heads": 2},
    "mistral": {"windows": (4, 4), "rope_scaling": YARN, "tie_embeddings": False},
    "qwen2": {"qkv_biases": True, "windows": (0, 4)},
    "qwen3": {"qk_norm": True, "head_size": 6, "rope_scaling": LINEAR},
    "gemma2": GEMMA | {"attention_softcap": 5.0, "logit_softcap": 3.0},
    "gemma3_text": GEMMA | {"qk_norm": True, "window_rope_theta": 1e3, "rope_theta": 1e5},
    "gemma3_text/one": GEMMA | {"qk_norm": True, "rope_scaling": LINEAR},
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat"], 266)


def made(tokenizer, *, ngrams=None, **fields) -> TextModel:
    """A model with those features; no parameter is at a start that hides where it belongs."""
    model = Transformer(TransformerConfig(**SIZES | fields), ngrams=ngrams)
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + draw.normal(0, 0.1, x.shape).astype(np.float32),
        new_parameters(model, jax.random.key(0)),
    )
    return TextModel(model=model, params=params, tokenizer=tokenizer)


def written(folder, text_model, shard_bytes=10**9):
    folder.mkdir()
    write_folder(folder, text_model, shard_bytes=shard_bytes)
    return folder


def same_parameters(ours, theirs, tolerance=0.0):
    leaves = [jax.tree_util.tree_leaves_with_path(tree) for tree in (ours, theirs)]
    assert [path for path, _ in leaves[0]] == [path for path, _ in leaves[1]]
    for (path, one), (_, other) in zip(*leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=str(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_goes_out_as_it_came_in(name, tokenizer, tmp_path):
    config, params = load_folder(HF / name)
    model = TextModel(model=Transformer(config), params=params, tokenizer=tokenizer)
    folder = written(tmp_path / "out", model)
    ours, theirs = (load_file(x / "model.safetensors") for x in (folder, HF / name))
    assert set(ours) == set(theirs)
    rounding = 2.0**-23 if name.startswith("gemma") else 0.0  # 1 + w was kept, w is written
    for tensor, array in theirs.items():
        np.testing.assert_allclose(ours[tensor], array, rtol=0, atol=rounding, err_msg=tensor)
    fields, given = (json.loads((x / "config.json").read_text()) for x in (folder, HF / name))
    assert fields["model_type"] == given["model_type"]
    assert fields["architectures"] == given["architectures"]
    assert read_config(fields, "out") == read_config(given, "in")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_comes_back_as_it_was(kind, tokenizer, tmp_path):
    model = made(tokenizer, **KINDS[kind])
    folder = written(tmp_path / "out", model)
    fields = json.loads((folder / "config.json").read_text())
    assert fields["model_type"] == kind.partition("/")[0]
    back = load_text_model(folder, "model", head="logits")
    gemma = kind.startswith("gemma")
    same_parameters(back.params, model.params, 2.0**-23 if gemma else 0.0)
    text = "the cat sat\n"
    assert back.tokenizer.encode(text) == tokenizer.encode(text)
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))  # as transformers reads
    assert theirs.encode(text).ids == [tokenizer.bos_id, *tokenizer.encode(text)]
    special = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
    assert (back.tokenizer.pad_id, back.tokenizer.bos_id, back.tokenizer.eos_id) == special
    generation = json.loads((folder / "generation_config.json").read_text())
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    assert tuple(generation[name] for name in names) == special
    assert tuple(fields[name] for name in names) == special


@pytest.mark.slow
def test_a_scanned_model_has_the_same_logits(tokenizer, tmp_path):
    model = made(tokenizer, scan_layers=True, dropout=0.1, tie_embeddings=False)
    back = load_text_model(written(tmp_path / "out", model), "model")
    assert back.model.config.dropout == 0 and not back.model.config.scan_layers
    same_parameters(back.params, unrolled(model.model, model.params)[1])
    ids = np.arange(5, 13, dtype=np.int32).reshape(2, 4)
    ours, theirs = (
        x.model.apply({"params": x.params}, ids, np.ones_like(ids, bool)).logits
        for x in (model, back)
    )
    assert back.model.config.token_ranges == ((0, 266),)  # the other two ids are no tokens
    np.testing.assert_allclose(ours[..., :266], theirs[..., :266], atol=1e-5)  # other sums


@pytest.mark.slow
def test_a_large_model_is_written_in_several_files(tokenizer, tmp_path):
    model = made(tokenizer, **KINDS["gpt2"])
    folder = written(tmp_path / "out", model, shard_bytes=8000)
    files = sorted(path.name for path in folder.glob("model*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 3
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    sizes = [sum(x.nbytes for x in load_file(folder / name).values()) for name in files]
    assert sum(sizes) == index["metadata"]["total_size"]
    assert [size for size in sizes if size > 8000] == [268 * 16 * 4]  # one tensor, larger alone
    same_parameters(load_text_model(folder, "model").params, model.params)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_score_head_keeps_its_bias_in_a_file_of_its_own(tokenizer, tmp_path):
    model = made(tokenizer, heads_out=("score",))
    folder = written(tmp_path / "out", model)
    fields = json.loads((folder / "config.json").read_text())
    assert fields["architectures"] == ["LlamaForSequenceClassification"]
    assert fields["id2label"] == {"0": "LABEL_0"}
    readout = model.params["score"]["readout"]
    stored = load_file(folder / "model.safetensors")["score.weight"]
    np.testing.assert_array_equal(stored, readout["kernel"].T)
    bias = load_file(folder / "score_bias.safetensors")
    np.testing.assert_array_equal(bias["score.bias"], readout["bias"])
    same_parameters(load_text_model(folder, "model", head="score").params, model.params)
    (folder / "score_bias.safetensors").unlink()
    back = load_text_model(folder, "model", head="score").params["score"]["readout"]["bias"]
    np.testing.assert_array_equal(back, np.zeros(1))


@pytest.mark.slow
def test_a_value_head_is_named_as_in_trl(tokenizer, tmp_path):
    model = made(tokenizer, heads_out=("logits", "value"))
    folder = written(tmp_path / "out", model)
    head = load_file(folder / "value_head.safetensors")
    readout = model.params["value"]["readout"]
    np.testing.assert_array_equal(head["v_head.summary.weight"], readout["kernel"].T)
    np.testing.assert_array_equal(head["v_head.summary.bias"], readout["bias"])
    back = load_text_model(folder, "model", head="value")
    assert back.model.config.heads_out == ("logits", "value")
    same_parameters(back.params, model.params)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"norm": "layer"}, "norm = layer has no equivalent in a Hugging Face llama"),
        ({"activation": "gelu"}, "activation = gelu has no equivalent"),
        ({"windows": (4, 0)}, r"windows = \(4, 0\) has no equivalent in a Hugging Face mistral"),
        ({"logit_softcap": 3.0}, "logit_softcap = 3.0 has no equivalent in a Hugging Face llama"),
        ({"embedding_scale": 2.0}, "embedding_scale = 2.0 has no equivalent"),
        ({"qkv_biases": True, "mlp_biases": True}, "mlp_biases = True .* Hugging Face qwen2"),
        ({"output_biases": True}, "output_biases = True has no equivalent"),
        (GEMMA | {"embedding_scale": 1.0}, "embedding_scale = 1.0 .* Hugging Face gemma2"),
        (GEMMA | {"attention_scale": 0.3}, "attention_scale = 0.3 .* gemma2"),
        (KINDS["gpt2"] | {"kv_heads": 1}, "kv_heads = 1 has no equivalent in a Hugging Face gpt2"),
        ({"heads": 3, "kv_heads": 3, "head_size": 4}, "width 16 must be a multiple of heads 3"),
    ],
)
def test_what_has_no_equivalent_is_named(fields, line):
    with pytest.raises(UserError, match=line):
        config_of(TransformerConfig(**SIZES | fields))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"heads_out": ("score",), "ngrams": NgramConfig(buckets=8)}, "a bag of tokens, for which"),
        ({"heads_out": ("score",), "score_pooling": "mean"}, "pooling mean, for which"),
        ({"heads_out": ("step_score",)}, "scores steps, for which"),
        ({"heads_out": ("logits", "value"), "value_trunk": "separate"}, "a trunk of their own"),
        ({"heads_out": ("logits", "score")}, "no class there has both"),
    ],
)
def test_heads_without_a_class_are_one_line(fields, line, tokenizer, tmp_path):
    save_text_model(tmp_path / "run" / "model", made(tokenizer, **fields))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=line) as refusal:
        dispatch(["export", "--model", str(tmp_path / "run"), "--output", str(out)])
    assert "\n" not in str(refusal.value) and not out.exists()


VERSIONS = {"jax": "0.10.2", "device": "8 x cpu (mesh)", "configuration": "dpo.DPOConfig"}


def run_directory(folder, model):
    """A run as `jaxalign dpo` leaves it, with made-up numbers."""
    save_text_model(folder / "model", model)
    config = {
        "policy": "org/base-model",
        "data": {"path": "pairs: 1.jsonl", "evaluation_path": ""},
        "dpo": {"beta": 0.25, "loss": "dpo"},
        "place": {"layout": "mesh"},
        "seed": 3,
    }
    row = {"method": "DPO", "win_rate": 0.625, "win_rate_low": 0.5, "win_rate_high": 0.75}
    rows = {"rows": [row], "notes": ["Two raters."]}
    for name, content in (
        ("config", config),
        ("results", rows),
        ("versions", VERSIONS),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.slow
def test_the_card_says_what_the_run_knows_and_no_more(tokenizer, tmp_path):
    run = run_directory(tmp_path / "run", made(tokenizer, heads_out=("logits", "value")))
    out = tmp_path / "out"
    assert dispatch(["export", "--model", str(run), "--output", str(out)]) == out
    card = out / "README.md"
    assert metadata_load(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["jaxalign"],
        "base_model": "org/base-model",
        "license": "unknown",
    }
    text = card.read_text()
    for line in (
        *("# DPO", "- Started from: `org/base-model`", "- Trained on: `pairs: 1.jsonl`"),
        "- DPO, win_rate: 0.625 (95% interval 0.5 to 0.75)",
        "- Base model: `org/base-model`, licence: unknown",
        "- `jaxalign dpo --data.path 'pairs: 1.jsonl' --place.layout mesh --seed 3 "
        "--policy org/base-model --dpo.beta 0.25`",
        *("- Two raters.", "- `dpo.beta`: 0.25", "- jax: 0.10.2"),
        "- 2 layers of width 16, 2 heads",
    ):
        assert f"{line}\n" in text
    body = text.partition("\n---\n")[2]
    for word in ("Held out", "license", "None", "- place.", "win_rate_low", "null"):
        assert word not in body
    with pytest.raises(UserError, match="exists; give a folder that does not, or an empty one"):
        dispatch(["export", "--model", str(run), "--output", str(out)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.parametrize(
    ("data", "names", "line"),
    [
        ({"path": "hf:org/pairs:main:train"}, ["org/pairs"], "`hf:org/pairs:main:train`"),
        ({"path": "org/pairs"}, ["org/pairs"], "`org/pairs`"),
        ({"path": "there/pairs"}, None, "`there/pairs`"),
        ({"path": "pairs.jsonl"}, None, "`pairs.jsonl`"),
        (
            {"path": "", "mixture": {"hf:org/b": 0.7, "c.jsonl": 1, "org/a": 2, "hf:org/b:x": 1}},
            ["org/b", "org/a"],
            "`hf:org/b`, weight 0.7",
        ),
    ],
)
def test_the_card_names_the_data_sets_of_the_hub(
    data, names, line, tokenizer, tmp_path, monkeypatch
):
    """As the hub lists them; a folder of that name on this machine is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "pairs").mkdir(parents=True)
    for name, content in (("config", {"data": data}), ("versions", VERSIONS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    card = model_card(str(tmp_path), made(tokenizer, heads_out=("logits",)))
    assert yaml.safe_load(card.split("---\n")[1]).get("datasets") == names
    assert f"- Trained on: {line}\n" in card


HOSTILE = (
    "![x](http://evil.example/p.png) [y](javascript:alert) <script>alert(1)</script> <http://e.x>",
    "---\nlicense: evil\n---\n# heading\n> quote\n- item\n\n<b>bold</b> | a | b |",
    "`code` ``more`` www.evil.example https://evil.example a@evil.example **b** _c_ ~~d~~ &lt;",
    "\x1b[2J\x00\ud800\u202e 1. one\r\n```\nfence\n```\n$$x$$ \\`",
)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_run_says_is_obeyed_in_its_card(text, tokenizer, tmp_path):
    """Every text of every file, names of fields too, is shown: no link, image, HTML or heading."""
    model = made(tokenizer, heads_out=("logits",))
    results = {
        "rows": [{"method": text, text: 0.5}],
        "reward_model": [{"scorer": text, "pair_accuracy": 0.5}],
        "notes": [text],
    }
    config = {"policy": text, "data": {"path": text, "evaluation_path": text}, text: {text: [text]}}
    for name, content in (
        ("config", config), ("results", results), ("versions", {text: text}),
    ):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    card = model_card(str(tmp_path), model)
    card.encode()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front).keys() == {"library_name", "license", "pipeline_tag", "tags"}
    parser = MarkdownIt("commonmark", {"linkify": True}).enable(["table", "strikethrough"])
    tokens = parser.parse(body)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inline)}
    assert kinds <= {
        *("heading_open", "heading_close", "inline", "paragraph_open", "paragraph_close", "text"),
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
        "code_inline",
    }
    headings = [token for token in tokens if token.type == "heading_open"]
    assert [token.tag for token in headings] == ["h1", *["h2"] * 5]
    said = [child.content for child in inline if child.type == "text"]
    assert not [part for part in said if "evil" in part or "<" in part or "@" in part]
    shown = " ".join(printable(text).split())
    assert sum(shown in child.content for child in inline if child.type == "code_inline") >= 10
    assert not any(ord(letter) < 32 and letter != "\n" for letter in card)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("config", {"policy": 3}, r"config.json: Expected `str`, got `int` - at `\$.policy`"),
        ("config", {"data": {"path": []}}, r"config.json: .* at `\$.data.path`"),
        ("results", {"rows": 3}, r"results.json: .* at `\$.rows`"),
        ("versions", [], "versions.json: Expected `object`, got `array`"),
        ("versions", {"jax": {}}, "versions.json: "),
    ],
)
def test_a_card_of_a_damaged_run_names_file_and_field(name, content, line, tokenizer, tmp_path):
    run = run_directory(tmp_path / "run", made(tokenizer, heads_out=("logits",)))
    (run / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=line):
        dispatch(["export", "--model", str(run), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_card_of_a_folder_names_no_run(tokenizer, tmp_path):
    model = made(tokenizer, heads_out=("score",))
    folder = written(tmp_path / "model", model)
    out = tmp_path / "out"
    out.mkdir()
    dispatch(["export", "--model", str(folder), "--output", str(out)])
    assert metadata_load(out / "README.md")["pipeline_tag"] == "text-classification"
    text = (out / "README.md").read_text()
    bias = float(model.params["score"]["readout"]["bias"][0])
    assert f"`score_bias.safetensors` holds {bias:.6g}" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Model"]


@pytest.mark.slow
def test_transformers_computes_the_same(tokenizer, tmp_path):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    ids = np.arange(5, 21).reshape(2, 8)
    mask = np.ones_like(ids, bool)
    mask[1, 5:] = False
    for kind, fields in KINDS.items():
        model = made(tokenizer, **fields)
        folder = written(tmp_path / kind.replace("/", "_"), model)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            logits = theirs(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
        ours = model.model.apply({"params": model.params}, ids.astype(np.int32), mask).logits
        assert np.abs(ours - logits)[mask].max() < 1e-4, kind
