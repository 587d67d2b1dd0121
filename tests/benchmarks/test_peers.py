"""`python -m benchmarks.conformance --peer`: ours passes every row, and every row can fail."""

import dataclasses
import sys

import numpy as np
import pytest

from benchmarks.conformance import __main__ as program
from benchmarks.conformance.peers import command, ours, tables
from benchmarks.conformance.peers.adapter import CAPABILITIES, Capability, NotOffered, Row
from benchmarks.conformance.peers.matrix import (
    ABSENT,
    ERROR,
    FAIL,
    PASS,
    Cell,
    Column,
    from_json,
    run_row,
    run_rows,
    to_json,
)
from benchmarks.conformance.peers.return_rows import brute_force_returns
from benchmarks.conformance.peers.rows import ROWS
from tests.folders import ROOT

pytestmark = pytest.mark.slow


RESULTS = ROOT / "benchmarks" / "results" / "peers.md"
OURS = ours.adapter()


def plus(amount):
    return lambda f: lambda *args, **more: f(*args, **more) + amount


def times(factor):
    return lambda f: lambda *args, **more: np.asarray(f(*args, **more)) * factor


def naive_softplus(x):
    with np.errstate(over="ignore"):
        return float(np.log(1 + np.exp(np.float32(x))).mean())


def rotated_in_batches(f):
    def pairing(rows, size):
        batches = [list(range(i, min(i + size, rows))) for i in range(0, rows, size)]
        return [j for batch in batches for j in [batch[-1], *batch[:-1]]]

    return pairing


def mean_of_means(f):
    return lambda parts, padded: f(1, padded) * parts**0.5


def counts_padding(f):
    return lambda parts, padded: f(parts, padded) * (0.7 if padded else 1)


def at_temperature_one(f):
    return lambda logits, tokens, responses, temperature: f(logits, tokens, responses, 1.0)


def slice_off_by_one(f):
    def logps(logits, tokens, responses, temperature):
        moved = np.concatenate([logits[:, 1:], logits[:, :1]], axis=1)
        return f(moved, tokens, responses, temperature)

    return logps


def in_bfloat16(f):
    def logps(logits, tokens):
        bits = np.float32(f(logits, tokens)).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)

    return logps


def moved_start(which):
    def broken(f):
        def start(temperature):
            found = list(f(temperature))
            found[which] = found[which] / temperature
            return found

        return start

    return broken


def clips_the_wrong_side(f):
    return lambda ratios, advantages, clip: f(ratios, np.abs(advantages), clip)


def cispo_through_the_weight(f):
    def gradient(logps, ratios, advantages, highest):
        inside = np.exp(ratios) < highest
        return f(logps, ratios, advantages, highest) * (1 + logps * inside)

    return gradient


def k1_term(f):
    return lambda logps, reference: (logps - reference, np.ones_like(logps))


def k2_term(f):
    return lambda logps, reference: ((logps - reference) ** 2 / 2, logps - reference)


def over_all_tokens(f):
    def loss(ratios, advantages, mask):
        found, gradient = f(ratios, advantages, mask)
        return found * mask.mean(), gradient * mask.mean()

    return loss


def summed_over_rows(f):
    def loss(ratios, advantages, mask):
        found, gradient = f(ratios, advantages, mask)
        return found * len(mask), gradient * len(mask)

    return loss


def not_a_number_when_empty(f):
    def loss(ratios, advantages, mask):
        found, gradient = f(ratios, advantages, mask)
        return (found if mask.any() else np.nan), gradient

    return loss


def leaks_to_padding(f):
    def loss(ratios, advantages, mask):
        found, gradient = f(ratios, advantages, mask)
        return found, gradient + 1e-3 * ~mask

    return loss


def without_mask(f):
    return lambda ratios, advantages, mask: f(ratios, advantages, np.ones_like(mask))


def divided_by_all(f):
    def loss(advantages, lengths, ended):
        return f(advantages, lengths, ended) * (lengths * ended).sum() / lengths.sum()

    return loss


def as_type_of(f):
    """Results have the type that the rewards came in."""
    return lambda rewards: np.asarray(f(rewards)).astype(rewards.dtype)


def plus_epsilon(f):
    def advantages(rewards):
        return f(rewards) * rewards.std() / (rewards.std() + 1e-4)

    return advantages


