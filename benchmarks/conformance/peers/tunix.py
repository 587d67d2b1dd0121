"""Tunix: its loss functions, estimators and PPO learner, on a model whose logits are put in."""

from contextlib import nullcontext
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.generate.tokenizer_adapter import TokenizerAdapter
from tunix.rl import algo_core, common, rl_cluster
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix.rl.inference.inference_worker import InferenceWorker
from tunix.rl.ppo import ppo_learner
from tunix.rl.rollout.base_rollout import RolloutConfig
from tunix.rl.rollout.vanilla_rollout import VanillaRollout
from tunix.sft.dpo import dpo_trainer

from benchmarks.conformance.peers import data, tunix_trainers
from benchmarks.conformance.peers.adapter import Adapter, Capability, installed
from benchmarks.conformance.peers.hugging_face import tokenizer, words

TOKEN, ACTIONS = 3, 8
START = -np.log(ACTIONS)  # of every token under logits of 0


class LogitsModel(nnx.Module):
    """Its logits are its parameters, whatever it reads."""

    def __init__(self, logits):
        self.logits = nnx.Param(jnp.asarray(logits))

    def __call__(self, tokens, positions=None, cache=None, attention_mask=None):
        return self.logits[...], None


def example(shape, **fields):
    """Prompts of one token, responses of token 3."""
    prompts = jnp.ones((shape[0], 1), jnp.int32)
    return ppo_learner.TrainExample(
        prompt_ids=prompts,
        prompt_mask=prompts,
        completion_ids=jnp.full(shape, TOKEN),
        **{"ref_per_token_logps": None, "old_per_token_logps": None, **fields},
    )


def grpo_config(**fields):
    config = GRPOConfig(**fields)
    config.temperature = 1.0  # the learner sets it to the rollout's
    return config


def through_logits(loss_fn, shape):
    """Loss, aux and the gradient by log-probabilities: d logp / d logit of its token is 1 - p."""
    model = LogitsModel(jnp.zeros((shape[0], shape[1] + 1, ACTIONS)))
    grad = nnx.value_and_grad(loss_fn, has_aux=True)
    (loss, aux), grads = grad(model)
    slopes = jax.tree.leaves(grads)[0][:, :-1, TOKEN] / (1 - 1 / ACTIONS)
    return float(loss), aux, np.asarray(slopes)


def grpo(log_ratios, advantages, mask, *, reference=None, **config):
    batch = example(
        mask.shape,
        completion_mask=jnp.asarray(mask, jnp.int32),
        advantages=jnp.float32(advantages),
        old_per_token_logps=jnp.float32(START - log_ratios),
        ref_per_token_logps=None if reference is None else jnp.float32(reference),
    )
    settings = grpo_config(**{"beta": 0.0, **config})

    def loss_fn(model):
        return algo_core.grpo_loss_fn(model, batch, settings, data.PAD, data.EOS)

    return through_logits(loss_fn, mask.shape)


def policy_loss(log_ratios, advantages, mask):
    loss, _, gradient = grpo(log_ratios, advantages, mask)
    return loss, gradient


def single(values):
    return np.asarray(values, np.float64)[:, None]


def surrogate_gradient(log_ratios, advantages, clip):
    mask = np.ones((len(advantages), 1), bool)
    _, _, gradient = grpo(single(log_ratios), advantages, mask, epsilon=clip)
    return gradient[:, 0] * len(advantages)


def kl_term(logps, reference):
    """Only their difference matters, and the policy's are those of logits of 0."""

    def term(rows):
        differences = single((logps - reference)[rows])
        mask = np.ones(differences.shape, bool)
        found = grpo(
            0 * differences, 0 * differences[:, 0], mask, reference=START - differences, beta=1.0
        )
        return found[0], found[2][:, 0] * len(mask)

    values = [term(slice(i, i + 1))[0] for i in range(len(logps))]
    return np.array(values), term(slice(None))[1]


def policy_metrics(log_ratios, advantages, mask):
    _, aux, _ = grpo(log_ratios, advantages, mask, epsilon=0.05)
    return {name: float(aux[name]) for name in ("ppo_kl", "pg_clipfrac")}


