"""Users' data: every row is read rightly or named with its place and fault; nothing else happens to
it.
"""

import json
import math
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from jaxalign.data.formats import load_records
from jaxalign.data.prompts_and_responses import shared_messages, shared_text
from jaxalign.data.records import (
    MarginPreference,
    Preference,
    Prompt,
    PromptCompletion,
    PromptRow,
    Ranking,
    Stepwise,
    Unpaired,
)
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.errors import UserError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


ASK, YES, NO = [user("Is it blue?")], [assistant("Yes.")], [assistant("No.")]

# One example of each format that TRL documents, and what it means.
DOCUMENTED = [
    (Prompt, {"prompt": "The sky is"}, ("The sky is",)),
    (Prompt, {"prompt": ASK}, (ASK,)),
    (PromptCompletion, {"prompt": "The sky is", "completion": " blue."}, ("The sky is", " blue.")),
    (PromptCompletion, {"prompt": ASK, "completion": YES}, (ASK, YES)),
    (PromptCompletion, {"text": "The sky is blue."}, ("", "The sky is blue.")),
    (PromptCompletion, {"messages": ASK + YES + ASK + NO}, (ASK, YES + ASK + NO)),
    (
        Preference,
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        ("The sky is", " blue.", " green."),
    ),
    (
        Preference,
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        ("The sky is", " blue.", " green."),
    ),
    (Preference, {"prompt": ASK, "chosen": YES, "rejected": NO}, (ASK, YES, NO)),
    (Preference, {"chosen": ASK + YES, "rejected": ASK + NO}, (ASK, YES, NO)),
    (
        Unpaired,
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        ("The sky is", " blue.", True),
    ),
    (Unpaired, {"prompt": ASK, "completion": NO, "label": False}, (ASK, NO, False)),
    (
        MarginPreference,
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 0.5},
        ("a", "b", "c", 0.5),
    ),
    (MarginPreference, {"prompt": "a", "chosen": "b", "rejected": "c"}, ("a", "b", "c", 0.0)),
    (Ranking, {"prompt": "a", "responses": ["b", "c", "d"]}, ("a", ["b", "c", "d"])),
    (Ranking, {"prompt": ASK, "responses": [YES, NO]}, (ASK, [YES, NO])),
    (
        Stepwise,
        {"prompt": "a", "completions": ["b", "c"], "labels": [True, False]},
        ("a", ["b", "c"], [1.0, 0.0]),
    ),
    (Stepwise, {"prompt": "", "completions": ["b"], "labels": [0.25]}, ("", ["b"], [0.25])),
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("write, name", [(write_jsonl, "a.jsonl"), (write_parquet, "a.parquet")])
@pytest.mark.parametrize("kind, row, expected", DOCUMENTED)
def test_documented_formats(kind, row, expected, write, name, tmp_path):
    loaded = load_records(write(tmp_path / name, [row, row]), kind)
    assert loaded.records == [kind(*expected)] * 2 and not loaded.skipped