def noise_over_noise(f):
    def advantages(rewards):
        mean = rewards.sum(1, keepdims=True, dtype=np.float32) * np.float32(1 / rewards.shape[1])
        return (rewards - mean) / (rewards.std(1, keepdims=True) + np.float32(1e-8))

    return advantages


def variance_from_squares(f):
    def advantages(rewards):
        rewards = np.float32(rewards)
        mean = rewards.mean(1, keepdims=True)
        variance = (rewards**2).mean(1, keepdims=True) - mean**2
        return (rewards - mean) / np.sqrt(np.maximum(variance, 1e-6))

    return advantages


def mean_of_all(f):
    return lambda rewards: rewards - rewards.mean(1, keepdims=True)


def in_half_precision(f):
    return lambda rewards: f(rewards.astype(np.float16))


def whole_numbers(f):
    return lambda scores, lengths, ended, width: np.trunc(f(scores, lengths, ended, width))


def one_position_later(f):
    def rewards(scores, lengths, ended, width):
        return f(scores, np.minimum(lengths + ~ended, width) - ~ended * 2, ended, width)

    return rewards


def as_if_all_were_real(f):
    def returns(rewards, values, mask, *, gamma, gae_lambda):
        pairs = zip(rewards, values, strict=True)
        return np.stack([brute_force_returns(*pair, gamma, gae_lambda) for pair in pairs])

    return returns


def whitened_with_padding(f):
    return lambda x, mask: f(x, np.ones_like(mask))


def unbiased(f):
    def whiten(x, mask):
        with np.errstate(invalid="ignore", divide="ignore"):
            count = np.float64(mask.sum())
            return f(x, mask) * np.sqrt((count - 1) / (count - 1))

    return whiten


def with_flag(value):
    return lambda f: (
        lambda rewards, values, final, gamma, cut: f(rewards, values, final, gamma, value)
    )


BROKEN = {
    "dpo_at_reference": plus(0.01),
    "dpo_far_away": lambda f: (
        lambda policy, reference, *, beta, label_smoothing: naive_softplus(
            -beta * np.subtract(*(policy - reference))
        )
    ),
    "dpo_smoothed": lambda f: (
        lambda policy, reference, *, beta, label_smoothing: f(
            policy, reference, beta=beta, label_smoothing=0.0
        )
    ),
    "dpo_first_step": plus(0.01),
    "ipo_lengths": lambda f: lambda ratios, lengths, *, beta: f(ratios, lengths + 1, beta=beta),
    "kto_value": lambda f: lambda ratios, labels, *, kl, beta: f(ratios, labels, kl=0.0, beta=beta),
    "kto_mismatch": rotated_in_batches,
    "reward_value": plus(0.01),
    "reward_extreme": lambda f: lambda chosen, rejected, _: naive_softplus(rejected - chosen),
    "reward_margin": lambda f: lambda chosen, rejected, _: f(chosen, rejected, None),
    "reward_pooling": lambda f: lambda padding: f(padding) + padding,
    "one_bos": lambda f: lambda written: (2, f(written)[1]),
    "one_eos": lambda f: lambda written: (1, f(written)[1] + written),
    **{f"{kind}_accumulation": mean_of_means for kind in ("sft", "dpo", "kto", "reward", "grpo")},
    **{f"{kind}_padding": counts_padding for kind in ("sft", "dpo", "kto", "reward", "grpo")},
    "left_padding": lambda f: lambda padding: f(padding) + 0.01 * padding,
    "next_token": slice_off_by_one,
    "temperature": at_temperature_one,
    "bf16_logps": in_bfloat16,
    "ratio_at_start": moved_start(0),
    "kl_at_start": moved_start(2),
    "clip_sides": clips_the_wrong_side,
    "cispo_stopped": cispo_through_the_weight,
    "kl_value": k2_term,
    "kl_gradient": k1_term,
    "loss_padding": over_all_tokens,
    "loss_doubled": summed_over_rows,
    "loss_empty": not_a_number_when_empty,
    "masked_gradient": leaks_to_padding,
    "metrics_padding": without_mask,
    "truncated_denominator": divided_by_all,
    "group_integers": as_type_of,
    "group_scale": plus_epsilon,
    "group_equal": noise_over_noise,
    "group_offset": variance_from_squares,
    "leave_one_out_value": mean_of_all,
    "leave_one_out_offset": in_half_precision,
    "fractional_scores": whole_numbers,
    "score_placement": one_position_later,
    "gae_value": times(1.01),
    "gae_padding": as_if_all_were_real,
    "gae_between": as_if_all_were_real,
    "whiten_padding": whitened_with_padding,
    "whiten_one": unbiased,
    "time_limit": with_flag(False),
    "termination": with_flag(True),
    "vtrace_on_policy": times(0.9),
}


