"""TRL: its trainers' own methods, on outputs of a model that are put in."""

from types import SimpleNamespace

import numpy as np
import torch
from trl.trainer.utils import add_fused_lm_head

from benchmarks.conformance.peers import trl_trainers as trainers
from benchmarks.conformance.peers.adapter import Adapter, Capability, installed
from benchmarks.conformance.peers.hugging_face import llama_config


def numbers(x, **more):
    return torch.tensor(np.asarray(x), dtype=torch.float32, **more)


def model_of(logps, **more):
    """A callable that returns these log-probabilities for whatever it is given."""
    zero = torch.zeros_like(logps)
    outputs = SimpleNamespace(
        log_probs=logps, entropy=zero, mean_logits=zero, is_top1=zero.bool(), **more
    )
    return lambda **inputs: outputs


def preference_inputs(sums, reference, lengths, width):
    """Chosen rows first; the whole log-probability stands on the first response token."""
    rows, flat = sums.size, np.ravel(sums)
    mask = (np.arange(width) >= 1) & (np.arange(width) <= np.ravel(lengths)[:, None])
    logps = np.zeros((rows, width - 1))
    logps[:, 0] = flat
    inputs = {
        "input_ids": torch.full((rows, width), 5),
        "attention_mask": torch.ones(rows, width, dtype=torch.long),
        "completion_mask": torch.tensor(mask, dtype=torch.long),
        "ref_chosen_logps": numbers(reference[0]),
        "ref_rejected_logps": numbers(reference[1]),
    }
    return model_of(numbers(logps)), inputs


def _dpo(sums, reference, lengths, **config):
    trainer = trainers.dpo(**config)
    trainer.precompute_ref_logps = True
    model, inputs = preference_inputs(sums, reference, lengths, 8)
    return float(trainer.compute_loss(model, inputs))


def dpo_loss(policy, reference, *, beta, label_smoothing):
    lengths = np.full(policy.shape, 3)
    return _dpo(policy, reference, lengths, beta=beta, label_smoothing=label_smoothing)


def ipo_loss(log_ratios, lengths, *, beta):
    return _dpo(log_ratios, 0 * log_ratios, lengths, beta=beta, loss_type="ipo")


def kto_loss(log_ratios, labels, *, kl, beta):
    """The mismatched rows are marked by their token."""
    trainer = trainers.kto(beta=beta)
    trainer.precompute_ref_logps = True
    rows, width = len(labels), 4
    ones = torch.ones(rows, width, dtype=torch.long)

    def model(input_ids, **inputs):
        sums = np.full(rows, kl) if input_ids[0, 0] == 9 else log_ratios
        logps = np.zeros((rows, width - 1))
        logps[:, 0] = sums
        return model_of(numbers(logps))()

    inputs = {
        "input_ids": 5 * ones,
        "attention_mask": ones,
        "completion_mask": ones,
        "KL_input_ids": 9 * ones,
        "KL_attention_mask": ones,
        "KL_completion_mask": ones,
        "label": torch.tensor(labels),
        "ref_logps": torch.zeros(rows),
        "ref_KL_logps": torch.zeros(rows),
    }
    return float(trainer.compute_loss(model, inputs))


def reward_loss(chosen, rejected, margins):
    scores = numbers(np.concatenate([chosen, rejected]))[:, None]
    inputs = {"attention_mask": torch.ones(len(scores), 2)}
    if margins is not None:
        inputs["margin"] = numbers(margins)
    return float(trainers.reward().compute_loss(lambda **_: SimpleNamespace(logits=scores), inputs))


def grpo_inputs(log_ratios, advantages, mask, behaviour=None):
    mask = torch.tensor(mask, dtype=torch.long)
    prompts = torch.ones(len(mask), 1, dtype=torch.long)
    return {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": torch.full(mask.shape, 5),
        "completion_mask": mask,
        "advantages": numbers(advantages),
        "old_per_token_logps": torch.zeros(mask.shape) if behaviour is None else behaviour,
        "num_items_in_batch": mask.sum(),
    }


def grpo_loss(trainer, logps, inputs):
    """Loss and gradient by the log-probabilities."""
    leaf = numbers(logps, requires_grad=True)
    loss = trainer.compute_loss(model_of(leaf, aux_loss=None), inputs)
    loss.backward()
    return float(loss), leaf.grad.numpy()


def policy_loss(log_ratios, advantages, mask):
    return grpo_loss(trainers.grpo(), log_ratios, grpo_inputs(log_ratios, advantages, mask))


def single_tokens(trainer, logps, behaviour, advantages, **more):
    """Rows of one token: the mean over tokens times their number is the sum."""
    behaviour = numbers(behaviour)[:, None]
    mask = np.ones((len(logps), 1), bool)
    inputs = grpo_inputs(None, advantages, mask, behaviour) | more
    loss, gradient = grpo_loss(trainer, np.asarray(logps)[:, None], inputs)
    return loss * len(logps), gradient[:, 0] * len(logps)


