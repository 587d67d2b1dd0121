"""The losses that can be named in a configuration."""

from typing import Literal

PairLossName = Literal[
    "dpo",
    "robust",
    "ipo",
    "averaged_ipo",
    "hinge",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "length_normalised_dpo",
    "forward_kl",
    "jensen_shannon",
    "alpha_divergence",
    "simpo",
    "alphapo",
    "cpo",
    "orpo",
    "tpo",
    "tpo_l",
]


UnpairedLossName = Literal["kto", "apo_zero_unpaired", "bco"]


RewardLossName = Literal["bradley_terry", "plackett_luce", "process"]