BEGIN_AND_END = "must begin and end with the assistant"
BAD = [
    (Prompt, {}, r"no 'prompt'; the row has \[\]"),
    (Prompt, {"question": "x"}, r"no 'prompt'; the row has \['question'\]"),
    (Prompt, {"prompt": None}, "prompt is null"),
    (Prompt, {"prompt": " \n"}, "prompt is empty"),
    (Prompt, {"prompt": 3}, r"prompt is '3' \(int\), wanted text or a list"),
    (Prompt, {"prompt": []}, "prompt has no messages"),
    (Prompt, {"prompt": ["hi"]}, r"prompt\[0\] is 'hi' \(str\), wanted"),
    (Prompt, {"prompt": [{"content": "hi"}]}, r"no 'role'; the row has \['content'\]"),
    (Prompt, {"prompt": [{"role": "bot", "content": "hi"}]}, r"prompt\[0\] has role 'bot'"),
    (Prompt, {"prompt": [{"role": ["user"], "content": "hi"}]}, r"prompt\[0\] has role"),
    (Prompt, {"prompt": [*ASK, {"role": "user", "content": None}]}, r"prompt\[1\] has content"),
    (Prompt, {"prompt": [ASK[0] | {"weight": 0}]}, r"prompt\[0\] has 'weight', which is not read"),
    (Prompt, {"prompt": [ASK[0] | {"tool_calls": [1]}]}, r"prompt\[0\] has 'tool_calls'"),
    (Prompt, {"prompt": ASK + YES}, "prompt ends with the assistant"),
    (Prompt, {"prompt": "\ud800"}, "half a surrogate pair"),
    (Prompt, {"prompt": [user("x\udfff")]}, r"prompt\[0\] holds half a surrogate pair"),
    (PromptCompletion, {"prompt": "a", "completion": ""}, "completion is empty"),
    (PromptCompletion, {"prompt": "a", "completion": "\t "}, "completion is empty"),
    (
        PromptCompletion,
        {"prompt": "a", "completion": YES},
        "text, but completion is a conversation",
    ),
    (PromptCompletion, {"prompt": ASK, "completion": "a"}, "conversation, but completion is text"),
    (PromptCompletion, {"prompt": ASK, "completion": ASK}, BEGIN_AND_END),
    (PromptCompletion, {"prompt": ASK, "completion": YES + ASK}, BEGIN_AND_END),
    (PromptCompletion, {"prompt": ASK, "completion": [assistant(" ")]}, "has an empty answer"),
    (PromptCompletion, {"completion": "a"}, r"no 'prompt'"),
    (PromptCompletion, {"text": " "}, "text is empty"),
    (PromptCompletion, {"messages": ASK}, "messages hold no answer"),
    (PromptCompletion, {"messages": YES}, "messages hold no answer"),
    (PromptCompletion, {"messages": YES + ASK + YES}, "messages hold no answer"),
    (PromptCompletion, {"messages": "a"}, "messages is text, wanted a list"),
    (Preference, {"prompt": "a", "chosen": "b"}, "no 'rejected'"),
    (Preference, {"prompt": "a", "chosen": "b", "rejected": ""}, "rejected is empty"),
    (Preference, {"prompt": "a", "chosen": "b", "rejected": "b "}, "the same"),
    (Preference, {"prompt": "a", "chosen": "\u00e9", "rejected": "e\u0301"}, "the same"),
    (Preference, {"prompt": ASK, "chosen": YES, "rejected": YES}, "the same"),
    (Preference, {"chosen": "a b", "rejected": "a b"}, "the same"),
    (Preference, {"chosen": ASK + YES, "rejected": ASK + YES}, "the same"),
    (Preference, {"chosen": ASK + YES, "rejected": "a"}, "one of chosen and rejected is text"),
    (Preference, {"chosen": ASK + YES, "rejected": [user("Why?"), *NO]}, "share no message"),
    (Preference, {"chosen": YES, "rejected": NO}, "share no message"),
    (Preference, {"chosen": ASK, "rejected": ASK}, "share no message"),
    (Preference, {"prompt": None, "chosen": "b", "rejected": "c"}, "prompt is null"),
    (Unpaired, {"prompt": "a", "completion": "b"}, "no 'label'"),
    (Unpaired, {"prompt": "a", "completion": "b", "label": "true"}, r"label is 'true' \(str\)"),
    (Unpaired, {"prompt": "a", "completion": "b", "label": 2}, "label is '2'"),
    (Unpaired, {"prompt": "a", "completion": "b", "label": 1.0}, "label is '1.0'"),
    (Unpaired, {"prompt": "a", "completion": "b", "label": None}, "label is null"),
    *(
        (
            MarginPreference,
            {"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin},
            reason,
        )
        for margin, reason in [
            (-1, "margin is '-1' .*, wanted a number from 0 to 1,000,000,000"),
            (math.nan, "margin is 'nan'"),
            (math.inf, "margin is 'inf'"),
            (True, r"margin is 'True' \(bool\)"),
            ("1", r"margin is '1' \(str\)"),
        ]
    ),
    *(
        (Ranking, {"prompt": "a"} | row, reason)
        for row, reason in [
            ({}, "no 'responses'"),
            ({"responses": "b"}, "responses is 'b' .*, wanted a list of answers, the best first"),
            ({"responses": []}, "responses has 0 answers; a ranking takes two or more"),
            ({"responses": ["b"]}, "responses has 1 answers; a ranking takes two or more"),
            ({"responses": ["b", None]}, r"responses\[1\] is null"),
            ({"responses": ["b", " "]}, r"responses\[1\] is empty"),
            ({"responses": ["b", "c", "b "]}, r"responses\[0\] and responses\[2\] are the same"),
            ({"responses": ["b", YES]}, r"text, but responses\[1\] is a conversation"),
        ]
    ),
    *(
        (Stepwise, {"prompt": "a", "completions": ["b", "c"], "labels": [1, 0]} | row, reason)
        for row, reason in [
            ({"labels": [True]}, "2 completions, but 1 labels"),
            ({"labels": None}, "labels is null"),
            ({"labels": True}, "labels is 'True' .*, wanted a list of a label for each step"),
            ({"labels": [True, None]}, r"labels\[1\] is null"),
            ({"labels": [1, 1.5]}, r"labels\[1\] is '1.5' .*, wanted true, false or a number in"),
            ({"labels": [-0.1, 0]}, r"labels\[0\] is '-0.1'"),
            ({"labels": ["true", 0]}, r"labels\[0\] is 'true' \(str\)"),
            ({"labels": [math.nan, 0]}, r"labels\[0\] is 'nan'"),
            ({"completions": [], "labels": []}, "completions has no steps"),
            ({"completions": "b"}, "completions is 'b' .*, wanted a list of steps"),
            ({"completions": ["b", ""]}, r"completions\[1\] is empty"),
            ({"completions": ["b", YES]}, r"text, but completions\[1\] is a conversation"),
            ({"prompt": ASK}, "prompt is a conversation; steps follow a text"),
        ]
    ),
]

GOOD = {Prompt: 0, PromptCompletion: 2, Preference: 6, Unpaired: 10}
GOOD |= {MarginPreference: 12, Ranking: 14, Stepwise: 16}


@pytest.mark.parametrize("kind, row, reason", BAD)
def test_a_bad_row_is_named_and_the_others_are_kept(kind, row, reason, tmp_path):
    good = DOCUMENTED[GOOD[kind]][1]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (good, row, good)))
    with pytest.raises(UserError, match=r"(?s)1 of 3 rows are bad; .*a\.jsonl:2: .*" + reason):
        load_records(path, kind)
    loaded = load_records(path, kind, on_bad_row="skip")
    assert len(loaded.records) == 2
    assert [bad.place for bad in loaded.skipped] == [f"{path}:2"]
    assert str(loaded).startswith(f"2 of 3 rows used\n  {path}:2: ")


