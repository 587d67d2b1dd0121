"""TRL's trainers on tiny models: one update, data preparation, groups."""

import warnings
from functools import cache

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, logging
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.trainer.utils import add_fused_lm_head

from benchmarks.conformance.peers import data
from benchmarks.conformance.peers.hugging_face import (
    classifier,
    descent,
    from_files,
    gpt2,
    llama,
    settings,
    tokenizer,
    update,
    words,
)

logging.set_verbosity_error()
logging.disable_progress_bar()
disable_progress_bars()
warnings.simplefilter("ignore")


def padded_to(padded: bool) -> dict:
    return {"pad_to_multiple_of": 32} if padded else {}


def text(response) -> str:
    """EOS is the trainer's to add."""
    return words(response[:-1] if response[-1] == data.EOS else response).rstrip()


def pairs(prompts=data.PROMPTS, chosen=data.CHOSEN, rejected=data.REJECTED) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [words(x) for x in prompts],
            "chosen": [text(x) for x in chosen],
            "rejected": [text(x) for x in rejected],
        }
    )


def completions(prompts, responses, labels=None) -> Dataset:
    columns = {
        "prompt": [words(x) for x in prompts],
        "completion": [text(x) for x in responses],
    }
    return Dataset.from_dict(columns if labels is None else columns | {"label": labels})


def trained(trainer, config, model, dataset, arguments, *, pad=data.PAD, **more):
    made = trainer(
        model=model,
        args=config(**arguments),
        train_dataset=dataset,
        processing_class=tokenizer(pad),
        optimizers=descent(model),
        **more,
    )
    made.remove_callback(PrinterCallback)
    return made


@cache
def dpo(**config):
    return trained(DPOTrainer, DPOConfig, llama(), pairs(), settings(**config), ref_model=llama(1))


@cache
def kto(**config):
    dataset = completions(data.PROMPTS, data.CHOSEN, data.LABELS)
    arguments = settings(**config)
    return trained(KTOTrainer, KTOConfig, llama(), dataset, arguments, ref_model=llama(1))


def reward_dataset() -> Dataset:
    sides = {"chosen": data.CHOSEN, "rejected": data.REJECTED}
    return Dataset.from_dict(
        {
            name: [words([*p, *r[:-1]]).rstrip() for p, r in zip(data.PROMPTS, side, strict=True)]
            for name, side in sides.items()
        }
    )


@cache
def reward(pad: int = data.PAD, **config):
    arguments = settings(**config)
    return trained(
        RewardTrainer, RewardConfig, classifier(pad), reward_dataset(), arguments, pad=pad
    )


def sft_gradient(micro_batches, padded):
    dataset = completions(data.PROMPTS, data.CHOSEN)
    arguments = settings(micro_batches, **padded_to(padded))
    return update(trained(SFTTrainer, SFTConfig, llama(), dataset, arguments))


def dpo_gradient(micro_batches, padded):
    arguments = settings(micro_batches, **padded_to(padded))
    return update(trained(DPOTrainer, DPOConfig, llama(), pairs(), arguments, ref_model=llama(1)))


def kto_gradient(micro_batches, padded):
    dataset = completions(data.PROMPTS, data.CHOSEN, data.LABELS)
    arguments = settings(micro_batches, **padded_to(padded))
    return update(trained(KTOTrainer, KTOConfig, llama(), dataset, arguments, ref_model=llama(1)))


def reward_gradient(micro_batches, padded):
    arguments = settings(micro_batches, **padded_to(padded))
    return update(trained(RewardTrainer, RewardConfig, classifier(), reward_dataset(), arguments))


def dpo_start():
    """Without a reference model TRL loads the policy's files again."""
    model = from_files(gpt2())
    trainer = trained(DPOTrainer, DPOConfig, model, pairs(), settings())
    trainer.train()
    return next(line["loss"] for line in trainer.state.log_history if "loss" in line)


def kto_pairing(rows, batch_size):
    """Responses carry numbers, as prompts do."""
    dataset = completions(
        [[3, 3 + i] for i in range(rows)], [[20 + i] for i in range(rows)], [True] * rows
    )
    arguments = settings(rows=batch_size, max_length=None)
    trainer = trained(KTOTrainer, KTOConfig, llama(), dataset, arguments, ref_model=llama(1))
    return [ids[0] - 20 for ids in trainer.train_dataset["KL_completion_ids"]]


def reward_score(padding):
    """The first row of a batch whose second row is longer by `padding`."""
    trainer = reward(data.EOS)
    row = [*data.PROMPTS[0], data.EOS, *data.CHOSEN[0]]
    longer = [*data.tokens(9, len(row) + padding - 1), data.EOS]
    batch = trainer.data_collator([{"chosen_ids": row, "rejected_ids": longer}])
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.model(**batch).logits[0, 0])


def special_tokens(written):
    """With a tokenizer that puts BOS in front of whatever it reads, as Llama's does."""
    response = [*data.tokens(1, 3), data.EOS]
    dataset = pairs([data.PROMPTS[0]], [response], [response])
    if written:
        dataset = dataset.map(lambda row: {"chosen": row["chosen"] + " </s>"})
    model = llama()
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(**settings(rows=1)),
        train_dataset=dataset,
        processing_class=tokenizer(with_bos=True),
        ref_model=llama(1),
    )
    row = trainer.train_dataset[0]
    chosen = row["chosen_ids"]
    return (row["prompt_ids"] + chosen).count(data.BOS), chosen.count(data.EOS)


