"""Chat templates: ids are Hugging Face's, masks are the assistant's turns, text stays text."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from jaxalign.commands import generate
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.model import ModelConfig
from jaxalign.data.chat import prompt_ids, response_row, text_row
from jaxalign.data.formats import load_records
from jaxalign.data.marks import pattern_of
from jaxalign.data.records import Prompt
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.errors import UserError
from jaxalign.recipes.text_models import new_text_model, save_text_model
from tests.folders import FILES

HERE = FILES / "chat"
MODELS = json.loads((HERE / "expected.json").read_text("utf-8"))["models"]
NAMES = [f"{model['template']}-{model['tokenizer']}" for model in MODELS]
PAIRS = list(zip(NAMES, MODELS, strict=True))
each_model = pytest.mark.parametrize(("name", "model"), PAIRS, ids=NAMES)
EACH = "{%% for m in messages %%}%s{%% endfor %%}"
CHATML = (HERE / "templates" / "smollm2.jinja").read_text("utf-8")


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def folder_of(model, folder):
    """A pretrained model's: tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes((HERE / f"{model['tokenizer']}.json").read_bytes())
    listed = (
        ["<start_of_turn>", {"content": "<end_of_turn>"}] if model["template"] == "gemma" else []
    )
    names = model["names"] | {"additional_special_tokens": listed}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    template = (HERE / "templates" / f"{model['template']}.jinja").read_bytes()
    (folder / "chat_template.jinja").write_bytes(template)
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    return {
        name: load_tokenizer(folder_of(model, root / name))
        for name, model in zip(NAMES, MODELS, strict=True)
    }


@pytest.fixture
def chatml(tokenizers):
    return tokenizers["smollm2-bytes"]


def spelled(tokenizer, ids):
    """The text of ids with special tokens spelled out."""
    return tokenizer.backend.decode([int(i) for i in ids], skip_special_tokens=False)


def trained(tokenizer, row):
    """What is trained on, a text for each uninterrupted stretch."""
    stretches = itertools.groupby(zip(row.tokens, row.is_response, strict=True), lambda t: t[1])
    return [spelled(tokenizer, [i for i, _ in part]) for flag, part in stretches if flag]


@each_model
def test_ids_are_those_of_hugging_face(name, model, tokenizers):
    tokenizer = tokenizers[name]
    for case in model["rows"]:
        assert prompt_ids(case["prompt"], tokenizer) == case["prompt_ids"]
        row = response_row(case["prompt"], case["response"], tokenizer).tokens.tolist()
        if model["template"] == "gemma":  # ends turns with a token that is not EOS: we add EOS
            assert row.pop() == tokenizer.eos_id
        assert row == case["ids"][: len(row)]
        rest = spelled(tokenizer, case["ids"][len(row) :])
        assert rest == ("" if name[:4] in ("mist", "llam", "phi3") else "\n")


# The assistant's two turns of the second conversation: "So it is." and "No.\n\nSure? ".
TURNS = {
    "smollm2-bytes": ["So it is.<|im_end|>", "No.\n\nSure? <|im_end|>"],
    "qwen2_5-bytes": ["So it is.<|im_end|>", "No.\n\nSure? <|im_end|>"],
    # an answer that was thought about is asked for without the empty thought, so that is trained on
    "qwen3-bytes": ["So it is.<|im_end|>", "<think>\n\n</think>\n\nNo.\n\nSure? <|im_end|>"],
    "llama3-bytes": ["So it is.<|eot_id|>", "No.\n\nSure?<|eot_id|>"],  # it trims
    "gemma-pieces": ["So it is.<end_of_turn>", "No.\n\nSure?<end_of_turn><eos>"],
    "mistral-legacy": [" So it is.</s>", " No.\n\nSure? </s>"],
    "mistral-first": [" So it is.</s>", " No.\n\nSure? </s>"],
    "phi3-legacy": [" So it is.<|end|>", " No.\n\nSure? <|end|></s>"],
    # its blocks have the line end in them; behind the last EOS there is nothing
    "qwen2_5_training-bytes": ["So it is.<|im_end|>\n", "\nNo.\n\nSure? <|im_end|>"],
}


@each_model
def test_trained_on_are_the_answers_and_what_ends_them(name, model, tokenizers):
    case = model["rows"][1]
    row = response_row(case["prompt"], case["response"], tokenizers[name])
    assert trained(tokenizers[name], row) == TURNS[name]
    assert row.is_response[-1] and row.tokens[-1] == tokenizers[name].eos_id


