"""Reference log-probabilities on disk: read where nothing has changed, computed where anything
has.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxalign.cli import dispatch
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.kto import KTOConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.errors import UserError
from jaxalign.models.lora import ADAPTERS
from jaxalign.recipes import accuracy, preferences, reference_cache
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.preferences import pair_logps
from jaxalign.recipes.reference_cache import (
    cached_response_logps,
    digest,
    once_for_rows,
    weights_digest,
)
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import response_logps
from jaxalign.recipes.text_models import save_text_model
from tests.metric_lines import lines_without_times
from tests.tiny_models import PAIRS, side_rows, tiny_policy

ONE = PlaceConfig(layout="device")
ALONE = np.zeros(1, int)  # one pair, one prompt


policy_of = functools.partial(tiny_policy, 60)
rows = functools.partial(side_rows, PAIRS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with open_run(tmp_path_factory.mktemp("run"), DPOConfig(), ONE, 0) as run:
        yield run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "made" / "kept"


@pytest.fixture
def passes(monkeypatch):
    """The lists of rows that the reference was run on; their numbers are made up."""
    seen = []

    def numbers(run, policy, rows, *, temperature):
        seen.append(rows)
        return np.arange(len(rows), dtype=np.float32) - len(seen)

    monkeypatch.setattr(reference_cache, "response_logps", numbers)
    return seen


def never(*arguments, **more):
    raise AssertionError("the reference was run")


@pytest.mark.slow
@pytest.mark.parametrize("ld_alpha", [None, 0.25, 0.75])
def test_what_is_read_is_what_was_computed(run, folder, monkeypatch, ld_alpha):
    """LD-DPO mixes what is kept: another mixture needs no new pass."""
    sides, policy = (rows(0), rows(1)), policy_of()
    plain = functools.partial(response_logps, run, policy)
    sums = {"ld_alpha": ld_alpha, "temperature": 0.7}
    expected = pair_logps(plain, sides, **sums)
    if ld_alpha is not None:
        whole = pair_logps(plain, sides, ld_alpha=None, temperature=0.7)
        assert np.abs(whole.chosen - expected.chosen).max() > 0.1
    score = functools.partial(cached_response_logps(str(folder), model="m", data="d"), run, policy)
    pair_logps(score, sides, ld_alpha=ld_alpha and 0.5, temperature=0.7)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(reference_cache, "response_logps", never)
    score = functools.partial(cached_response_logps(str(folder), model="m", data="d"), run, policy)
    found = pair_logps(score, sides, **sums)
    np.testing.assert_array_equal(found.chosen, expected.chosen)
    np.testing.assert_array_equal(found.rejected, expected.rejected)


@pytest.mark.slow
def test_held_out_pairs_are_compared_as_the_loss_weighs_their_tokens(run, monkeypatch):
    """By hand, for responses of 2 and 4 tokens and made-up log-probabilities of a token."""
    short, long = (token_row(([1], False), (range(3, 3 + n), True)) for n in (2, 4))
    tokens = {2: -1.0, 4: -0.7}

    def numbers(run, policy, rows, *, temperature):
        lengths = [len(row) - 1 for row in rows]
        counts = [row.is_response.sum() for row in rows]
        return np.array([n * tokens[size] for n, size in zip(counts, lengths, strict=True)])

    compare = functools.partial(
        accuracy.implicit_accuracy, run, None, None, [(short, long)], blocks=ALONE, temperature=1.0
    )
    for given, expected in (
        ({}, 1.0),  # -2 against -2.8
        ({"per_token": True}, 0.0),  # -1 against -0.7
        ({"ld_alpha": 0.0}, 0.0),  # -2 against -1.4
        ({"ld_alpha": 0.9}, 1.0),  # -2 against -2.66
    ):
        with monkeypatch.context() as patch:
            patch.setattr(accuracy, "response_logps", numbers)
            assert compare(**given)["pair_accuracy"] == expected

    def no_preference(run, policy, rows, *, temperature):
        return np.zeros(len(rows))

    with monkeypatch.context() as patch:  # the reference alone prefers the long one
        patch.setattr(accuracy, "response_logps", no_preference)
        found = accuracy.implicit_accuracy(
            run,
            None,
            policy_of(),
            [(short, long)],
            blocks=ALONE,
            temperature=1.0,
            score_reference=numbers,
        )
    assert found["pair_accuracy"] == 0.0  # 2 against 2.8


def changed_parameter(policy):
    """The least change of one number."""
    kernel = policy.params["trunk"]["layers_0"]["attention"]["query"]["kernel"].copy()
    kernel[3, 5] = np.nextafter(kernel[3, 5], np.float32(9))
    leaf = {"query": {"kernel": kernel}}
    block = policy.params["trunk"]["layers_0"]
    block = block | {"attention": block["attention"] | leaf}
    trunk = policy.params["trunk"] | {"layers_0": block}
    return dataclasses.replace(policy, params=policy.params | {"trunk": trunk})


def changed_architecture(policy):
    config = dataclasses.replace(policy.model.config, norm_epsilon=1e-6)
    return dataclasses.replace(policy, model=policy.model.clone(config=config))


def renamed(policy):
    """The same arrays, two of them in each other's place."""
    block = policy.params["trunk"]["layers_0"]
    attention = block["attention"]
    swapped = attention | {"query": attention["key"], "key": attention["query"]}
    trunk = policy.params["trunk"] | {"layers_0": block | {"attention": swapped}}
    return dataclasses.replace(policy, params=policy.params | {"trunk": trunk})