def sampler_of(trainer, responses):
    """A trainer that samples these responses, those of a prompt in turn."""

    class Sampling(trainer):
        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            left = {key: list(value) for key, value in responses.items()}
            drawn = [left[tuple(ids)].pop(0) for ids in prompt_ids]
            return drawn if trainer is RLOOTrainer else (drawn, None)

    return Sampling


def group_trainer(trainer, config, groups, rewards, **arguments):
    """groups: prompt to responses. rewards: response to number."""
    model = from_files(llama())  # the reference is loaded from the same files
    generations = len(next(iter(groups.values())))

    def score(completion_ids, **_):
        return [rewards[tuple(ids)] for ids in completion_ids]

    rows = generations * len(groups)
    arguments = settings(rows=rows, **arguments) if "output_dir" not in arguments else arguments
    return trained(
        sampler_of(trainer, groups),
        config,
        model,
        Dataset.from_dict({"prompt": [words(prompt) for prompt in groups]}),
        {"num_generations": generations, "max_completion_length": 16, **arguments},
        reward_funcs=score,
    )


def own_groups():
    groups, rewards = {}, {}
    rows = zip(data.GROUP_PROMPTS, data.CHOSEN, data.GROUP_REWARDS, strict=True)
    for prompt, response, score in rows:
        groups.setdefault(tuple(prompt), []).append(response)
        rewards[tuple(response)] = score
    return groups, rewards


@cache
def grpo(**config):
    """For calls of its methods, as inside an update of one micro-batch."""
    trainer = group_trainer(GRPOTrainer, GRPOConfig, *own_groups(), **config)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def grpo_gradient(micro_batches, padded):
    arguments = settings(micro_batches, **padded_to(padded))
    return update(group_trainer(GRPOTrainer, GRPOConfig, *own_groups(), **arguments))


def left_padded_logps(padding):
    """As the trainer scores completions: the prompt padded left, no position ids."""
    model = gpt2().eval()
    add_fused_lm_head(model)
    prompt, response = data.PROMPTS[1], data.CHOSEN[1]
    ids = torch.tensor([[data.PAD] * padding + prompt + response])
    mask = torch.tensor([[0] * padding + [1] * (len(prompt) + len(response))])
    with torch.no_grad():
        logps, _, _ = grpo()._get_per_token_logps_and_entropies(model, ids, mask, len(response))
    return logps[0].numpy()


def numbered_groups(rewards):
    """Every response is one token and EOS, and knows its reward."""
    groups, scores, number = {}, {}, 3
    for i, group in enumerate(rewards):
        for score in group:
            response = [number, data.EOS]
            groups.setdefault((3, 4 + i), []).append(response)
            scores[tuple(response)] = score.item()
            number += 1
    return groups, scores


def prepared(trainer):
    """What the trainer makes of one generation batch."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer._generate_and_score_completions(batch)


def _advantages(trainer, config, rewards, **arguments):
    groups, scores = numbered_groups(rewards)
    inputs = prepared(group_trainer(trainer, config, groups, scores, **arguments))
    by_token = dict(
        zip(inputs["completion_ids"][:, 0].tolist(), inputs["advantages"].tolist(), strict=True)
    )
    return np.array([by_token[3 + i] for i in range(rewards.size)]).reshape(rewards.shape)


def group_advantages(rewards):
    return _advantages(GRPOTrainer, GRPOConfig, rewards)


def leave_one_out(rewards):
    return _advantages(RLOOTrainer, RLOOConfig, rewards, beta=0.0)


def truncated_loss(advantages, lengths, ended):
    """Rewards of two pairs whose mean is 0, not scaled, are advantages."""
    groups, scores = {}, {}
    for i, (length, whole) in enumerate(zip(lengths, ended, strict=True)):
        response = [10 + i] * (length - 1) + [data.EOS if whole else 10 + i]
        groups.setdefault((3, 4 + i // 2), []).append(response)
        scores[tuple(response)] = float(advantages[i])
    trainer = group_trainer(
        GRPOTrainer,
        GRPOConfig,
        groups,
        scores,
        scale_rewards="none",
        mask_truncated_completions=True,
    )
    return float(trainer.compute_loss(trainer.model, prepared(trainer)))


FUNCTIONS = {
    "kto_pairing": (kto_pairing, "KTOTrainer, its train_dataset"),
    "reward_score": (reward_score, "RewardTrainer, its data_collator and model"),
    "special_tokens": (special_tokens, "DPOTrainer, its train_dataset"),
    "dpo_start": (dpo_start, "DPOTrainer.train, GPT-2"),
    "sft_gradient": (sft_gradient, "SFTTrainer.train, prompt-completion data"),
    "dpo_gradient": (dpo_gradient, "DPOTrainer.train"),
    "kto_gradient": (kto_gradient, "KTOTrainer.train"),
    "reward_gradient": (reward_gradient, "RewardTrainer.train"),
    "grpo_gradient": (grpo_gradient, "GRPOTrainer.train, fixed completions"),
    "left_padded_logps": (
        left_padded_logps,
        "GRPOTrainer._get_per_token_logps_and_entropies, GPT-2",
    ),
    "truncated_loss": (truncated_loss, "GRPOTrainer, mask_truncated_completions"),
    "group_advantages": (group_advantages, "GRPOTrainer._generate_and_score_completions"),
    "leave_one_out": (leave_one_out, "RLOOTrainer._generate_and_score_completions"),
}