def test_generation_blocks_are_those_of_hugging_face(tokenizers):
    model = MODELS[NAMES.index("qwen2_5_training-bytes")]
    for case in model["rows"]:
        row = response_row(case["prompt"], case["response"], tokenizers["qwen2_5_training-bytes"])
        start = len(case["prompt_ids"])
        assert not row.is_response[:start].any() and row.is_response[start]
        assert row.is_response[start:].tolist() == [bool(m) for m in case["mask"][start : len(row)]]


def test_turns_may_end_with_a_text_or_with_nothing(chatml):
    more = [assistant("So."), user("Why?"), assistant("Yes.")]
    written = EACH % "{{ m.role }}: {{ m.content }}{{ '\n' }}"
    nothing = with_template(chatml, written + "{% if add_generation_prompt %}assistant:{% endif %}")
    row = response_row([user("Well?")], more, nothing)
    assert trained(nothing, row) == [" So.", " Yes.<|im_end|>"]
    text = with_template(chatml, nothing.chat_template.replace("'\n'", "'###\n'"))
    row = response_row([user("Well?")], more, text)
    assert trained(text, row) == [" So.###", " Yes.###<|im_end|>"]
    both = EACH % "A{{ m.content }}<|endoftext|>{{ '\\n' }}"
    both += "{% if add_generation_prompt %}A{% else %}<|im_end|>{% endif %}"
    row = response_row([user("Well?")], more, with_template(chatml, both))
    assert trained(chatml, row) == ["So.<|endoftext|>", "Yes.<|endoftext|>\n<|im_end|>"]
    # a header that the template does not offer to a sampler is for the policy to write
    bare = with_template(chatml, written)
    row = response_row([user("Well?")], more, bare)
    assert trained(bare, row) == ["assistant: So.", "assistant: Yes.<|im_end|>"]


def test_the_last_eos_is_trained_on_though_a_generation_block_leaves_it_out(chatml):
    block = "{% generation %}{{ message['content'] }}{% endgeneration %}"
    inner = "'\n' }}{% if message['role'] == 'assistant' %}" + block
    inner += "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>"
    template = CHATML.replace("' + message['content'] + '<|im_end|>'", inner + "'")
    marked = with_template(chatml, template.replace("\n'\n' }}", "\n' }}"))
    more = [assistant("So."), user("Why?"), assistant("Yes.")]
    row = response_row([user("Well?")], more, marked)
    assert trained(marked, row) == ["So.", "Yes.<|im_end|>"]
    assert row.tokens.tolist() == response_row([user("Well?")], more, chatml).tokens.tolist()


ODD = [
    "\n\nYes",
    " \t",
    "Yes",
    "\nNo. \n",
    "\u00a0é",
    "e\u0301",
    " <",
    "👍🏽",
    "4\n\n\n4",
    "[/INST]",
]


@pytest.mark.parametrize("name", NAMES)
def test_sampling_continues_the_very_ids_that_were_trained_after(name, tokenizers):
    tokenizer = tokenizers[name]
    for asked, first, second in zip(ODD, ODD[3:] + ODD[:3], ODD[5:] + ODD[:5], strict=True):
        start = [user(asked + "?")]
        row = response_row(start, [assistant(first)], tokenizer)
        ids = prompt_ids(start, tokenizer)
        assert row.tokens[: len(ids)].tolist() == ids
        assert not row.is_response[: len(ids)].any() and row.is_response[len(ids) :].all()
        # and what comes before a later answer of one response is what it would be sampled after
        more = [assistant(first), user(second), assistant(asked)]
        row = response_row(start, more, tokenizer)
        ids = prompt_ids([*start, *more[:2]], tokenizer)
        if "training" not in name:
            assert row.tokens[: len(ids)].tolist() == ids
            assert not row.is_response[len(ids) - 1] and row.is_response[len(ids) :].all()