BYTES = [
    (b'{"prompt": "a\xff"}', "invalid UTF-8 at byte 14 of the line"),
    ('{"prompt": "naïve"}'.encode("latin-1"), "invalid UTF-8 at byte 15"),
    (b'{"prompt": "a"', "invalid JSON"),
    (b"{'prompt': 'a'}", "invalid JSON"),
    (b'{"prompt": "a"} {"prompt": "b"}', "invalid JSON: Extra data"),
    (b'["prompt"]', "not an object but list"),
    (b'"prompt"', "not an object but str"),
    (b"null", "not an object but NoneType"),
    (b"[" * 100_000, "invalid JSON: nested too deeply"),
    (b'{"prompt": ' + b"9" * 5000 + b"}", "invalid JSON"),
    (b'{"prompt": "a", "prompt": "b"}', "'prompt' stands there twice"),
    (b"\x00", "invalid JSON"),
]


@pytest.mark.parametrize("line, reason", BYTES)
def test_a_line_that_is_no_row_is_named(line, reason, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "x"}\n\n' + line + b'\n{"prompt": "y"}')
    loaded = load_records(path, Prompt, on_bad_row="skip")
    assert [record.prompt for record in loaded.records] == ["x", "y"]
    assert loaded.skipped[0].place == f"{path}:3" and reason in loaded.skipped[0].reason
    assert len(loaded.skipped) == 1