def dpo_loss(policy, reference, *, beta, label_smoothing):
    """Two tokens a vocabulary: any negative log-probability is that of one token.

    Only differences from the reference matter, so both are lowered where the policy's is positive.
    """
    lower = np.maximum(policy, 0) + 1
    sums, start = (policy - lower).ravel(), jnp.float32(reference - lower)
    logits = np.stack([np.zeros_like(sums), sums - np.log1p(-np.exp(sums))], -1)
    logits = np.repeat(logits[:, None], 2, axis=1).astype(np.float32)
    rows = len(sums)
    batch = dpo_trainer.TrainExample(
        input_ids=jnp.ones((rows, 2), jnp.int32),
        positions=jnp.zeros((rows, 2), jnp.int32),
        attention_mask=jnp.ones((rows, 2, 2), bool),
        ref_chosen_logps=start[0],
        ref_rejected_logps=start[1],
        completion_mask=jnp.ones((rows, 1)),
        logits_to_keep=1,
    )
    loss, _ = dpo_trainer.dpo_loss_fn(
        LogitsModel(logits), batch, beta=beta, label_smoothing=label_smoothing
    )
    return float(loss)


def special_tokens(written):
    adapted = TokenizerAdapter(tokenizer())
    text = words(data.tokens(1, 2)).rstrip() + (" </s>" if written else "")
    record = {
        "prompts": words(data.PROMPTS[0]),
        "chosen_responses": text,
        "rejected_responses": text,
    }
    found = dpo_trainer.process_dpo_record(record, adapted, 8, 8)
    chosen = np.asarray(found.chosen_ids)
    both = np.concatenate([np.asarray(found.prompt_ids), chosen])
    return int((both == data.BOS).sum()), int((chosen == data.EOS).sum())


def response_logps(logits, tokens, responses, temperature):
    graph, state = nnx.split(LogitsModel(logits))
    return common.compute_per_token_logps(
        graph,
        state,
        prompt_tokens=jnp.asarray(tokens[:, :-responses]),
        completion_tokens=jnp.asarray(tokens[:, -responses:]),
        pad_id=data.PAD,
        eos_id=data.EOS,
        temperature=temperature,
    )


def bf16_logps(logits, tokens):
    return common.selective_log_softmax(jnp.bfloat16(logits), jnp.asarray(tokens))


def cluster(temperature: float, **fields):
    """What the learners ask of a cluster, without devices, samplers and meshes."""
    rollout = RolloutConfig(temperature=temperature, max_tokens_to_generate=5)
    return SimpleNamespace(
        cluster_config=SimpleNamespace(
            rollout_config=rollout,
            training_config=SimpleNamespace(data_sharding_axis=("data",)),
            offload_to_cpu=False,
        ),
        get_rollout_config=lambda mode: rollout,
        _get_mesh_and_logical_axis_rules_cm=lambda role: nullcontext(),
        _maybe_load_model_from_cpu=lambda *_: None,
        _maybe_offload_model_to_cpu=lambda *_: None,
        **fields,
    )


class FixedRollout(VanillaRollout):
    """The rollout's scoring of a given model."""

    def __init__(self, model):
        self._sampler = SimpleNamespace(model_def_and_state=lambda: nnx.split(model))

    def model(self):
        return None

    def pad_id(self):
        return data.PAD

    def eos_id(self):
        return data.EOS


def ppo_start(temperature):
    """Policy: the loss's ratio times the behaviour probability, one token a row."""
    rng = np.random.default_rng(0)
    model = LogitsModel(rng.normal(0, 2, (6, 2, ACTIONS)).astype(np.float32))
    prompts, completions = jnp.ones((6, 1), jnp.int32), jnp.asarray(rng.integers(3, 8, (6, 1)))
    fake = cluster(
        temperature,
        rollout=FixedRollout(model),
        inference_worker=InferenceWorker({"reference": model}),
    )
    real = rl_cluster.RLCluster
    behaviour = real.get_old_per_token_logps(fake, prompts, completions)
    reference = real.get_ref_per_token_logps(fake, prompts, completions, data.PAD, data.EOS)
    config = ppo_learner.PPOConfig(epsilon=0.9, epsilon_high=1e6, beta=0.0)
    log_ratios = []
    for row in range(6):
        mask = jnp.zeros((6, 1)).at[row].set(1)
        batch = example(
            (6, 1),
            completion_mask=mask,
            advantages=jnp.ones((6, 1)),
            old_per_token_logps=behaviour,
        ).replace(completion_ids=completions)
        loss, _ = algo_core.ppo_policy_loss_fn(model, batch, config, data.PAD, data.EOS)
        log_ratios.append(np.log(-float(loss)))
    behaviour = np.asarray(behaviour)[:, 0]
    return behaviour + np.array(log_ratios), behaviour, np.asarray(reference)[:, 0]