def test_nothing_is_merged_across_the_border_of_prompt_and_response(chatml, tokenizers):
    """With a token for two line ends, which a text alone and a longer text are cut into
    differently.
    """
    written = json.loads(chatml.backend.to_str())
    two = written["added_tokens"][-2]["id"]
    written["model"]["vocab"]["ĊĊ"] = two
    written["model"]["merges"].insert(0, ["Ċ", "Ċ"])
    for token in written["added_tokens"][-2:]:
        token["id"] += 1
    backend = chatml.backend.from_str(json.dumps(written))
    backend.encode_special_tokens = True
    merging = dataclasses.replace(chatml, backend=backend)
    one = merging.encode("\n")
    assert merging.encode("\n\n\nSo") == [two, *one, *merging.encode("So")]
    assert merging.encode("\n\n") == [two] and merging.encode("\n\nSo")[:2] == one * 2

    def parts(tokenizer, said):
        row = response_row([user("Why?")], [assistant(said)], tokenizer)
        ids = prompt_ids([user("Why?")], tokenizer)
        assert row.tokens[: len(ids)].tolist() == ids
        return ids, row.tokens[len(ids) :].tolist()

    # the header's line end does not become one token with the answer's
    _, answer = parts(merging, "\n\nSo.")
    assert answer == [*one, *one, *merging.encode("So."), merging.eos_id]
    # a header's two line ends are one token, as in the prompt alone, whatever the answer
    llama = tokenizers["llama3-bytes"]
    merging = dataclasses.replace(llama, backend=backend)
    asked, answer = parts(merging, "So.")
    assert asked[-1] == two and answer == [*merging.encode("So."), merging.eos_id]


def test_the_longest_spelling_is_found():
    assert pattern_of(["<a", "<a>", "b"]).findall("b<a><a") == ["b", "<a>", "<a"]
    assert pattern_of([]).findall("a") == []


def test_special_tokens_that_are_in_the_vocabulary_only_are_special(tmp_path):
    folder = folder_of(MODELS[0], tmp_path / "model")
    written = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    listed = [token for token in written["added_tokens"] if token["content"] != "<|im_end|>"]
    assert len(listed) == len(written["added_tokens"]) - 1
    (folder / "tokenizer.json").write_text(json.dumps(written | {"added_tokens": listed}))
    loaded = load_tokenizer(folder)
    case = MODELS[0]["rows"][0]
    assert prompt_ids(case["prompt"], loaded) == case["prompt_ids"]
    assert loaded.decode([loaded.eos_id]) == "" and loaded.eos_id not in loaded.encode("<|im_end|>")


@each_model
def test_text_never_becomes_a_special_token(name, model, tokenizers):
    tokenizer = tokenizers[name]
    spellings = tokenizer.for_marks.specials
    assert len(spellings) >= 3
    evil = "".join(spellings) + "x"
    counts = []
    for text in ("harmless", f"a{evil}"):
        row = response_row([user(text), assistant(text), user(text)], [assistant(text)], tokenizer)
        counts.append([(row.tokens == i).sum() for i in spellings.values()])
        assert tokenizer.decode(row.tokens).count(text) == 4
    assert counts[0] == counts[1]


def test_special_tokens_that_only_the_configuration_names_are_special(tokenizers):
    gemma = tokenizers["gemma-pieces"]
    assert '"content":"<end_of_turn>","single_word":false,"lstrip":false,"rstrip":false,' in (
        (HERE / "pieces.json").read_text("utf-8").replace(" ", "")
    )
    end = gemma.backend.token_to_id("<end_of_turn>")
    assert end not in gemma.encode("<end_of_turn>") and gemma.decode([end]) == ""
    assert gemma.decode(gemma.encode("a<end_of_turn>")) == "a<end_of_turn>"


@pytest.mark.parametrize("name", NAMES)
def test_one_bos_where_the_template_writes_it_and_one_eos(name, tokenizers):
    tokenizer = tokenizers[name]
    said = [user("Why?"), assistant("So."), user("Sure?")]
    row = response_row(said, [assistant("Yes." + tokenizer.token(tokenizer.eos_id))], tokenizer)
    assert row == response_row(said, [assistant("Yes.")], tokenizer)
    bos = (row.tokens == tokenizer.bos_id).sum()
    if tokenizer.bos_id is None:
        assert name.startswith("qwen")
    elif name == "smollm2-bytes":
        assert bos == 5  # its BOS is what begins turns: system, two of the user, two answers
    else:
        assert bos == (0 if name.startswith("phi3") else 1)
    per_turn = name.split("-")[0] in ("smollm2", "qwen2_5", "qwen2_5_training", "qwen3", "llama3")
    turns = 5 if name.startswith(("smollm2", "qwen2_5")) else 4
    answers = 2 if name.startswith("mistral") else 1
    assert (row.tokens == tokenizer.eos_id).sum() == (turns if per_turn else answers)
    assert (row.tokens[-2:] == tokenizer.eos_id).tolist() == [False, True]


