"""Rows on preferences: DPO, IPO, KTO, reward models, data."""

import math

import numpy as np

from benchmarks.conformance.peers.adapter import Measured, Row
from benchmarks.conformance.peers.measuring import close, error, short

SUMS = np.array([[-12.0, -30.5, -7.25], [-10.0, -44.0, -9.0]])
BETA = 0.1


def softplus(x):
    return np.logaddexp(0, x)


def dpo_at_reference(loss):
    found = loss(SUMS, SUMS, beta=BETA, label_smoothing=0.0)
    return close(found, math.log(2))


def dpo_far_away(loss):
    """Margins of beta (h_chosen - h_rejected) = -1000, 0.2 and 1000 nats."""
    changes = np.array([[-5e3, 1.0, 5e3], [5e3, -1.0, -5e3]])
    found = loss(SUMS + changes, SUMS, beta=BETA, label_smoothing=0.0)
    return close(found, softplus(-BETA * (changes[0] - changes[1])).mean())


def dpo_smoothed(loss):
    changes = np.array([[3.0, 1.0, -2.0], [-4.0, 2.0, 1.0]])
    margins = BETA * (changes[0] - changes[1])
    wanted = (0.8 * softplus(-margins) + 0.2 * softplus(margins)).mean()
    found = loss(SUMS + changes, SUMS, beta=BETA, label_smoothing=0.2)
    return close(found, wanted)


def ipo_lengths(loss):
    ratios, lengths = np.array([[3.0, -1.0], [-2.0, 0.5]]), np.array([[2, 5], [4, 3]])
    found = loss(ratios, lengths, beta=BETA)
    forms = {}
    for name, scaled in (("summed", ratios), ("averaged", ratios / lengths)):
        forms[name] = ((scaled[0] - scaled[1] - 1 / (2 * BETA)) ** 2).mean()
    for name, wanted in forms.items():
        if error(found, wanted) <= 1e-4:
            return Measured(True, name)
    return Measured(
        False, f"{found:.5g}, summed {forms['summed']:.5g}, averaged {forms['averaged']:.5g}"
    )


def kto_value(loss):
    ratios, labels, kl = np.array([2.0, -3.0, 0.5]), np.array([True, False, True]), 1.5
    gains = np.where(labels, ratios - kl, kl - ratios) * BETA
    wanted = (1 - 1 / (1 + np.exp(-gains))).mean()
    return close(loss(ratios, labels, kl=kl, beta=BETA), wanted)


def kto_mismatch(pairing):
    """Every prompt gets somebody else's response, also in the last and smaller batch."""
    own = {}
    for rows, batch_size in ((4, 2), (6, 3), (5, 2), (7, 3)):
        pairs = pairing(rows, batch_size)
        if len(pairs) != rows:
            raise ValueError(f"{len(pairs)} pairs of {rows} rows")
        own[rows, batch_size] = sum(i == j for i, j in enumerate(pairs))
    worst = [f"{n} of {rows} rows in batches of {size}" for (rows, size), n in own.items() if n]
    return Measured(not worst, f"own response: {'; '.join(worst) or 'none'}")


def reward_value(loss):
    chosen, rejected = np.array([1.0, -2.0, 300.0]), np.array([0.5, 1.0, -300.0])
    wanted = softplus(rejected - chosen).mean()
    return close(loss(chosen, rejected, None), wanted)


def reward_extreme(loss):
    chosen, rejected = np.array([-300.0, 0.0]), np.array([300.0, 0.0])
    return close(loss(chosen, rejected, None), softplus(rejected - chosen).mean())


def reward_margin(loss):
    chosen, rejected, margins = np.array([1.0, -2.0]), np.array([0.5, 1.0]), np.array([1.0, 2.0])
    return close(loss(chosen, rejected, margins), softplus(rejected - chosen + margins).mean())


def reward_pooling(score):
    scores = [float(score(padding)) for padding in (0, 3)]
    off = abs(scores[0] - scores[1])
    return Measured(off <= 1e-4 * max(1, abs(scores[0])), f"the score moves by {short(off)}")


def one_bos(special_tokens):
    found = int(special_tokens(False)[0])
    return Measured(found == 1, f"{found}")


def one_eos(special_tokens):
    found = [int(special_tokens(written)[1]) for written in (False, True)]
    return Measured(found == [1, 1], f"{found[0]} and, written in the text, {found[1]}")


def dpo_first_step(start):
    return close(start(), math.log(2))


DPO = "Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Eq. 7"

ROWS = (
    Row(
        "dpo_at_reference",
        "The DPO loss is log 2 where policy and reference agree.",
        (DPO,),
        "dpo_loss",
        dpo_at_reference,
    ),
    Row(
        "dpo_far_away",
        "The DPO loss is softplus(-margin), finite and exact also at margins of 1000 nats.",
        (DPO,),
        "dpo_loss",
        dpo_far_away,
    ),
    Row(
        "dpo_smoothed",
        "With label_smoothing e the DPO loss is (1 - e) times the loss plus e times the loss of "
        "the flipped pair.",
        ("Mitchell 2023, https://ericmitchell.ai/cdpo.pdf",),
        "dpo_loss",
        dpo_smoothed,
    ),
    Row(
        "dpo_first_step",
        "The first DPO step has loss log 2, also for a model that is configured with dropout.",
        (
            "https://github.com/huggingface/trl/issues/744",
            "https://github.com/NVIDIA/NeMo-Aligner/issues/227",
        ),
        "dpo_start",
        dpo_first_step,
    ),
    Row(
        "ipo_lengths",
        "IPO's log-ratios are sums, or means, over the response without its padding (the number "
        "says which).",
        (
            "Azar et al. 2023, https://arxiv.org/abs/2310.12036, Eq. 17",
            "https://github.com/huggingface/trl/issues/1677",
        ),
        "ipo_loss",
        ipo_lengths,
    ),
    Row(
        "kto_value",
        "KTO's loss is 1 - sigmoid(beta (h - z)) for good and 1 - sigmoid(beta (z - h)) for bad "
        "responses.",
        ("Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, Eq. 8",),
        "kto_loss",
        kto_value,
    ),
    Row(
        "kto_mismatch",
        "For KTO's KL no prompt is paired with its own response, whatever the number of rows.",
        ("https://github.com/huggingface/trl/issues/1911",),
        "kto_pairing",
        kto_mismatch,
    ),
    Row(
        "reward_value",
        "The reward model's loss is -log sigmoid of the difference of scores.",
        ("Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Eq. 1",),
        "reward_loss",
        reward_value,
    ),
    Row(
        "reward_extreme",
        "That loss is finite and exact at a difference of -600.",
        ("Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Eq. 1",),
        "reward_loss",
        reward_extreme,
    ),
    Row(
        "reward_margin",
        "A margin is subtracted from the difference of scores.",
        ("Touvron et al. 2023, https://arxiv.org/abs/2307.09288, Eq. 2",),
        "reward_loss",
        reward_margin,
    ),
    Row(
        "reward_pooling",
        "A reward model's score of a text that ends in EOS does not depend on padding, where the "
        "pad token is EOS.",
        ("https://github.com/huggingface/transformers/issues/35352",),
        "reward_score",
        reward_pooling,
    ),
    Row(
        "one_bos",
        "Prompt and response together have one BOS.",
        ("https://github.com/huggingface/trl/pull/1591",),
        "special_tokens",
        one_bos,
    ),
    Row(
        "one_eos",
        "A response has one EOS, whether or not its text already ends in one.",
        ("https://github.com/huggingface/trl/issues/4481",),
        "special_tokens",
        one_eos,
    ),
)
