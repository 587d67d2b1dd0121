"""Fields of rows and shapes of templates: what they mean is written, or one line says why not."""

import dataclasses
import itertools
import json

import pytest

from jaxalign.data.chat import prompt_ids, response_row
from jaxalign.data.formats import load_records
from jaxalign.data.records import (
    BadRow,
    GoldPreference,
    Preference,
    Prompt,
    PromptCompletion,
    Ranking,
    Unpaired,
)
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.errors import UserError
from tests.folders import FILES

HERE = FILES / "chat"
SHAPES = json.loads((HERE / "expected.json").read_text("utf-8"))["shapes"]
THOUGHT = "<think>\nWell.\n</think>\n\nSo it is."
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory):
    """By a template's name, the tokenizer that expected.json was made with."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "tokenizer.json").write_bytes((HERE / "bytes.json").read_bytes())
    found = {}
    for shape in SHAPES:
        (folder / "tokenizer_config.json").write_text(json.dumps(shape["names"]))
        template = (HERE / "templates" / f"{shape['template']}.jinja").read_text("utf-8")
        loaded = load_tokenizer(folder)
        found[shape["template"]] = dataclasses.replace(loaded, chat_template=template)
    found["smollm2"] = dataclasses.replace(
        loaded, chat_template=(HERE / "templates" / "smollm2.jinja").read_text("utf-8")
    )
    return found.__getitem__


def spelled(tokenizer, ids):
    return tokenizer.backend.decode([int(i) for i in ids], skip_special_tokens=False)


def trained(tokenizer, row):
    """What is trained on, a text for each uninterrupted stretch."""
    stretches = itertools.groupby(zip(row.tokens, row.is_response, strict=True), lambda t: t[1])
    return [spelled(tokenizer, [i for i, _ in part]) for flag, part in stretches if flag]


@pytest.mark.parametrize(
    "shape", SHAPES, ids=[f"{i}-{s['template']}" for i, s in enumerate(SHAPES)]
)
def test_ids_are_those_of_transformers_with_the_same_arguments(shape, tokenizer_of):
    tokenizer = tokenizer_of(shape["template"])
    prompt, answer = shape["messages"][:-1], shape["messages"][-1:]
    ids = prompt_ids(prompt, tokenizer, variables=shape["given"])
    assert ids == shape["prompt_ids"]
    row = response_row(prompt, answer, tokenizer, variables=shape["given"])
    assert row.tokens[: len(ids)].tolist() == ids  # sampled after what is trained after
    assert not row.is_response[: len(ids)].any() and row.is_response[len(ids) :].all()
    whole = shape["ids"]
    drops = shape["template"] == "opens_thought" or shape["given"].get("thinking")
    if drops:  # the template drops the thought of the answer; the policy writes it
        rest = THOUGHT.removeprefix("<think>")
        rest = rest.lstrip() if shape["template"] == "opens_thought" else rest
        assert spelled(tokenizer, row.tokens[len(ids) :]) == f"{rest}<|eot_id|>"
        assert "Well." not in spelled(tokenizer, whole)
    else:
        assert row.tokens.tolist() == whole[: len(row)]
        assert spelled(tokenizer, whole[len(row) :]).strip() == ""


MULTI = [user("Why?")], [assistant("So."), user("Sure?"), assistant("Yes.")]


def test_an_inner_answer_ends_with_its_own_token(tokenizer_of):
    channels = tokenizer_of("channels")
    row = response_row(*MULTI, channels)
    assert trained(channels, row) == [
        "<|im_start|>final<|end_header_id|>So.<|im_end|>",
        "<|im_start|>final<|end_header_id|>Yes.<|eot_id|>",
    ]
    # a token that begins the next turn ends none
    bare = "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}{% endfor %}"
    bare += "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
    row = response_row(*MULTI, dataclasses.replace(channels, chat_template=bare))
    assert trained(channels, row) == ["So.", "Yes.<|eot_id|>"]


def test_thoughts_beside_the_content_are_trained_on(tokenizer_of):
    channels = tokenizer_of("channels")
    row = response_row([user("Why?")], [assistant("So.", thinking="Well.")], channels)
    assert trained(channels, row) == [
        "<|im_start|>analysis<|end_header_id|>Well.<|im_end|>"
        "<|start_header_id|>assistant<|im_start|>final<|end_header_id|>So.<|eot_id|>"
    ]
    # of an earlier answer the template drops them: not in silence where they would be learned
    thought, more = assistant("So.", thinking="Well."), MULTI[1][1:]
    with pytest.raises(UserError, match=r"leaves out 'thinking' of the answer 'So\.'"):
        response_row([user("Why?")], [thought, *more], channels)
    assert "Well" not in channels.decode(prompt_ids([user("Why?"), thought, user("So?")], channels))


def test_a_thought_that_the_header_opens_within_a_generation_block(tokenizer_of):
    r1 = tokenizer_of("opens_thought")
    said = "{{- '<|end_header_id|>' + said + '<|eot_id|>' -}}"
    block = "{{- '<|end_header_id|>' -}}{% generation %}{{- said + '<|eot_id|>' -}}"
    assert said in r1.chat_template
    marked = r1.chat_template.replace(said, block + "{% endgeneration %}")
    marked = dataclasses.replace(r1, chat_template=marked)
    before = [user("Why?"), assistant(THOUGHT), user("Sure?")]
    assert response_row(before, [assistant(THOUGHT)], marked) == response_row(
        before, [assistant(THOUGHT)], r1
    )


NOT_SO = {
    "opens_thought": (
        [assistant("Yes.")],
        r'begin the answer with its thought, "<think>\\n...\\n</think>\\n\\n", be it an empty one$',
    ),
    "last_thought": (MULTI[1], "give each answer a row of its own, the messages before it"),
    "empty_thought": (
        [assistant("Yes.")],
        r'add "chat_template_kwargs": {"enable_thinking": false} to the row or begin the answer',
    ),
}


@pytest.mark.parametrize("template", NOT_SO)
def test_what_cannot_be_trained_on_says_what_would_mend_it_and_that_does(template, tokenizer_of):
    tokenizer = tokenizer_of(template)
    response, advice = NOT_SO[template]
    with pytest.raises(UserError, match=advice) as refusal:
        response_row([user("Why?")], response, tokenizer)
    assert "\n" not in str(refusal.value)
    if template == "last_thought":
        asked = [user("Why?")]
        for i in (0, 2):
            row = response_row([*asked, *response[:i]], [response[i]], tokenizer)
            assert trained(tokenizer, row) == [f"\n</think>\n\n{response[i]['content']}<|im_end|>"]
        return
    mended = [assistant("<think>\n\n</think>\n\nYes.")]
    (text,) = trained(tokenizer, response_row([user("Why?")], mended, tokenizer))
    assert text.removesuffix(tokenizer.token(tokenizer.eos_id)) == "\n</think>\n\nYes."
    if template == "empty_thought":
        row = response_row(
            [user("Why?")], response, tokenizer, variables={"enable_thinking": False}
        )
        assert trained(tokenizer, row) == ["Yes.<|im_end|>"]


def test_advice_is_whole(tokenizer_of):
    with pytest.raises(UserError, match=r"a row of its own, .*, and begin the answer with its th"):
        response_row(*MULTI, tokenizer_of("opens_thought"))


@pytest.mark.parametrize("thought", ["<think>Well.</think>\n\nSo it is.", f"\n{THOUGHT}"])
def test_the_white_space_of_a_header_is_the_headers(thought, tokenizer_of):
    r1 = tokenizer_of("opens_thought")
    row = response_row([user("Why?")], [assistant(thought)], r1)
    ids = prompt_ids([user("Why?")], r1)
    assert row.tokens[: len(ids)].tolist() == ids and spelled(r1, ids).endswith("<think>\n")
    assert "".join(trained(r1, row)[0].split()) == "Well.</think>Soitis.<|eot_id|>"


def loaded(tmp_path, kind, row, **options):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    return load_records(path, kind, **options)


def test_what_a_row_gives_goes_to_the_template(tokenizer_of, tmp_path):
    tokenizer = tokenizer_of("last_thought")
    (shape,) = (s for s in SHAPES if "tools" in s["given"])
    row = {"messages": shape["messages"], "tools": shape["given"]["tools"]}
    for tools in (row["tools"], json.dumps(row["tools"])):  # a list, or its JSON as in tables
        (record,) = loaded(tmp_path, PromptCompletion, row | {"tools": tools}).records
        (found,) = record.token_rows(tokenizer)
        assert found.tokens.tolist() == shape["ids"][: len(found)]
    kwargs = {"chat_template_kwargs": {"enable_thinking": False, "other": None}}
    shape = next(s for s in SHAPES if s["given"] == {"enable_thinking": False})
    for kind, fields, count in [
        (Prompt, {}, 1),
        (PromptCompletion, {"completion": [assistant("Yes.")]}, 1),
        (Preference, {"chosen": [assistant("Yes.")], "rejected": [assistant("No.")]}, 2),
        (Unpaired, {"completion": [assistant("Yes.")], "label": True}, 1),
        (Ranking, {"responses": [[assistant("Yes.")], [assistant("No.")]]}, 2),
        (
            GoldPreference,
            {
                **{"chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
                "gold": [assistant("Yes!")],
            },
            3,
        ),
    ]:
        row = {"prompt": [user("Why?")], **fields, **kwargs}
        (record,) = loaded(tmp_path, kind, row, tokenizer=tokenizer, max_length=99).records
        rows = record.token_rows(tokenizer)
        assert len(rows) == count
        for found in rows:
            start = found.tokens[: len(shape["prompt_ids"])].tolist()
            assert start == shape["prompt_ids"]


def test_sharegpt_names_its_senders_otherwise(tokenizer_of, tmp_path):
    """The same record, and a role of ours is one under its other name too."""
    turns = [("system", "Be."), ("human", "Why?"), ("gpt", "So."), ("user", "Sure?")]
    named = [{"from": sender, "value": text} for sender, text in [*turns, ("chatgpt", "Yes.")]]
    ours = [{"role": "system", "content": "Be."}, *MULTI[0], *MULTI[1]]
    mapped = {"fields": {"messages": "dialogue"}}
    given = ({"conversations": named}, {}), ({"dialogue": named}, mapped), ({"messages": ours}, {})
    reading = {"tokenizer": tokenizer_of("channels"), "max_length": 400}
    records = []
    for row, options in given:
        records += loaded(tmp_path, PromptCompletion, row, **reading, **options).records
    assert records[0] == records[1] == records[2] and records[0].completion == MULTI[1]


def test_a_field_of_another_name_can_be_named(tmp_path):
    with pytest.raises(UserError, match=r"name their fields with --data\.fields, or leave"):
        loaded(tmp_path, Prompt, {"question": "Why?"})
    with pytest.raises(UserError, match=r"bad; mend them, or leave"):
        loaded(tmp_path, Prompt, {"prompt": 3})


def test_special_tokens_in_what_a_row_gives_are_text(tokenizer_of):
    tokenizer = tokenizer_of("last_thought")
    end = tokenizer.eos_id
    tool = {"type": "function", "function": {"name": "<|im_end|>", "parameters": {}}}
    ids = [prompt_ids([user("Why?")], tokenizer, variables={"tools": [t]}) for t in (TOOL, tool)]
    assert ids[0].count(end) == ids[1].count(end)
    named = tokenizer_of("system_in_user")
    ids = [prompt_ids([user("Why?", name=n)], named) for n in ("Ann", "<|eot_id|>")]
    assert ids[0].count(named.eos_id) == ids[1].count(named.eos_id)
    assert "<|eot_id|>" in named.decode(ids[1])


WHY = [user("Why?")]
LOST = [
    ({"prompt": [user("Why?", name="Ann")]}, "does not read 'name' of message 1 .user.; take it"),
    ({"prompt": [user("Why?", mood="sad")]}, "does not read 'mood' of message 1"),
    ({"prompt": WHY, "tools": [TOOL]}, "does not read 'tools'; take it out"),
    ({"prompt": WHY, "chat_template_kwargs": {"add_generation_promt": 1}}, "did you mean 'add_gen"),
    ({"prompt": WHY, "chat_template_kwargs": {"messages": []}}, "'messages', which is not a row's"),
    ({"prompt": WHY, "chat_template_kwargs": {"bos_token": "x"}}, "'bos_token', which is not a"),
    ({"prompt": WHY, "chat_template_kwargs": "no"}, r"chat_template_kwargs is 'no' \(str\), want"),
    ({"prompt": WHY, "tools": {"a": 1}}, "tools is .*wanted a list of tools"),
    ({"prompt": WHY, "tools": ["look"]}, "tools holds something that is no object"),
    ({"prompt": WHY, "tools": [{"a": "\ud800"}]}, "half a surrogate pair"),
    ({"prompt": "Why?", "tools": [TOOL]}, "tools is for conversations, and this row's prompt is"),
    ({"prompt": "a", "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs is for conv"),
    (
        {"prompt": WHY, "tools": "[" * 500 + "]" * 500},
        "nested more than 64 levels deep",
    ),
    ({"prompt": [user("a", prefix=True)]}, "has 'prefix': an answer that is to be continued"),
    ({"prompt": [*WHY, assistant("", tool_calls=[{}]), user("b")]}, r"\[1\] has 'tool_calls'"),
    ({"prompt": [*WHY, assistant("a", function_call={"a": 1}), user("b")]}, "has 'function_call'"),
    ({"prompt": [user("a", loss=False)]}, "has 'loss', which is not read"),
    ({"prompt": [user("a", name="\udc00")]}, "half a surrogate pair"),
    ({"prompt": [{"from": "bing", "value": "a"}]}, r"has role 'bing' \(str\), wanted one of"),
    ({"prompt": [{"from": "human", "value": "a", "content": "b"}]}, "'role'"),
    ({"prompt": [{"from": "human", "value": "a", "weight": 0}]}, "has 'weight', which is not read"),
    ({"prompt": [user([{"type": "image", "url": "x"}])]}, "content of type 'image'"),
    ({"prompt": [user([{"type": "text", "text": "a", "cache": 1}])]}, "wanted {'type': 'text'"),
    ({"prompt": [user(["a"])]}, "wanted {'type': 'text'"),
    ({"prompt": [user([])]}, "has content"),
    (
        {"prompt": WHY, "documents": [{"text": "a"}]},
        "documents is not read; write what .* into the",
    ),
    ({"prompt": WHY, "enable_thinking": False}, "write what .* into chat_template_kwargs, or hide"),
    ({"prompt": "Why?", "system": "Be."}, 'or hide it with --data.fields system ""$'),
    ({"prompt": "Why?", "images": ["a.png"]}, "images is not read"),
    ({"prompt": json.dumps(WHY)}, "is a list of messages written as a text"),
    ({"prompt": str(WHY)}, "is a list of messages written as a text"),
]


@pytest.mark.parametrize("row, reason", LOST)
def test_what_would_be_lost_is_refused_by_name(row, reason, tokenizer_of, tmp_path):
    with pytest.raises(UserError, match=reason) as refusal:
        loaded(tmp_path, Prompt, row, tokenizer=tokenizer_of("smollm2"), max_length=99)
    assert "a.jsonl:1: " in str(refusal.value)


def test_without_a_template_nothing_more_is_written(tokenizer_of):
    plain = dataclasses.replace(tokenizer_of("smollm2"), chat_template=None)
    with pytest.raises(
        UserError, match="'name' is for a chat template, and the tokenizer has none"
    ):
        prompt_ids([user("Why?", name="Ann")], plain)
    with pytest.raises(UserError, match="'tool_call_id' is for a chat template"):
        prompt_ids([user("Why?"), {"role": "tool", "content": "4", "tool_call_id": "a"}], plain)
    with pytest.raises(UserError, match="'tools' is for a chat template"):
        response_row([user("Why?")], [assistant("Yes.")], plain, variables={"tools": [TOOL]})
    told = {"role": "developer", "content": "Be."}
    assert plain.decode(prompt_ids([told, user("Why?")], plain)).startswith("Developer: Be.\nUser:")


NO_EFFECT = [
    user("Why?", id=7, timestamp="2024", name=None),
    user("Why?", tool_calls=[], function_call={}, prefix=False, tool_call_id=None),
    user([{"type": "text", "text": "Wh", "image": None}, {"type": "text", "text": "y?"}]),
]


@pytest.mark.parametrize("message", NO_EFFECT)
def test_what_has_no_effect(message, tokenizer_of, tmp_path):
    tokenizer = tokenizer_of("channels")
    (record,) = loaded(tmp_path, Prompt, {"prompt": [message], "tools": None}).records
    assert record == Prompt([user("Why?")])
    assert record.token_rows(tokenizer)[0].tokens.tolist() == prompt_ids(WHY, tokenizer)


YES, NO = [assistant("Yes.")], [assistant("No.")]
REPEATED = [
    # a text prompt beside whole conversations
    (Preference, {"prompt": "Why?", "chosen": WHY + YES, "rejected": WHY + NO}),
    # the conversation is the prompt's and goes on
    (Preference, {"prompt": WHY, "chosen": WHY + YES, "rejected": WHY + NO}),
    (Preference, {"prompt": WHY, "chosen": WHY + YES, "rejected": NO}),
    # null is absent
    (Preference, {"prompt": None, "chosen": WHY + YES, "rejected": WHY + NO, "margin": None}),
    (PromptCompletion, {"prompt": "Why?", "completion": WHY + YES}),
    (PromptCompletion, {"prompt": WHY, "completion": WHY + YES}),
    (PromptCompletion, {"prompt": None, "completion": None, "messages": WHY + YES, "text": None}),
    (Unpaired, {"prompt": "Why?", "completion": WHY + YES, "label": True}),
    (Ranking, {"prompt": "Why? ", "responses": [WHY + YES, WHY + NO]}),
]


@pytest.mark.parametrize("kind, row", REPEATED)
def test_a_repeated_prompt_is_one_prompt(kind, row):
    record = kind.parse(row)
    assert record.prompt == WHY
    answers = [getattr(record, name, None) for name in ("chosen", "completion")]
    assert YES in answers or record.responses == [YES, NO]


def test_a_text_beside_long_conversations_is_what_begins_them():
    row = {"prompt": "Why?", "chosen": WHY + YES + WHY + YES, "rejected": WHY + YES + WHY + NO}
    assert Preference.parse(row) == Preference(WHY + YES + WHY, YES, NO)


@pytest.mark.parametrize(
    "row, reason",
    [
        (
            {"prompt": "How?", "chosen": WHY + YES, "rejected": WHY + NO},
            "does not repeat it; write",
        ),
        ({"prompt": "Why?", "chosen": YES, "rejected": NO}, 'as .{"role": "user", "content": ...}'),
        (
            {"prompt": WHY, "chosen": WHY, "rejected": WHY + NO},
            "must begin and end with the assist",
        ),
        ({"prompt": WHY, "chosen": "a", "rejected": "b"}, 'as .{"role": "assistant", "content"'),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "prompt is null, and chosen and reject"),
    ],
)
def test_what_is_not_a_repeated_prompt_says_how_to_write_it(row, reason):
    with pytest.raises(BadRow, match=reason):
        Preference.parse(row)


def test_what_is_not_read_can_be_hidden_or_empty(tmp_path):
    row = {"prompt": "Why?", "system": "Be.", "images": [], "history": None, "documents": ""}
    (record,) = loaded(tmp_path, Prompt, row, fields={"system": ""}).records
    assert record == Prompt("Why?")


def test_hiding_a_prompt_is_advised_where_it_helps(tmp_path):
    row = {"prompt": "Why?", "chosen": YES, "rejected": NO}
    with pytest.raises(UserError, match=r'"content": \.\.\.\}\]$'):
        loaded(tmp_path, Preference, row)
    row = {"prompt": "What?", "chosen": WHY + YES, "rejected": WHY + NO}
    with pytest.raises(UserError, match=r'hide it with --data\.fields prompt ""$'):
        loaded(tmp_path, Preference, row)
    (record,) = loaded(tmp_path, Preference, row, fields={"prompt": ""}).records
    assert record == Preference(WHY, YES, NO)


LAST = """{%- for m in messages -%}
{%- set said = m.content.split('</think>')[-1] if m.role == 'assistant' else m.content -%}
{{- '<|im_start|>' + m.role + '\\n' + (CLOSED if m.role == 'assistant' else '') -}}
{{- said + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' + ('<think>' if thinking else CLOSED) -}}
{%- endif -%}"""


@pytest.mark.parametrize("before", [[], [user("Well?"), assistant(THOUGHT)]])
def test_a_thought_that_the_template_drops_is_trained_on_in_the_last_answer(before, tokenizer_of):
    """The header opens none (Nemotron), or is told by a variable whether it does (DeepSeek)."""
    chatml = tokenizer_of("last_thought")
    free = dataclasses.replace(chatml, chat_template=LAST.replace("CLOSED", "''"))
    asked = [*before, user("Why?")]
    ids = prompt_ids(asked, free)
    assert spelled(free, ids).endswith("<|im_start|>assistant\n") and "Well." not in spelled(
        free, ids
    )
    row = response_row(asked, [assistant(THOUGHT)], free)
    assert row.tokens[: len(ids)].tolist() == ids
    assert trained(free, row) == [f"{THOUGHT}<|im_end|>"]
    # words of an answer that are dropped are no thought
    with pytest.raises(UserError, match=r"leaves out a part of the answer 'So </think> it is"):
        response_row(asked, [assistant("So </think> it is.")], free)
    told = dataclasses.replace(chatml, chat_template=LAST.replace("CLOSED", "'</think>'"))
    with pytest.raises(
        UserError, match=r'add "chat_template_kwargs": \{"thinking": true\} to the row'
    ):
        response_row(asked, [assistant(THOUGHT)], told)
    row = response_row(asked, [assistant(THOUGHT)], told, variables={"thinking": True})
    assert trained(told, row) == [f"{THOUGHT.removeprefix('<think>')}<|im_end|>"]
    assert trained(told, response_row(asked, [assistant("So.")], told)) == ["So.<|im_end|>"]