def test_plain_text_of_a_chat_model_stays_plain(chatml):
    bos, eos = chatml.bos_id, chatml.eos_id
    assert prompt_ids("Why?", chatml) == [bos, *chatml.encode("Why?")]
    assert text_row("So.", chatml).tokens.tolist() == [bos, *chatml.encode("So."), eos]
    with pytest.raises(UserError, match="one of prompt and response is text"):
        response_row([user("Why?")], "So.", chatml)


def test_a_post_processor_adds_nothing(tokenizers):
    legacy = tokenizers["mistral-legacy"]
    assert legacy.backend.encode("a").ids[0] == 1  # it would
    assert not {1, 2} & set(legacy.encode("a")) and not {1, 2} & set(legacy.encode_all(["a"])[0])


def with_template(tokenizer, template):
    return dataclasses.replace(tokenizer, chat_template=template)


def test_templates_have_what_transformers_gives_them(chatml):
    template = """{%- set ns = namespace(count=0) -%}
    {% for m in messages %}
        {% if m.role == "system" %}
            {% continue %}
        {% endif %}
        {% set ns.count = ns.count + 1 %}
{{ ns.count }} {{ m | tojson }}
        {% if ns.count == 2 %}{% break %}{% endif %}
    {% endfor %}
{{ tools is none }} {{ documents is none }} {{ pad_token }} {{ mask_token }} {{ add_bos_token }}
{{ strftime_now("%Y")|length }}"""
    names = {"mask_token": {"content": "<|endoftext|>"}, "add_bos_token": True}
    tokenizer = dataclasses.replace(chatml, chat_template=template, settings=names)
    ids = prompt_ids([user("<é>"), user('"')], tokenizer)
    assert spelled(tokenizer, ids) == (
        '1 {"role": "user", "content": "<é>"}\n2 {"role": "user", "content": "\\""}\n'
        "True True <|im_end|> <|endoftext|> \n4"
    )


BAD = {
    EACH % r"{{ m.content }}{{ '\ud800' }}": "surrogates not allowed",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "does what no template may: access to attr",
    "{{ messages.append(1) }}": "does what no template may",
    "{{ cycler.__init__.__globals__.os.system('true') }}": "does what no template may",
    "{% for i in range(1000000000) %}x{% endfor %}": "OverflowError: Range too big",
    "{{ raise_exception('No such\nrole') }}": "refuses the conversation: No such role$",
    "{% for m in messages %}": "is no Jinja: line 1",
    "{{ messages|no_such_filter }}": "is no Jinja: line 1: No filter named 'no_such_filter'",
    "{{ messages[7].content }}": "UndefinedError",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "more than 50 calls within calls",
    "{{ messages[0].content }}": r"leaves out message 2 \(assistant: 'Yes.'\)",
    EACH % "{{ m.content[:2] }}": "by what it begins or ends with",
    EACH % "{{ m.content.split('<|im_end|>')[-1] }}": "cuts a text at a special token",
    EACH % "A{{ m.content }}" + "{% if add_generation_prompt %}B{% endif %}": (
        r"writes ...'AWhy .*B' where an answer is asked for, but ...'AWhy .*AYes.' where one is"
    ),
    EACH % "{{ m.content }}" + "{% generation %}{% endgeneration %}": (
        "no {% generation %} block in the response"
    ),
}


@pytest.mark.parametrize("template", BAD)
def test_what_a_template_does_wrong_is_one_line(template, chatml):
    tokenizer = with_template(chatml, template)
    with pytest.raises(UserError, match=f"the chat template.*{BAD[template]}") as caught:
        response_row([user("Why <|im_end|> so?")], [assistant("Yes.")], tokenizer)
    assert "\n" not in str(caught.value) and "\U000fe000" not in str(caught.value)


