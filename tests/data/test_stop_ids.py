"""Every token that ends a response, by `generation_config.json` and its like, ends it."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.advantages import missing_eos_penalty
from jaxalign.batches.tokens import TokenBatch
from jaxalign.commands import generate
from jaxalign.commands.export import write_folder
from jaxalign.config.generate import GenerateConfig
from jaxalign.data.chat import response_row
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.pretrained.gguf.tokenizer import load_gguf_tokenizer
from jaxalign.recipes.model_card import model_card
from jaxalign.recipes.text_models import load_text_model, save_text_model
from jaxalign.rollouts.text import ScoredSamples, sample_metrics
from jaxalign.sampling import Samples
from tests.data.test_templates import MODELS, assistant, folder_of, user
from tests.folders import FILES
from tests.pretrained.test_gguf_tokenizer import byte_level
from tests.test_sampling import EOS, NEVER, drawn, prompts_of, responses
from tests.tiny_models import tiny_policy

CHAT = FILES / "chat"
DEFAULTS = {"temperature": 0.6, "top_k": 50, "top_p": 0.9, "do_sample": True}


def folder_with(folder, **files):
    """A tokenizer of 270 tokens (<pad>, <bos>, <eos> first) with JSON files beside it."""
    train_bpe(["the film is good"], 270).save(folder)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({}, (2,)),
        ({"generation_config": {"eos_token_id": 2}}, (2,)),
        ({"generation_config": {"eos_token_id": [0, 2]}}, (2, 0)),
        ({"generation_config": {"eos_token_id": [7, 2, 7, 9]}}, (2, 7, 9)),
        ({"generation_config": {"eos_token_id": 7}}, (2, 7)),
        ({"generation_config": {}, "config": {"eos_token_id": [0, 2]}}, (2, 0)),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": 9}}, (2, 9)),
        # as in transformers, what is in generation_config.json goes before config.json
        ({"generation_config": {"eos_token_id": 7}, "config": {"eos_token_id": 9}}, (2, 7)),
        # a tokenizer that names no EOS of its own has the first of them
        ({"generation_config": {"eos_token_id": [8, 7]}, "tokenizer_config": {}}, (8, 7)),
        (
            {"generation_config": {"eos_token_id": [8]}, "tokenizer_config": {"eos_token": None}},
            (8,),
        ),
    ],
)
def test_where_the_ids_come_from(tmp_path, files, stops):
    tokenizer = load_tokenizer(folder_with(tmp_path, **files))
    assert (tokenizer.stop_ids, tokenizer.eos_id) == (stops, stops[0])


@pytest.mark.slow
@pytest.mark.parametrize("file", ["generation_config", "config"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            '"2"',
            "[]",
            "[[2]]",
            "true",
            "[2, true]",
            "-1",
            "[2, -1]",
            "2.0",
            "{}",
            "270",
            "[2, 999]",
        ),
        *('["<eos>"]', "1e400", "99999999999999999999999", "[null]", "NaN"),
    ],
)
def test_ids_that_are_none_are_one_line(tmp_path, file, value):
    folder = folder_with(tmp_path, **{file: f'{{"eos_token_id": {value}}}'})
    with pytest.raises(UserError, match="eos_token_id") as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        *(
            '{"temperature": "hot"}',
            '{"temperature": -1}',
            '{"temperature": NaN}',
            '{"top_k": 0.5}',
        ),
        *('{"top_p": 1.5}', '{"do_sample": 1}', '{"repetition_penalty": 0}', "[]", "{", "3"),
        '{"top_k": 1, "top_k": 2}',
    ],
)
def test_defaults_that_are_none_are_one_line(tmp_path, fields):
    folder = folder_with(tmp_path, generation_config=fields)
    with pytest.raises(UserError, match=r"generation_config\.json") as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


def test_lists_and_defaults_survive_run_directories_and_export(tmp_path):
    given = DEFAULTS | {"eos_token_id": [7, 2], "transformers_version": "5.0", "own": {"a": [1]}}
    tokenizer = load_tokenizer(folder_with(tmp_path / "given", generation_config=given))
    policy = dataclasses.replace(tiny_policy(16), tokenizer=tokenizer)
    save_text_model(tmp_path / "run" / "model", policy)
    loaded = load_text_model(tmp_path / "run", "model")
    assert loaded.tokenizer.stop_ids == (2, 7)
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", loaded, shard_bytes=10**9)
    ids = {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": 0}
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == DEFAULTS | {"own": {"a": [1]}} | ids
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name: config[name] for name in ids} == ids
    again = load_text_model(tmp_path / "out", "model").tokenizer
    assert (again.stop_ids, again.generation) == ((2, 7), DEFAULTS | {"own": {"a": [1]}})
    assert "ends with `<eos>`, id 2 or" in model_card(str(tmp_path / "out"), loaded)
    plain = dataclasses.replace(tokenizer, also_stop=(), generation={})
    plain.save(tmp_path / "run" / "model")  # a list of another tokenizer would be read as its own
    assert load_text_model(tmp_path / "run", "model").tokenizer.stop_ids == (2,)


@pytest.mark.parametrize("file", ["config", "text_config", "both"])
def test_defaults_that_stand_in_the_configuration_alone(tmp_path, file):
    """As older models have them, and models of several kinds of input in their text part."""
    fields = DEFAULTS | {"eos_token_id": [7, 2]}
    config = {"config": fields, "text_config": {"text_config": fields}}.get(
        file, {"temperature": None, "top_k": 50, "eos_token_id": [7, 2], "text_config": DEFAULTS}
    )
    folder = folder_with(tmp_path / "a", config={"model_type": "gemma3", "top_h": 3} | config)
    loaded = load_tokenizer(folder)
    assert (loaded.stop_ids, loaded.generation) == ((2, 7), DEFAULTS)
    loaded.save(tmp_path / "b")
    again = load_tokenizer(tmp_path / "b")
    assert (again.stop_ids, again.generation) == ((2, 7), DEFAULTS)
    # what is in generation_config.json is all there is, and a model trained here has none there
    (folder / "generation_config.json").write_text('{"top_k": 9}')
    assert load_tokenizer(folder).generation == {"top_k": 9}
    assert not load_tokenizer(folder_with(tmp_path / "c", config={"max_length": 16})).generation


@pytest.mark.slow
def test_sampling_stops_at_the_first_of_them():
    """What is drawn does not depend on where it stops: it is a beginning of the endless text."""
    endless, _ = responses(drawn(prompts_of(), eos_id=NEVER))
    stops = (EOS, int(endless[0, 1]))
    found, logps = responses(drawn(prompts_of(), eos_id=stops))
    one, _ = responses(drawn(prompts_of(), eos_id=EOS))
    assert np.any(found != one)  # the second matters
    for row, whole, nats in zip(found, endless, logps, strict=True):
        ends = [i for i, token in enumerate(whole) if token in stops]
        length = ends[0] + 1 if ends else len(whole)
        assert row.tolist() == whole[:length].tolist() + [-1] * (len(whole) - length)
        assert np.all(nats[:length] < 0) and not nats[length:].any()
    least, _ = responses(drawn(prompts_of(), eos_id=stops, min_new_tokens=3))
    assert not np.isin(least[:, :3], stops).any() and np.isin(least[:, 3:], stops).any()


def test_what_ended_by_any_of_them_has_ended():
    """Responses 5 2, 5 7, 5 5; the 7 of the fourth stands in its prompt."""
    tokens = jnp.array([[4, 5, 2], [4, 5, 7], [4, 5, 5], [7, 5, 5]])
    mask = jnp.array([[False, True, True]] * 4)
    scores = missing_eos_penalty(jnp.ones(4), tokens, mask, eos_id=(2, 7), penalty=3.0)
    assert scores.tolist() == [1, 1, -2, -2]
    rows = TokenBatch(tokens=tokens, prompt_mask=~mask, response_mask=mask, index=jnp.arange(4))
    zeros = jnp.zeros(mask.shape)
    scored = ScoredSamples(
        samples=Samples(batch=rows, logps=zeros),
        scores=scores,
        values=None,
        reference_logps=zeros,
    )
    assert sample_metrics(scored, zeros, eos_id=(2, 7))["response/ended"] == 0.5
    assert sample_metrics(scored, zeros, eos_id=2)["response/ended"] == 0.25


def test_a_turn_ends_with_the_token_of_the_template_that_ends_turns(tmp_path):
    """Gemma's: with the list nothing stands behind <end_of_turn>, as nothing is sampled there."""
    gemma = next(model for model in MODELS if model["template"] == "gemma")
    folder = folder_of(gemma, tmp_path / "gemma")
    alone = load_tokenizer(folder)
    turn = alone.backend.token_to_id("<end_of_turn>")
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": [{alone.eos_id}, {turn}]}}')
    both = load_tokenizer(folder)
    assert both.stop_ids == (alone.eos_id, turn)
    rows = [response_row([user("Why?")], [assistant("So.")], x) for x in (alone, both)]
    assert rows[0].tokens.tolist() == [*rows[1].tokens.tolist(), alone.eos_id]
    assert rows[1].tokens[-1] == turn and rows[1].is_response[-1]
    more = [assistant("So."), user("Well?"), assistant("No.")]
    row = response_row([user("Why?")], more, both)
    assert ((row.tokens == turn) & row.is_response).sum() == 2 and row.tokens[-1] == turn
    assert turn not in both.encode("a <end_of_turn> b")  # said by somebody, it is text


def test_gguf_files_name_several(tmp_path):
    stops = {"eot_token_id": 0, "eom_token_id": 5}
    assert load_gguf_tokenizer(byte_level(tmp_path / "x.gguf", **stops)).stop_ids == (2, 0, 5)
    assert load_gguf_tokenizer(byte_level(tmp_path / "x.gguf", eot_token_id=2)).stop_ids == (2,)


@pytest.mark.slow
def test_generate_says_what_it_draws_with(tmp_path, capsys):
    stops = {"eos_token_id": list(range(2, 270))}  # all but two tokens end a text
    tokenizer = load_tokenizer(folder_with(tmp_path / "t", generation_config=DEFAULTS | stops))
    save_text_model(tmp_path / "model", dataclasses.replace(tiny_policy(16), tokenizer=tokenizer))
    config = GenerateConfig(
        model=str(tmp_path), prompt="the", samples=2, max_new_tokens=8, top_k=50
    )
    texts = generate.run(config)
    assert all(len(tokenizer.encode(text)) < 8 for text in texts)
    line = (
        "drawn with temperature 1, top_k 50, top_p 1; the model's own defaults, not used here: "
        "temperature 0.6, top_p 0.9, do_sample True"
    )
    assert line in capsys.readouterr().out.splitlines()