def test_bytes_that_are_fine(tmp_path):
    path = tmp_path / "a.jsonl"
    separators = "a\u2028b\u0085c"  # line ends for str.splitlines, not for JSON Lines
    lines = ['{"prompt": "x"}', "", "   ", json.dumps({"prompt": separators}, ensure_ascii=False)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    loaded = load_records(path, Prompt)
    assert [record.prompt for record in loaded.records] == ["x", separators]
    path.write_bytes(b'{"prompt": "\\ud83d\\ude00"}')  # a whole pair is one character
    assert load_records(path, Prompt).records == [Prompt("😀")]


def test_only_the_first_few_are_listed_and_all_are_counted(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": ""}] * 8 + [{"prompt": "x"}])
    with pytest.raises(UserError) as error:
        load_records(path, Prompt)
    places = ", ".join(f"{path}:{n}" for n in range(1, 6))
    assert "8 of 9 rows are bad" in str(error.value)
    assert str(error.value).endswith(f"\n  {places} and 3 more: prompt is empty")
    rows = [{"prompt": "x", "completion": "y", "label": n} for n in range(2, 10)]
    with pytest.raises(UserError) as error:
        load_records(write_jsonl(tmp_path / "b.jsonl", rows), Unpaired)
    assert str(error.value).count("wanted true or false") == 5
    assert str(error.value).endswith("\n  and 3 more")
    loaded = load_records(path, Prompt, on_bad_row="skip")
    assert [bad.place for bad in loaded.skipped] == [f"{path}:{n}" for n in range(1, 9)]


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": ""}])
    with pytest.raises(UserError, match="no usable row"):
        load_records(path, Prompt, on_bad_row="skip")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no usable row"):
        load_records(path, Prompt)


def test_too_long_rows_are_named_by_their_number_of_tokens(tmp_path):
    tokenizer = train_tokenizer(["a b c d e"] * 2, vocab_size=270)
    rows = [{"prompt": "a", "chosen": " b", "rejected": " c d e"}, DOCUMENTED[7][1]]
    path = write_jsonl(tmp_path / "a.jsonl", rows[:1])
    # BOS, "a", " c", " d", " e", EOS
    assert load_records(path, Preference, tokenizer=tokenizer, max_length=6).records
    with pytest.raises(UserError, match=r"a\.jsonl:1: 6 tokens, the limit is 5"):
        load_records(path, Preference, tokenizer=tokenizer, max_length=5)


def test_rows_too_long_for_any_tokenizer_are_named_before_one_is_learned(tmp_path):
    """At most 2^16 bytes and 32 a token: in characters of two bytes half as many."""
    allowed = 2**16 + 32 * 8
    long = "é" * (allowed // 2)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": long + "é"}]
    rows = [{"text": long}, {"text": long + "a"}, {"messages": messages}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    loaded = load_records(path, PromptCompletion, max_length=8, on_bad_row="skip")
    assert [record.completion for record in loaded.records] == [long]
    wanted = "more than 8 tokens, the limit, can have"
    assert [(bad.place.rsplit(":")[-1], bad.reason) for bad in loaded.skipped] == [
        ("2", f"completion has {allowed + 1:,} bytes, {wanted}"),
        ("3", f"completion has {allowed + 2 + len('assistant'):,} bytes, {wanted}"),
    ]
    other = {"prompt": "a", "columns": "x" * 2 * allowed}  # which no tokenizer reads
    path = write_jsonl(tmp_path / "b.jsonl", [other])
    assert load_records(path, PromptRow, max_length=8).records


def test_fields_are_renamed_and_hidden(tmp_path):
    rows = [{"question": "Q", "answer": "A", "prompt": 3}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    fields = {"prompt": "question", "completion": "answer"}
    renamed = load_records(path, PromptCompletion, fields=fields)
    assert renamed.records == [PromptCompletion("Q", "A")]
    # a name that is not there must not fall back to a column that happens to have our name
    with pytest.raises(UserError, match=r"no row has the field 'questoin' .* mean 'question'\?$"):
        load_records(path, PromptCompletion, fields=fields | {"prompt": "questoin"})
    # nor, of pairs, be as if there were no prompt
    pairs = write_jsonl(tmp_path / "c.jsonl", [{"question": "Q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match=r"no row has the field 'nix' of --data\.fields; they"):
        load_records(pairs, Preference, fields={"prompt": "nix"})
    with pytest.raises(UserError, match=r"no such fields: \['promt'\]"):
        load_records(path, PromptCompletion, fields={"promt": "question"})
    pair = {"prompt": "It is blue.", "chosen": ASK + YES, "rejected": ASK + NO}
    path = write_jsonl(tmp_path / "b.jsonl", [pair])
    with pytest.raises(UserError, match="prompt is text, but chosen is a conversation"):
        load_records(path, Preference)
    hidden = load_records(path, Preference, fields={"prompt": ""})
    assert hidden.records == [Preference(ASK, YES, NO)]


@pytest.mark.parametrize(
    "chosen, rejected, prompt",
    [
        ("The sky is blue.", "The sky is black.", "The sky is"),  # not "The sky is bl"
        ("Q: a\n\nA: yes", "Q: a\n\nA: no", "Q: a\n\nA:"),
        ("one two", "one two three", "one"),  # something is left of both
        ("one", "one two", ""),
        ("same", "other", ""),
        ("  lead a", "  lead b", "  lead"),
        ("a  b", "a  c", "a"),  # the spaces go with the answer
        ("a b ", "a c", "a"),
        ("x ", "x  ", ""),
        ("你好吗？我很好", "你好吗？不好", ""),
        ("👍🏽 a", "👍🏿 a", ""),  # no character is cut in half
        ("go left", "go\tleft", "go"),
    ],
)
def test_the_shared_text_ends_with_a_word(chosen, rejected, prompt):
    assert shared_text(chosen, rejected) == shared_text(rejected, chosen) == prompt


def test_shared_messages_stop_before_an_answer():
    why = [user("Why?")]
    assert shared_messages(ASK + YES + why + YES, ASK + YES + why + NO) == 3
    # the answers go on differently after the same answer: the prompt is the question before it
    assert shared_messages(ASK + YES, ASK + YES + why + NO) == 1
    assert shared_messages(ASK + YES + why + YES, ASK + YES + ASK + NO) == 1


def test_parquet_places_types_and_nulls(tmp_path):
    rows = [{"prompt": "x", "n": 1}, {"prompt": None, "n": 2}, {"prompt": "y", "n": None}]
    path = write_parquet(tmp_path / "a.parquet", rows)
    loaded = load_records(path, Prompt, on_bad_row="skip")
    assert [record.prompt for record in loaded.records] == ["x", "y"]
    assert [(bad.place, bad.reason) for bad in loaded.skipped] == [
        (f"{path}: row 2", "prompt is null")
    ]
    path = write_parquet(tmp_path / "b.parquet", [{"prompt": 1}])
    with pytest.raises(UserError, match=r"b\.parquet: row 1: prompt is '1' \(int\)"):
        load_records(path, Prompt)


def test_parquet_with_invalid_utf8_names_the_row(tmp_path):
    binary = pyarrow.array([b"x", b"a\xff", b"y"], pyarrow.binary())
    table = pyarrow.table({"prompt": binary.view(pyarrow.string())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    loaded = load_records(tmp_path / "a.parquet", Prompt, on_bad_row="skip")
    assert [record.prompt for record in loaded.records] == ["x", "y"]
    assert loaded.skipped[0].place.endswith("row 2")
    assert loaded.skipped[0].reason == "prompt: invalid UTF-8 at byte 2 of a text"


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 not at all")
    with pytest.raises(UserError, match=r"a\.parquet: not readable as Parquet"):
        load_records(path, Prompt)
    whole = write_parquet(tmp_path / "b.parquet", [{"prompt": "x"}] * 100).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.parquet: not readable as Parquet"):
        load_records(path, Prompt)


def test_several_files_are_read_in_the_order_of_their_names(tmp_path):
    for n in (2, 0, 1):
        write_jsonl(tmp_path / f"part-{n}.jsonl", [{"prompt": f"x{n}"}, {"prompt": ""}])
    loaded = load_records(tmp_path / "part-*.jsonl", Prompt, on_bad_row="skip")
    assert [record.prompt for record in loaded.records] == ["x0", "x1", "x2"]
    assert [bad.place[-9:] for bad in loaded.skipped] == [f"-{n}.jsonl:2"[-9:] for n in range(3)]
    odd = write_jsonl(tmp_path / "[odd]*.jsonl", [{"prompt": "x"}])  # a name, not a pattern
    assert len(load_records(odd, Prompt).records) == 1


def test_sources_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match="no file"):
        load_records(tmp_path / "none.jsonl", Prompt)
    (tmp_path / "a.md").write_text("prompt\nx\n")
    with pytest.raises(UserError, match=r"must end in \.jsonl, .* \.feather; \.gz may follow"):
        load_records(tmp_path / "a.md", Prompt)
    with pytest.raises(UserError, match="on_bad_row"):
        load_records(tmp_path / "a.md", Prompt, on_bad_row="ignore")
    with pytest.raises(UserError, match="not of the form tfds:name/config:split"):
        load_records("tfds:imdb_reviews", Prompt)
    with pytest.raises(UserError, match="tfds:no_such_dataset:train: "):
        load_records("tfds:no_such_dataset:train", Prompt)
    with pytest.raises(UserError, match=r"gsm8kk not found; did you mean gsm8k\?$"):
        load_records("tfds:gsm8kk:train", Prompt)


def test_reading_keeps_one_row_in_memory(tmp_path):
    filler = "x" * 10_000
    rows = [{"prompt": "p", "filler": filler}] * 1000  # 10 MB, of which we keep little
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    load_records(path, Prompt)  # what it imports is not counted
    tracemalloc.start()
    load_records(path, Prompt)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_data_sets_that_register_late_are_found(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    found = []

    def data_source(name, **kwargs):
        found.append(tfds.builder_cls(name).__name__)
        return [{"question": b"How many?"}]

    monkeypatch.setattr(tfds, "data_source", data_source)
    loaded = load_records("tfds:gsm8k:train[:1]", Prompt, fields={"prompt": "question"})
    assert found == ["Gsm8k"] and loaded.records == [Prompt("How many?")]


@pytest.fixture(scope="module")
def local_tfds(tmp_path_factory):
    """A data set with questions, answers and conversations, prepared without tensorflow."""
    import tensorflow_datasets as tfds

    directory = tmp_path_factory.mktemp("tfds")
    examples = [
        {"question": "Q1", "answer": "A1", "label": 1, "turns": ASK + YES},
        {"question": "Q2 é", "answer": " ", "label": 0, "turns": ASK + NO},
    ]

    class LocalQuestions(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        code_path = None

        def _info(self):
            text = tfds.features.Text()
            label = tfds.features.ClassLabel(num_classes=2)
            turns = tfds.features.Sequence({"role": text, "content": text})
            features = tfds.features.FeaturesDict(
                {"question": text, "answer": text, "label": label, "turns": turns}
            )
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(examples)

    from jaxalign.data.ratings.load import quiet_tfds

    with quiet_tfds():
        LocalQuestions(data_dir=directory).download_and_prepare(file_format="array_record")
    return directory


def test_any_prepared_tfds_data_set_can_be_read(local_tfds, capfd):
    source = "tfds:local_questions:train"
    fields = {"prompt": "question", "completion": "answer"}
    loaded = load_records(source, Unpaired, fields=fields, on_bad_row="skip", data_dir=local_tfds)
    assert loaded.records == [Unpaired("Q1", "A1", True)]
    assert [(bad.place, bad.reason) for bad in loaded.skipped] == [
        (f"{source}: example 1", "completion is empty")
    ]
    fields = {"messages": "turns"}
    chats = load_records(source, PromptCompletion, fields=fields, data_dir=local_tfds)
    assert chats.records == [PromptCompletion(ASK, YES), PromptCompletion(ASK, NO)]
    half = load_records(f"{source}[1:]", Prompt, fields={"prompt": "question"}, data_dir=local_tfds)
    assert half.records == [Prompt("Q2 é")]
    version = load_records(
        "tfds:local_questions:1.0.0:train",
        Prompt,
        fields={"prompt": "question"},
        data_dir=local_tfds,
    )
    assert len(version.records) == 2
    assert capfd.readouterr() == ("", "")


def test_the_human_ratings_are_such_a_data_set(ratings_dir):
    from jaxalign.data.ratings import load_ratings

    texts = load_ratings("products", ratings_dir).part("policy_validation").texts
    loaded = load_records(
        "tfds:human_ratings/products:policy_validation", PromptCompletion, data_dir=ratings_dir
    )
    assert [record.completion for record in loaded.records] == texts


def test_pairs_are_two_labelled_responses(tmp_path):
    """In a file with labelled ones; what both answers begin with is the prompt, as for pairs."""
    pair = {"prompt": ASK, "chosen": YES, "rejected": NO}
    rows = [
        {"prompt": "a", "completion": "b", "label": True},
        pair,
        {"chosen": "The sky is blue.", "rejected": "The sky is green.", "label": None},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": "a", "completion": "c", "chosen": "d", "rejected": "e", "label": False},
        {"prompt": "a", "chosen": "d", "rejected": "e", "label": False},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_records(path, Unpaired, on_bad_row="skip")
    assert loaded.records == [
        Unpaired("a", "b", True),
        Unpaired(ASK, YES, True),
        Unpaired(ASK, NO, False),
        Unpaired("The sky is", " blue.", True),
        Unpaired("The sky is", " green.", False),
        Unpaired("a", "c", False),
    ]
    reasons = {row.place.rpartition(":")[2]: row.reason for row in loaded.skipped}
    assert reasons["4"] == "chosen and rejected are the same"
    assert "no 'completion'" in reasons["6"] and len(reasons) == 2