def surrogate_gradient(log_ratios, advantages, clip):
    trainer = trainers.grpo(epsilon=clip)
    return single_tokens(trainer, log_ratios, 0 * log_ratios, advantages)[1]


def cispo_gradient(logps, log_ratios, advantages, highest):
    trainer = trainers.grpo(loss_type="cispo", epsilon_high=highest)
    return single_tokens(trainer, logps, logps - log_ratios, advantages)[1]


def kl_term(logps, reference):
    trainer = trainers.grpo(beta=1.0)

    def term(rows):
        more = {"ref_per_token_logps": numbers(reference[rows])[:, None]}
        return single_tokens(trainer, logps[rows], logps[rows], 0 * logps[rows], **more)

    values = [term(slice(i, i + 1))[0] for i in range(len(logps))]
    return np.array(values), term(slice(None))[1]


def policy_metrics(log_ratios, advantages, mask):
    trainer = trainers.grpo(epsilon=0.05, beta=1.0)
    inputs = grpo_inputs(log_ratios, advantages, mask)
    inputs["ref_per_token_logps"] = inputs["old_per_token_logps"]
    trainer._metrics["train"].clear()
    grpo_loss(trainer, log_ratios, inputs)
    names = ("kl", "clip_ratio/region_mean")
    return {name: trainer._metrics["train"][name][-1] for name in names}


class LogitsModel(torch.nn.Module):
    """A model whose logits are its input: hidden states through an identity head."""

    def __init__(self, logits):
        super().__init__()
        self.config, self.logits = llama_config(), logits
        self.head = torch.nn.Linear(logits.shape[-1], logits.shape[-1], bias=False)
        self.head.weight.data = torch.eye(logits.shape[-1], dtype=logits.dtype)

    def forward(self, **inputs):
        raise AssertionError("the fused head is called")

    def base_model(self, **inputs):
        return SimpleNamespace(last_hidden_state=self.logits)

    def get_output_embeddings(self):
        return self.head


def _logps(logits, tokens, responses, temperature):
    model = LogitsModel(logits)
    add_fused_lm_head(model, temperature=temperature)
    tokens = torch.tensor(tokens)
    found = trainers.grpo()._get_per_token_logps_and_entropies(
        model, tokens, torch.ones_like(tokens), responses
    )
    return found[0].float().detach().numpy()


def response_logps(logits, tokens, responses, temperature):
    return _logps(torch.tensor(logits), tokens, responses, temperature)


def bf16_logps(logits, tokens):
    logits = torch.tensor(logits, dtype=torch.bfloat16)[:, None].repeat(1, 2, 1)
    return _logps(logits, np.stack([tokens, tokens], 1), 1, 1.0)[:, 0]


GRPO = "GRPOTrainer.compute_loss"
FUNCTIONS = {
    "dpo_loss": (dpo_loss, "DPOTrainer.compute_loss, loss_type sigmoid"),
    "ipo_loss": (ipo_loss, "DPOTrainer.compute_loss, loss_type ipo"),
    "kto_loss": (kto_loss, "KTOTrainer.compute_loss"),
    "reward_loss": (reward_loss, "RewardTrainer.compute_loss"),
    "policy_loss": (policy_loss, f"{GRPO}, loss_type dapo (default)"),
    "surrogate_gradient": (surrogate_gradient, GRPO),
    "cispo_gradient": (cispo_gradient, f"{GRPO}, loss_type cispo"),
    "kl_term": (kl_term, f"{GRPO}, beta 1"),
    "policy_metrics": (policy_metrics, f"{GRPO}, its metrics"),
    "response_logps": (
        response_logps,
        "trainer.utils.add_fused_lm_head, GRPOTrainer._get_per_token_logps_and_entropies",
    ),
    "bf16_logps": (
        bf16_logps,
        "trainer.utils.add_fused_lm_head, GRPOTrainer._get_per_token_logps_and_entropies",
    ),
}
NOTES = {
    "dpo_smoothed": "`DPOConfig.label_smoothing` is documented for `robust` and `exo_pair`; "
    "`sigmoid` does not read it.",
    "ipo_lengths": "The mean over tokens is a documented choice, made with the authors of IPO.",
    "kto_mismatch": "Responses are rotated within each batch; a last batch of one row keeps its "
    "own.",
    "kto_accumulation": "The KL is estimated from each micro-batch; the KTO documentation "
    "recommends a per-step batch of at least 4.",
    "group_scale": "The advantage is divided by the standard deviation plus 1e-4.",
    "kl_gradient": "The term is off by default (`beta=0`); `use_bias_correction_kl` is on by "
    "default.",
    "left_padding": "No position ids are passed; models with rotary positions are not affected.",
}


def adapter() -> Adapter:
    entries = FUNCTIONS | trainers.FUNCTIONS
    capabilities = {name: Capability(*entry) for name, entry in entries.items()}
    return Adapter("TRL", installed("trl", "transformers", "torch"), capabilities, NOTES)
