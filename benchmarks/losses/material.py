"""Random texts for the default small transformer, and log-probabilities near its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.preferences import (
    ComparisonBatch,
    DistillationBatch,
    OnlineBatch,
    PairLogps,
    PreferenceBatch,
    RankingBatch,
    ScoredResponses,
    StepBatch,
    UnpairedBatch,
)
from jaxalign.batches.tokens import TokenBatch
from jaxalign.models.functions import response_logps_of, text_logps
from jaxalign.models.transformer import Transformer, TransformerConfig

ROWS = 64  # of every batch, whatever a row is
RANKED = 4  # responses in a ranking
PROMPT = 4  # tokens
STEP = 8  # tokens between the labels of a process reward
NEAR = 0.1  # nats between the frozen policies and the trained one, at each token


class Material:
    """Batches of `ROWS` rows, of each kind that a loss reads, with the policy that they are for."""

    def __init__(self, *, length: int, vocabulary: int):
        self.length, self.vocabulary = length, vocabulary
        self.rng = np.random.default_rng(0)
        self.model, self.params = self.network("logits")

    def network(self, *heads: str):
        """A transformer of the size of `ModelConfig` with these heads, and its parameters."""
        size = {"width": 128, "layers": 2, "heads": 4, "kv_heads": 4, "mlp_width": 344}
        config = TransformerConfig(
            vocab_size=self.vocabulary, max_length=self.length, heads_out=heads, **size
        )
        model, tokens = Transformer(config), jnp.zeros((1, 2), jnp.int32)
        params = jax.jit(model.init)(jax.random.key(0), tokens, jnp.ones_like(tokens, bool))
        return model, params["params"]

    def noise(self, *shape: int):
        """Standard normal numbers."""
        return jax.device_put(self.rng.normal(size=shape).astype(np.float32))

    def texts(self, *rows: int) -> TokenBatch:
        """Prompts with responses that end in the second half of the columns."""
        lengths = self.rng.integers(self.length // 2, self.length + 1, rows)
        real = np.arange(self.length) < lengths[..., None]
        prompt = real & (np.arange(self.length) < PROMPT)
        arrays = {
            "tokens": self.rng.integers(0, self.vocabulary, real.shape).astype(np.int32),
            "prompt_mask": prompt,
            "response_mask": real & ~prompt,
            "index": np.arange(np.prod(rows), dtype=np.int32).reshape(rows),
        }
        return TokenBatch(**jax.device_put(arrays))

    def token_logps(self, texts: TokenBatch):
        """`[B, T]` of a policy close to the trained one."""
        own = jax.jit(text_logps(self.model))(self.params, texts)
        return own + NEAR * self.noise(*own.shape)

    def logps(self, texts: TokenBatch):
        """`[B]`, the same of whole responses."""
        own = jax.jit(response_logps_of(self.model))(self.params, texts)
        return own + NEAR * self.length**0.5 * self.noise(ROWS)

    @functools.cached_property
    def pairs(self) -> PreferenceBatch:
        """Pairs with a third response each."""
        chosen, rejected = self.texts(ROWS), self.texts(ROWS)
        return PreferenceBatch(
            chosen=chosen,
            rejected=rejected,
            gold=self.texts(ROWS),
            reference=PairLogps(chosen=self.logps(chosen), rejected=self.logps(rejected)),
            weights=jnp.ones(ROWS),
        )

    @functools.cached_property
    def labelled(self) -> UnpairedBatch:
        """Labelled responses with a mismatched one each."""
        responses, mismatched = self.texts(ROWS), self.texts(ROWS)
        return UnpairedBatch(
            responses=responses,
            labels=self.noise(ROWS) > 0,
            reference=self.logps(responses),
            weights=jnp.ones(ROWS),
            mismatched=mismatched,
            mismatched_reference=self.logps(mismatched),
        )

    @functools.cached_property
    def online(self) -> OnlineBatch:
        """Two judged responses a prompt."""

        def judged() -> ScoredResponses:
            texts = self.texts(ROWS)
            scores = self.noise(ROWS)
            return ScoredResponses(responses=texts, scores=scores, reference=self.logps(texts))

        return OnlineBatch(first=judged(), second=judged(), weights=jnp.ones(ROWS))

    @functools.cached_property
    def experience(self) -> Experience:
        """Responses as decisions, with values."""
        texts = self.texts(ROWS)
        shape = (ROWS, self.length)
        return Experience(
            inputs=texts,
            actions=texts.tokens,
            mask=texts.response_mask,
            behaviour_logps=self.token_logps(texts),
            values=NEAR * self.noise(*shape),
            advantages=self.noise(*shape),
            returns=self.noise(*shape),
            index=texts.index,
        )

    @functools.cached_property
    def responses(self) -> ResponseBatch:
        """Responses with one advantage each."""
        texts = self.texts(ROWS)
        return ResponseBatch(
            inputs=texts,
            mask=texts.response_mask,
            behaviour_logps=self.token_logps(texts),
            reference_logps=self.token_logps(texts),
            advantages=self.noise(ROWS),
            weights=jnp.ones((ROWS, self.length)),
            index=texts.index,
        )

    @functools.cached_property
    def taught(self) -> DistillationBatch:
        """Responses with a teacher's logits."""
        logits = self.noise(ROWS, self.length, self.vocabulary)
        return DistillationBatch(rows=self.texts(ROWS), teacher_logits=logits)

    @functools.cached_property
    def comparisons(self) -> ComparisonBatch:
        """Pairs for a reward model: the first text of two is the better one."""
        preferences = jnp.zeros((ROWS, 2, 2)).at[:, 0, 1].set(1)
        return ComparisonBatch(
            texts=self.texts(ROWS, 2), preferences=preferences, margins=0 * preferences
        )

    @functools.cached_property
    def rankings(self) -> RankingBatch:
        """`RANKED` responses a row, the best first."""
        return RankingBatch(texts=self.texts(ROWS, RANKED), mask=jnp.ones((ROWS, RANKED), bool))

    @functools.cached_property
    def steps(self) -> StepBatch:
        """Solutions with a label after every `STEP` tokens."""
        texts = self.texts(ROWS)
        ends = texts.response_mask & (jnp.arange(self.length) % STEP == STEP - 1)
        arrays = {"tokens": texts.tokens, "index": texts.index}
        masks = {"prompt_mask": texts.mask & ~ends, "response_mask": ends}
        labels = jnp.asarray(self.noise(ROWS, self.length) > 0, jnp.float32)
        return StepBatch(texts=TokenBatch(**arrays, **masks), labels=labels)
