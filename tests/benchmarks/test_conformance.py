"""Golden vectors of other libraries, by `python -m benchmarks.conformance`; it can fail."""

import json
import shutil

import jax
import numpy as np
import pytest

from benchmarks.conformance import __main__ as program
from benchmarks.conformance import cases
from benchmarks.conformance.catalogue import collected
from benchmarks.conformance.comparison import is_wrong, run_case, run_file
from jaxalign import PairLogps, robust_dpo_loss
from tests.folders import FILES

pytestmark = pytest.mark.slow


PAIR = PairLogps(chosen=np.zeros(1), rejected=np.zeros(1))
FOLDER = FILES / "oracles"
MANIFESTS = {  # manifest: how many of its cases nothing of ours computes
    "bco_trl024": 0,
    "dpo_trl": 0,
    "dpo_trl_legacy": 0,
    "e2e_trl": 13,  # whole models, not functions
    "gae_rlax": 0,
    "gae_sb3": 0,
    "gae_torchrl": 0,
    "group_advantages_trl": 0,
    "grpo_trl": 0,
    "kto_trl": 0,
    "logps_trl": 0,
    "orpo_cpo_simpo_trl": 0,
    "ppo_openrlhf": 0,
    "ppo_rlax": 0,
    "ppo_torchtune": 0,
    "ppo_trl011": 0,
    "ppo_trl024_trace": 0,
    "ppo_tunix": 0,
    "ppo_verl": 0,
    "reward_trl": 0,
    "truth_mpmath": 0,
}
PARTS = 4  # of a manifest, so that no test is long


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("file", MANIFESTS)
def test_agreement(file, part):
    with jax.enable_x64(True):
        rows = run_file(FOLDER, file, *collected(), part=slice(part, None, PARTS))
    wrong = [(row.case.id, row.failure, row.differing, row.errors) for row in rows if is_wrong(row)]
    assert not wrong


def test_geometric_means_that_overflow_at_the_peer_are_explained():
    """A bad response a thousand nats likelier than when it was sampled: exp(1000) is infinite in
    float64, ours goes on in a straight line. The other response is compared all the same.
    """
    names = ("per_token_logps", "old_per_token_logps")
    inputs = {
        names[0]: np.array([[-1.0, -1.0], [-1.0, -2.0]]),
        names[1]: np.array([[-1001.0, -1001.0], [-1.5, -1.5]]),
        "mask": np.ones((2, 2)),
        "advantages": np.array([-1.0, -2.0]),
    }
    mean = (max(0.5, -0.4) + max(-0.5, -0.4)) / 2  # of the second response's clipped log-ratios
    gradient = np.array([[np.inf, np.inf], [2 * np.exp(mean) / 4, 0.0]])
    outputs = {"loss": np.array(np.inf), "grad_per_token_logps": gradient}
    case = cases.Case(
        FOLDER, "grpo_trl", "overflow", "TRL", "trl.GMPOTrainer._compute_loss", {}, "", inputs,
        outputs, {},
    )  # fmt: skip
    adapters, disagreements = collected()
    with jax.enable_x64(True):
        row = run_case(case, adapters[case.function], disagreements)
        assert not is_wrong(row)
        assert row.known == ("ratio_overflow",)
        gradient[1, 1] = 0.1
        assert is_wrong(run_case(case, adapters[case.function], disagreements))


def test_every_function_is_covered_but_those():
    """Which cases have no adapter is known without running one that has."""
    adapters, _ = collected()
    for file in MANIFESTS:
        functions = {case.function for case in cases.read_cases(FOLDER, file)}
        assert functions <= adapters.keys() or file == "e2e_trl", file


@pytest.fixture
def copied(tmp_path):
    """The reward vectors in a folder of their own."""
    for suffix in ("json", "npz"):
        shutil.copy(FOLDER / f"reward_trl.{suffix}", tmp_path)
    return tmp_path


def rewrite(folder, edit):
    path = folder / "reward_trl.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    edit(arrays)
    np.savez(path, **arrays)
    cases._arrays.cache_clear()


def perturbed(arrays):
    arrays["c000/loss"] = arrays["c000/loss"] * (1 + 1e-8)


def flipped(arrays):
    arrays["c000/grad_rewards"] = -arrays["c000/grad_rewards"]


def unbounded(arrays):
    arrays["c000/loss"] = np.full_like(arrays["c000/loss"], np.inf)


def undefined(arrays):
    arrays["c000/loss"] = np.full_like(arrays["c000/loss"], np.nan)


def missing(arrays):
    del arrays["c000/loss"]


def test_untouched_vectors_pass(copied):
    assert program.run(copied) == 0


@pytest.mark.parametrize("edit", [perturbed, flipped, unbounded, undefined])
def test_a_changed_number_differs(copied, edit, capsys):
    rewrite(copied, edit)
    assert program.run(copied) == 1
    assert "DIFFERS (c000)" in capsys.readouterr().out


def test_a_missing_array_is_named(copied, capsys):
    rewrite(copied, missing)
    assert program.run(copied) == 1
    errors = capsys.readouterr().err
    assert "c000/loss" in errors and len(errors.splitlines()) == 1


def test_a_truncated_archive_is_named(copied, capsys):
    (copied / "reward_trl.npz").write_bytes(b"PK\3\4")
    cases._arrays.cache_clear()
    assert program.run(copied) == 1
    assert "reward_trl" in capsys.readouterr().err


def test_settings_that_ours_refuses_are_listed(copied, capsys, monkeypatch):
    def adapter(case):
        return robust_dpo_loss(PAIR, PAIR, beta=0.1, label_smoothing=0.5)

    monkeypatch.setattr(
        program, "collected", lambda: ({"trl.RewardTrainer.compute_loss": adapter}, {})
    )
    assert program.run(copied) == 0
    printed = capsys.readouterr().out
    assert "16 uncovered" in printed and "label_smoothing must be in [0, 0.5), got 0.5" in printed


def test_a_broken_manifest_is_named(copied, capsys):
    (copied / "reward_trl.json").write_text("{")
    assert program.run(copied) == 1
    assert "reward_trl" in capsys.readouterr().err


def test_an_adapter_that_raises_is_named(copied, capsys, monkeypatch):
    def adapter(case):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(
        program, "collected", lambda: ({"trl.RewardTrainer.compute_loss": adapter}, {})
    )
    assert program.run(copied) == 1
    printed = capsys.readouterr().out
    assert "c000" in printed and "on purpose" in printed


def test_a_function_without_adapter_is_counted(copied, capsys, monkeypatch):
    monkeypatch.setattr(program, "collected", lambda: ({}, {}))
    assert program.run(copied) == 0
    assert "16 cases: 0 compared, 16 uncovered" in capsys.readouterr().out


def test_an_empty_folder(tmp_path, capsys):
    assert program.run(tmp_path) == 2
    assert "no manifests" in capsys.readouterr().err


def test_markdown(copied, tmp_path):
    path = tmp_path / "table.md"
    program.run(copied, "reward_trl", path)
    text = path.read_text()
    assert "| trl 1.16.0 | trl.RewardTrainer.compute_loss | 16 | 16 |" in text
    assert json.loads((copied / "reward_trl.json").read_text())["peer"]["trl"] in text