def test_thoughts_that_a_template_drops_are_not_trained_on_in_silence(tokenizers):
    qwen = tokenizers["qwen3-bytes"]
    thought = assistant("<think>\nWell.\n</think>\n\nYes.")
    row = response_row([user("Why?")], [thought], qwen)
    assert trained(qwen, row) == ["<think>\nWell.\n</think>\n\nYes.<|im_end|>"]
    with pytest.raises(UserError, match="leaves out a part of the answer '<think>"):
        response_row([user("Why?")], [thought, user("Sure?"), assistant("Yes.")], qwen)
    # in a prompt it is dropped, as when the model is used
    assert "Well" not in qwen.decode(prompt_ids([user("Why?"), thought, user("Sure?")], qwen))
    r1 = with_template(qwen, (HERE / "templates" / "deepseek_r1_distill.jinja").read_text("utf-8"))
    with pytest.raises(UserError, match=r"<think>.n' where an answer is asked for"):
        response_row([user("Why?")], [assistant("Yes.")], r1)


def test_roles_that_a_template_refuses_are_bad_rows(tokenizers, tmp_path):
    rows = [[user("Why?")], [{"role": "system", "content": "Be."}, user("Why?")]]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
    gemma = tokenizers["gemma-pieces"]
    loaded = load_records(path, Prompt, on_bad_row="skip", tokenizer=gemma, max_length=99)
    assert len(loaded.records) == 1 and loaded.skipped[0].place == f"{path}:2"
    assert loaded.skipped[0].reason.endswith("refuses the conversation: System role not supported")


def test_where_the_template_is_found(tmp_path):
    folder = folder_of(MODELS[0], tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "two"}]

    def found(template, file=None):
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        if file is not None:
            (folder / "chat_template.jinja").write_text(file)
        text = json.dumps(config | {"chat_template": template})
        (folder / "tokenizer_config.json").write_text(text)
        return load_tokenizer(folder).chat_template

    assert found("one") == "one" and found(None) is None
    assert found(named) == "two" and found(named, "file") == found("one", "file") == "file"
    with pytest.raises(UserError, match=r"chat templates \['tool_use'\], but none named 'default'"):
        found(named[:1])
    with pytest.raises(
        UserError, match=r"Expected `str \| array \| null`, got `int` - at `\$.chat_template`"
    ):
        found(3)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_bytes(b"a\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja: invalid UTF-8 at byte 2$"):
        load_tokenizer(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json is not JSON"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="Expected `object`, got `array`"):
        load_tokenizer(folder)


def test_what_is_saved_is_what_was_loaded(tmp_path):
    folder = folder_of(MODELS[NAMES.index("gemma-pieces")], tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False}
    config |= {"model_max_length": 10**30, "chat_template": "not this one"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    template = "{{ messages[0].content }}\r\n<é>\n"  # to the letter, line ends too
    (folder / "chat_template.jinja").write_bytes(template.encode())
    loaded = load_tokenizer(folder)
    loaded.save(tmp_path / "new")
    assert (tmp_path / "new" / "chat_template.jinja").read_bytes() == template.encode()
    saved = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    del config["chat_template"]
    assert saved == config | {"pad_token": "<eos>"}
    again = load_tokenizer(tmp_path / "new")
    assert (again.chat_template, again.settings) == (template, saved)
    asked = [user("Why?<eos>")]
    assert prompt_ids(asked, again) == prompt_ids(asked, loaded)
    with_template(loaded, None).save(tmp_path / "new")  # the old template does not outlive it
    assert load_tokenizer(tmp_path / "new").chat_template is None


@pytest.mark.slow
@pytest.mark.parametrize("template", [CHATML, None])
def test_generate_answers_a_chat(template, tokenizers, tmp_path, monkeypatch):
    tokenizer = with_template(tokenizers["smollm2-bytes"], template)
    tiny = ModelConfig(layers=1, width=8, heads=1)
    save_text_model(tmp_path, new_text_model(tiny, tokenizer, jax.random.key(0), max_length=64))
    drawn = []
    real = generate.sample
    monkeypatch.setattr(generate, "sample", lambda *a, **k: drawn.append(a[2]) or real(*a, **k))
    config = GenerateConfig(
        model=str(tmp_path), prompt="Why?", chat=True, samples=2, max_new_tokens=4
    )
    texts = generate.run(config)
    asked = np.asarray(drawn[0].tokens[1])[np.asarray(drawn[0].mask[1])]
    assert asked.tolist() == prompt_ids([user("Why?")], tokenizer)
    assert len(texts) == 2 and not any("Why?" in text for text in texts)
    with pytest.raises(UserError, match="--prompt is empty; with --chat it is what the user says"):
        generate.run(dataclasses.replace(config, prompt=" "))
