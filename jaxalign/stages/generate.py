"""`jaxalign generate`: samples of a trained policy."""

import jax
import numpy as np

from jaxalign.config import GenerateConfig
from jaxalign.data.batching import prompt_batch, prompt_columns
from jaxalign.data.chat import prompt_ids
from jaxalign.errors import UserError, printable
from jaxalign.sampling import sample
from jaxalign.stages.text_models import load_text_model
from jaxalign.stages.text_rounds import check_room


def run(config: GenerateConfig) -> list[str]:
    """Print the samples, one a paragraph, and return them: prompt and continuation, or the answers
    to a chat.
    """
    if config.chat and not config.prompt.strip():
        raise UserError("--prompt is empty; with --chat it is what the user says")
    policy = load_text_model(config.model, "model", head="logits")
    said = [{"role": "user", "content": config.prompt}] if config.chat else config.prompt
    prompt = prompt_ids(said, policy.tokenizer)
    if not prompt:
        raise UserError("--prompt is empty, and the model has no BOS that a text could begin with")
    check_room(policy, len(prompt), config.max_new_tokens)
    columns = prompt_columns(len(prompt), policy.max_length - config.max_new_tokens)
    drawn = sample(
        policy.model,
        policy.params,
        prompt_batch([prompt] * config.samples, pad_id=policy.tokenizer.pad_id, length=columns),
        jax.random.key(config.seed),
        eos_id=policy.tokenizer.eos_id,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
    )
    shown = drawn.batch.response_mask if config.chat else drawn.batch.mask
    tokens, mask = np.asarray(drawn.batch.tokens), np.asarray(shown)
    texts = [policy.tokenizer.decode(row[real]) for row, real in zip(tokens, mask, strict=True)]
    print(printable("\n\n".join(texts)))
    return texts