def token_rewards(scores, lengths, ended, width):
    """From the learner's returns: with values of 0 and no discount they are sums of rewards."""
    rows = [
        [TOKEN] * (length - 1) + [data.EOS if whole else TOKEN]
        for length, whole in zip(lengths, ended, strict=True)
    ]
    output = SimpleNamespace(
        tokens=[np.array(row) for row in rows],
        text=[""] * len(rows),
        left_padded_prompt_tokens=np.ones((len(rows), 1), np.int32),
    )
    zeros = jnp.zeros((len(rows), width + 1))
    fake = cluster(
        1.0,
        rollout=SimpleNamespace(pad_id=lambda: data.PAD, eos_id=lambda: data.EOS),
        generate=lambda **_: output,
        get_old_per_token_logps=lambda **_: zeros[:, 1:],
        get_values=lambda **_: zeros,
        buffer_metrics=lambda *_, **__: None,
    )
    learner = SimpleNamespace(
        rl_cluster=fake,
        algo_config=ppo_learner.PPOConfig(beta=0.0, gae_lambda=1.0),
        _rollout_micro_batch_size=None,
        _compute_logps_micro_batch_size=None,
        _use_reward_model=False,
        _compute_rewards=lambda **_: np.asarray(scores, np.float32),
        metric_fns=[],
    )
    found = ppo_learner.PPOLearner._generate_and_compute_advantage(
        learner, {"prompts": ["p"] * len(rows)}
    )
    sums = np.asarray(found.returns, np.float64)
    return sums - np.concatenate([sums[:, 1:], np.zeros((len(rows), 1))], axis=1)


def returns(rewards, values, mask, *, gamma, gae_lambda):
    arrays = jnp.float32(rewards), jnp.float32(values), jnp.asarray(mask, jnp.int32)
    return algo_core.compute_gae_advantages(*arrays, gamma, gae_lambda)[1]


def whiten(x, mask):
    return algo_core.masked_whiten(jnp.float32(x), jnp.asarray(mask))


def group_advantages(rewards):
    found = algo_core.compute_advantages(rewards.ravel(), rewards.shape[1])
    return np.asarray(found).reshape(rewards.shape)


def leave_one_out(rewards):
    found = algo_core.compute_rloo_advantages(jnp.asarray(rewards).ravel(), rewards.shape[1])
    return np.asarray(found).reshape(rewards.shape)


CORE = "rl.algo_core"
FUNCTIONS = {
    "dpo_loss": (dpo_loss, "sft.dpo.dpo_trainer.dpo_loss_fn"),
    "special_tokens": (special_tokens, "sft.dpo.dpo_trainer.process_dpo_record"),
    "response_logps": (response_logps, "rl.common.compute_per_token_logps"),
    "bf16_logps": (bf16_logps, "rl.common.selective_log_softmax"),
    "ppo_start": (
        ppo_start,
        f"RLCluster.get_old_per_token_logps (vanilla rollout), .get_ref_per_token_logps, "
        f"{CORE}.ppo_policy_loss_fn",
    ),
    "surrogate_gradient": (surrogate_gradient, f"{CORE}.grpo_loss_fn"),
    "kl_term": (kl_term, f"{CORE}.grpo_loss_fn, GRPOConfig.kl_loss_mode kl (default)"),
    "policy_loss": (policy_loss, f"{CORE}.grpo_loss_fn, default loss_agg_mode"),
    "policy_metrics": (policy_metrics, f"{CORE}.grpo_loss_fn, ppo_kl and pg_clipfrac"),
    "token_rewards": (token_rewards, "PPOLearner._generate_and_compute_advantage"),
    "returns": (returns, f"{CORE}.compute_gae_advantages"),
    "whiten": (whiten, f"{CORE}.masked_whiten"),
    "group_advantages": (group_advantages, f"{CORE}.compute_advantages"),
    "leave_one_out": (leave_one_out, f"{CORE}.compute_rloo_advantages"),
}
NOTES = {
    "sft_accumulation": "`gradient_accumulation_steps` is optax.MultiSteps: the mean of the "
    "micro-batches' mean gradients.",
    "kl_gradient": "`kl_loss_mode` is an option; `mse_kl` and `low_var_kl` are the others.",
    "kl_at_start": "Behaviour and policy log-probabilities are at T = 1; the reference's are at "
    "the rollout's temperature, as sampling is.",
    "kl_value": "`kl_loss_mode` kl is log pi - log pi_ref.",
    "one_eos": "No EOS is added; what the text holds is trained on.",
    "group_scale": "The advantage is divided by the standard deviation plus 1e-6.",
}


def adapter() -> Adapter:
    entries = FUNCTIONS | tunix_trainers.FUNCTIONS
    capabilities = {name: Capability(*entry) for name, entry in entries.items()}
    return Adapter("Tunix", installed("google-tunix", "jax"), capabilities, NOTES)