def other_token(given):
    tokens = given[1].tokens.copy()
    tokens[0] += 1
    return [given[0], TokenRow(tokens, given[1].is_response), given[2]]


def other_mask(given):
    flags = given[1].is_response.copy()
    flags[-1] = False
    return [given[0], TokenRow(given[1].tokens, flags), given[2]]


def other_border(given):
    """The same tokens in the same order, one of them in the next row."""
    first, second = given[0], given[1]
    tokens, flags = (
        (getattr(first, name), getattr(second, name)) for name in ("tokens", "is_response")
    )
    rows = [
        TokenRow(tokens[0][:-1], flags[0][:-1]),
        TokenRow(
            np.concatenate([tokens[0][-1:], tokens[1]]), np.concatenate([flags[0][-1:], flags[1]])
        ),
    ]
    return [*rows, given[2]]


CHANGES = {
    "parameter": (changed_parameter, None, 1.0),
    "architecture": (changed_architecture, None, 1.0),
    "names": (renamed, None, 1.0),
    "token": (None, other_token, 1.0),
    "mask": (None, other_mask, 1.0),
    "border": (None, other_border, 1.0),
    "order": (None, lambda given: given[::-1], 1.0),
    "fewer rows": (None, lambda given: given[:2], 1.0),
    "temperature": (None, None, 0.7),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_computed_anew(run, folder, passes, change):
    of_policy, of_rows, temperature = CHANGES[change]
    kept = functools.partial(cached_response_logps, str(folder), model="m", data="d")
    first = kept()(run, policy_of(), rows(0), temperature=1.0)
    np.testing.assert_array_equal(kept()(run, policy_of(), rows(0), temperature=1), first)
    assert len(passes) == 1
    policy = policy_of() if of_policy is None else of_policy(policy_of())
    given = rows(0) if of_rows is None else of_rows(rows(0))
    found = kept()(run, policy, given, temperature=temperature)
    assert len(passes) == 2 and found[0] != first[0]
    np.testing.assert_array_equal(kept()(run, policy_of(), rows(0), temperature=1.0), first)
    assert len(passes) == 2 and len(list(folder.iterdir())) == 2


def test_the_device_and_the_precision_of_its_products_are_in_the_key():
    given = {"rows": rows(0), "temperature": 1.0}
    plain = digest("weights", "cpu", **given)
    assert plain == digest("weights", "cpu", **given) != digest("weights", "tpu", **given)
    with jax.default_matmul_precision("bfloat16"):
        assert digest("weights", "cpu", **given) != plain


def test_where_a_row_ends_is_in_the_key():
    """The same bytes, little-endian, as one row of two tokens and as two rows of one."""
    one = [TokenRow(np.array([5, 0], np.int32), np.array([True, False]))]
    two = [
        TokenRow(np.array([5], np.int32), np.array([False])),
        TokenRow(np.array([1 << 24], np.int32), np.array([False])),
    ]
    content = [
        b"".join(row.tokens.tobytes() + row.is_response.tobytes() for row in rows)
        for rows in (one, two)
    ]
    assert content[0] == content[1]
    digests = [digest("weights", "cpu", rows, temperature=1.0) for rows in (one, two)]
    assert digests[0] != digests[1]


@pytest.mark.slow
def test_adapters_count_once_they_add_something():
    base, key = policy_of(), jax.random.key(1)
    of_base = weights_digest(base)
    lora = LoraConfig(rank=2, alpha=4.0)
    new = with_adapters(base, "", lora, key)
    assert weights_digest(new) == of_base  # whatever its first factors are drawn as
    trained = jax.tree.map(np.copy, new.params[ADAPTERS])
    trained["trunk"]["layers_0"]["attention"]["value"]["b"][1, 2] = 1e-3
    adapted = dataclasses.replace(new, params=new.params | {ADAPTERS: trained})
    scaled = dataclasses.replace(
        adapted, model=dataclasses.replace(adapted.model, scale=adapted.model.scale / 2)
    )
    quantised = with_adapters(base, "", dataclasses.replace(lora, base="int8"), key)
    found = [weights_digest(policy) for policy in (base, adapted, scaled, quantised)]
    assert len(set(found)) == 4


@pytest.mark.slow
def test_a_file_says_what_it_holds_and_is_whole(run, folder, passes):
    cached_response_logps(str(folder), model="runs/sft", data="rows.jsonl")(
        run, policy_of(), rows(0), temperature=0.7
    )
    (file,) = folder.iterdir()  # nothing is left over
    assert len(file.stem) == 64 and file.suffix == ".safetensors"
    with safe_open(file, framework="numpy") as opened:
        said = opened.metadata()
        assert list(opened.keys()) == ["logps"]
    assert {name: said[name] for name in ("model", "data", "rows", "temperature")} == {
        "model": "runs/sft",
        "data": "rows.jsonl",
        "rows": "3",
        "temperature": "0.7",
    }
    assert said["jaxalign"]
    os.replace(file, folder / "other")
    (folder / "other").unlink()
    assert not list(folder.iterdir())


def cut(file):
    file.write_bytes(file.read_bytes()[:-4])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def reshaped(file):
    with safe_open(file, framework="numpy") as opened:
        said = opened.metadata()
    save_file({"logps": load_file(file)["logps"][:2]}, file, metadata=said)


def nameless(file):
    save_file({"other": load_file(file)["logps"]}, file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "is damaged"),
        (flipped, r"is damaged \(the checksum differs\)"),
        (reshaped, r"of shape \(2,\), the data have 3 rows"),
        (nameless, "is damaged"),
        (lambda file: file.write_text("{}"), "is damaged"),
        (lambda file: (file.unlink(), file.mkdir()), "is damaged"),
    ],
    ids=["cut", "flipped", "reshaped", "nameless", "no safetensors", "folder"],
)
def test_a_file_that_does_not_fit_is_one_line_that_names_it(run, folder, passes, damage, words):
    kept = cached_response_logps(str(folder), model="m", data="d")
    kept(run, policy_of(), rows(0), temperature=1.0)
    (file,) = folder.iterdir()
    damage(file)
    with pytest.raises(UserError, match=f"{file.name} {words}|{file.name} .*{words}") as error:
        kept(run, policy_of(), rows(0), temperature=1.0)
    assert "remove it" in str(error.value) and "\n" not in str(error.value)
    assert len(passes) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"reference_logps: .*file/kept cannot be made"):
        cached_response_logps(str(tmp_path / "file" / "kept"), model="m", data="d")