def broken_adapter(row: Row):
    """Ours, with the one capability that the row needs broken."""
    good = OURS.capabilities[row.capability]
    bad = Capability(BROKEN[row.key](good.call), "broken")
    return dataclasses.replace(OURS, capabilities={**OURS.capabilities, row.capability: bad})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_ours_passes_and_a_broken_one_fails(row):
    assert run_row(row, OURS).text.startswith("pass: ")
    cell = run_row(row, broken_adapter(row))
    assert cell.status == FAIL, cell.text


def test_rows_are_well_formed():
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(BROKEN)
    assert {row.capability for row in ROWS} == set(CAPABILITIES) == set(OURS.capabilities)
    for row in ROWS:
        assert row.meaning.endswith(".") and row.sources
        assert all("://" in source for source in row.sources)


def test_what_a_library_lacks_and_what_it_raises():
    row = ROWS[0]
    assert run_row(row, dataclasses.replace(OURS, capabilities={})).text == ABSENT

    def fails(*args, **more):
        raise RuntimeError("first line\nsecond line")

    def lacks(*args, **more):
        raise NotOffered("takes no mask")

    for call, status, text in (
        (fails, ERROR, "error: RuntimeError: first line"),
        (lacks, ABSENT, ABSENT),
    ):
        adapter = dataclasses.replace(OURS, capabilities={row.capability: Capability(call, "f")})
        cell = run_row(row, adapter)
        assert (cell.status, cell.text) == (status, text)


def test_notes_belong_to_rows():
    with pytest.raises(ValueError, match="notes on no row: \\['nothing'\\]"):
        run_rows(ROWS, dataclasses.replace(OURS, notes={"nothing": "here"}))


def test_absent_libraries_are_skipped_with_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rlax", None)
    monkeypatch.delitem(sys.modules, "benchmarks.conformance.peers.rlax", raising=False)
    monkeypatch.setattr(command, "ROWS", ROWS[:1])
    assert command.run(["rlax"]) == 0
    printed = capsys.readouterr().out
    assert "rlax: skipped, it does not import" in printed
    assert "jaxalign" in printed and "1 pass" in printed


def column(name, status):
    return Column(name, "1.0", {row.key: Cell(status, "0.1", "f", "why") for row in ROWS})


def test_only_our_failures_count(monkeypatch, tmp_path, capsys):
    for mine, theirs, status in ((PASS, FAIL, 0), (FAIL, PASS, 1), (ABSENT, PASS, 1)):
        columns = [column("jaxalign", mine), column("other", theirs)]
        monkeypatch.setattr(command, "measured", lambda names, columns=columns: columns)
        page = tmp_path / "page.md"
        assert command.run(["all"], markdown=page) == status
        assert f"| {ROWS[0].key} | {mine} | {theirs} |" in page.read_text()
    assert "ours: dpo_at_reference: -" in capsys.readouterr().err


def test_columns_of_two_runs_are_merged(tmp_path):
    other = column("other", FAIL)
    file = tmp_path / "other.json"
    file.write_text(to_json([column("jaxalign", FAIL), other]))
    assert from_json(file.read_text())[1] == other
    mine = column("jaxalign", PASS)
    assert command.merged([mine], [file]) == [mine, other]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--peer", "nobody"],
        ["--peer", "trl", "--file", "x"],
        ["--vectors", "x", "--merge", "y"],
    ],
)
def test_bad_command_lines(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["conformance", *arguments])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_committed_page_has_these_rows():
    """Keys in order, meanings and sources; written by `--peer all --markdown`."""
    lines = RESULTS.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    first = next(i for i, line in enumerate(cells) if line[0] == "row")
    assert [line[0] for line in cells[first + 2 : first + 2 + len(ROWS)]] == [r.key for r in ROWS]
    ours_column = cells[first].index("jaxalign")
    assert {line[ours_column] for line in cells[first + 2 : first + 2 + len(ROWS)]} == {PASS}
    for row in ROWS:
        assert f"| `{row.key}` | {row.meaning} | {'; '.join(row.sources)} |" in lines
    assert set(tables.grid(ROWS, [column("x", PASS)])[0]) == {"row", "x"}
