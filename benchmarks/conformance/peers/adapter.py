"""What a library offers, and what a row says about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version


class NotOffered(Exception):
    """The library's function has no such input (a mask, say): the row does not apply."""


@dataclass(frozen=True)
class Capability:
    """One thing that a library can do, as a function of NumPy arrays.

    call: what rows call, by the signature in `CAPABILITIES`.
    function: the library's function or method that is run underneath.
    """

    call: Callable
    function: str


@dataclass(frozen=True)
class Adapter:
    """A library: its capabilities by name, and remarks on documented choices by key of the row."""

    name: str
    version: str
    capabilities: Mapping[str, Capability]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a check found; `number` is one short phrase with the measured number."""

    passed: bool
    number: str


@dataclass(frozen=True)
class Row:
    """One theorem or invariance.

    meaning: one sentence. sources: public addresses or papers. capability: the name of what it
    needs. check: gets the capability's `call`.
    """

    key: str
    meaning: str
    sources: tuple[str, ...]
    capability: str
    check: Callable[[Callable], Measured]


def installed(*distributions: str) -> str:
    """`NAME VERSION, NAME VERSION` of installed distributions."""
    return ", ".join(f"{name} {version(name)}" for name in distributions)


CAPABILITIES = {
    "dpo_loss": "(policy, reference, *, beta, label_smoothing) -> mean loss; [2, B] sums of "
    "log-probabilities, chosen then rejected",
    "ipo_loss": "(log_ratios [2, B], lengths [2, B], *, beta) -> mean loss; rows are padded",
    "kto_loss": "(log_ratios [B], labels [B], *, kl, beta) -> mean loss",
    "kto_pairing": "(rows, batch_size) -> whose response stands behind each prompt for the KL",
    "reward_loss": "(chosen [B], rejected [B], margins [B] or None) -> mean loss",
    "reward_score": "(padding) -> score of a text with EOS inside and at its end; pad is EOS",
    "special_tokens": "(written) -> BOS in prompt and response together, EOS in the response; the "
    "response's text ends in EOS if `written`",
    "dpo_start": "() -> loss of the trainer's first step; the model is configured with dropout",
    "sft_gradient": "(micro_batches, padded) -> gradient of one update, flat",
    "dpo_gradient": "as sft_gradient",
    "kto_gradient": "as sft_gradient",
    "reward_gradient": "as sft_gradient",
    "grpo_gradient": "as sft_gradient",
    "left_padded_logps": "(padding) -> response log-probabilities, absolute positions",
    "response_logps": "(logits [B, T, V], tokens [B, T], responses, temperature) -> [B, responses]",
    "bf16_logps": "(logits [N, V], tokens [N]) -> [N]; the library gets the logits as bfloat16",
    "ppo_start": "(temperature) -> log-probabilities of policy, behaviour, reference; same model",
    "surrogate_gradient": "(log_ratios [N], advantages [N], clip) -> [N], d loss_i / d logp_i",
    "cispo_gradient": "(logps [N], log_ratios [N], advantages [N], highest) -> [N]",
    "kl_term": "(logps [N], reference [N]) -> values [N], derivatives by logps [N], by default",
    "policy_loss": "(log_ratios [B, T], advantages [B], mask [B, T]) -> loss, gradient [B, T]",
    "policy_metrics": "(log_ratios, advantages, mask) -> name to number",
    "truncated_loss": "(advantages [B], lengths [B], ended [B]) -> loss at ratio 1, cut responses "
    "masked",
    "group_advantages": "(rewards [P, G]) -> [P, G]",
    "leave_one_out": "(rewards [P, G]) -> [P, G]",
    "token_rewards": "(scores [B], lengths [B], ended [B], width) -> [B, width], no KL charge",
    "returns": "(rewards, values, mask, *, gamma, gae_lambda) -> [B, T], advantages plus values",
    "whiten": "(x [B, T], mask [B, T]) -> [B, T]",
    "time_limit": "(rewards [T], values [T], final_value, gamma, truncated) -> target of step 0",
    "vtrace": "(rewards [T], values [T + 1], gamma) -> targets [T], on policy",
}
