"""`jaxalign generate`: samples of a trained policy."""

import jax
import numpy as np

from jaxalign.config.generate import GenerateConfig
from jaxalign.data.batching import prompt_batch, prompt_columns
from jaxalign.data.chat import answer_text, prompt_ids
from jaxalign.data.conversations import TextOrMessages
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError, printable
from jaxalign.recipes.iterations import check_room
from jaxalign.recipes.text_models import load_text_model
from jaxalign.sampling import Samples, sample
from jaxalign.system.console import output, tell
from jaxalign.system.files import quote


def run(config: GenerateConfig) -> list[str]:
    """Print the samples, one a paragraph, and return them: prompt and continuation, or the answers
    to a chat.
    """
    if config.chat and not config.prompt.strip():
        raise UserError("--prompt is empty; with --chat it is what the user says")
    policy = load_text_model(config.model, "model", head="logits")
    prompt = [{"role": "user", "content": config.prompt}] if config.chat else config.prompt
    ids = prompt_ids(prompt, policy.tokenizer)
    if not ids:
        raise UserError("--prompt is empty, and the model has no BOS that a text could begin with")
    check_room(policy, len(ids), config.max_new_tokens)
    columns = prompt_columns(len(ids), policy.max_length - config.max_new_tokens)
    samples = sample(
        policy.model,
        policy.params,
        prompt_batch([ids] * config.samples, pad_id=policy.tokenizer.pad_id, length=columns),
        jax.random.key(config.seed),
        eos_id=policy.tokenizer.stop_ids,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
    )
    texts = _texts(samples, ids, policy.tokenizer, prompt)
    tell(printable(_settings(config, policy.tokenizer)))
    output(printable("\n\n".join(texts)))
    return texts


def _texts(
    samples: Samples, ids: list[int], tokenizer: Tokenizer, prompt: TextOrMessages
) -> list[str]:
    """Texts of the samples without EOS: with the prompt where it is a text, answers alone in a
    chat.
    """
    tokens, mask = np.asarray(samples.batch.tokens), np.asarray(samples.batch.response_mask)
    mask = mask & ~np.isin(tokens, tokenizer.stop_ids)
    rows = [row[real] for row, real in zip(tokens, mask, strict=True)]
    if isinstance(prompt, str):
        return tokenizer.decode_all([[*ids, *row] for row in rows])
    answers = tokenizer.decode_after([ids] * len(rows), rows)
    return [answer_text(prompt, answer, tokenizer) for answer in answers]


def _settings(sampling: GenerateConfig, tokenizer: Tokenizer) -> str:
    """Line with the settings of sampling, and the model's own defaults where they differ."""
    ours = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
    theirs = {k: v for k, v in tokenizer.generation.items() if v is not None and ours.get(k) != v}
    used = ", ".join(f"{name} {value:g}" for name, value in ours.items())
    if not theirs:
        return f"drawn with {used}"
    made = ", ".join(f"{name} {quote(value)}" for name, value in theirs.items())
    return f"drawn with {used}; the model's own defaults, not used here: {made}"