def test_a_loss_without_a_reference_has_nothing_to_keep():
    for settings in (DPOSettings(loss="simpo"), DPOSettings(reference_free=True)):
        with pytest.raises(UserError, match="reads no reference here"):
            DPOConfig(reference_logps="kept", dpo=settings)
    assert DPOConfig(reference_logps="kept").reference_logps == "kept"
    assert KTOConfig(reference_logps="kept").reference_logps == "kept"
    assert cached_response_logps("", model="m", data="d") is response_logps


def command(folder, name, kind, more=()):
    words = ["a", "fine", "film", "with", "a", "warm", "heart", "and", "a", "sly", "wit"]
    save_text_model(folder / "sft" / "model", policy_of())
    texts = [" ".join(words[i % 5 : 2 + i % 9]) for i in range(12)]
    if kind == "dpo":
        data = [{"prompt": "a ", "chosen": f"good {x}", "rejected": f"bad {x}"} for x in texts]
    else:
        data = [
            {"prompt": f"{x} ", "completion": "good" if i % 2 else "bad", "label": bool(i % 2)}
            for i, x in enumerate(texts)
        ]
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    fields = {"policy": folder / "sft", "data.path": path, "data.evaluation_path": path}
    fields |= {"reference_logps": folder / "kept", "place.layout": "device", "data.max_length": 60}
    fit = {"steps": 3, "batch_size": 4, "micro_batches": 2, "log_every": 1, "save_every": 1}
    fields |= {f"{kind}.fit.{name}": value for name, value in fit.items()}
    fields[f"{kind}.fit.optimizer.warmup_steps"] = 1
    given = [word for key, value in fields.items() for word in (f"--{key}", str(value))]
    return dispatch([kind, "--output", str(folder / name), *given, *more])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more", "files"),
    [
        ("dpo", ("--dpo.ld_alpha", "0.5", "--dpo.wpo", "True"), 1),
        ("kto", (), 1),
    ],
    ids=["dpo", "kto"],
)
def test_a_second_run_and_a_resumed_one_never_run_the_reference(
    tmp_path, monkeypatch, interrupted, kind, more, files
):
    """Both sides of DPO with the prefixes that LD-DPO counts in full, and the held-out pairs, which
    are the same again; the rows of KTO with the mismatched ones, once."""
    monkeypatch.setattr("jaxalign.recipes.finish.write_report", lambda directory: None)
    first = command(tmp_path, "first", kind, more)
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == files
    times = [file.stat().st_mtime_ns for file in kept]
    monkeypatch.setattr(reference_cache, "response_logps", never)
    monkeypatch.setattr(preferences, "pair_logps", counted := Counted(preferences.pair_logps))
    interrupted(lambda: command(tmp_path, "second", kind, more))
    assert command(tmp_path, "second", kind, more)["reward_model"] == first["reward_model"]
    assert counted.calls == (3 if kind == "dpo" else 0)
    lines = [lines_without_times(tmp_path / name) for name in ("first", "second")]
    assert lines[0] == lines[1] and len(lines[0]) == 4
    assert [file.stat().st_mtime_ns for file in kept] == times
    models = [
        Path(tmp_path / name / "model/model.safetensors").read_bytes()
        for name in ("first", "second")
    ]
    assert models[0] == models[1]


class Counted:
    """A function and how often it was called."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments, **more):
        self.calls += 1
        return self.function(*arguments, **more)


def test_a_row_is_scored_once_in_whatever_company_it_comes():
    asked = []

    def score(run, policy, rows, temperature):
        asked.append(len(rows))
        return np.array([row.tokens.sum() * temperature for row in rows], np.float32)

    rows = [token_row(([1, 2], False), ([3 + number], True)) for number in range(5)]
    scored = once_for_rows(score)
    np.testing.assert_array_equal(scored(None, None, rows[:3], temperature=2.0), [12, 14, 16])
    found = scored(None, None, [rows[4], rows[1], rows[3]], temperature=2.0)
    np.testing.assert_array_equal(found, [20, 14, 18])
    np.testing.assert_array_equal(scored(None, None, rows, temperature=2.0), [12, 14, 16, 18, 20])
    unlike = dataclasses.replace(rows[0], is_response=np.array([False, True, True]))
    scored(None, None, [unlike], temperature=2.0)  # the same tokens, of which others count
    assert asked == [3, 2, 1]
