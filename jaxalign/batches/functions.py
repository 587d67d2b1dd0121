"""Types of functions of batches: models as objectives read them, and objectives themselves.

`keys` are typed random keys, one an example, for dropout.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxalign.batches.experience import Experience
from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch
from jaxalign.numerics.types import Params

# Rows of text: numbers of their tokens are `[B, T]`, `[B, K, R]` of `SharedPrompts`.
TextRows = TokenBatch | PackedBatch | SharedPrompts

# `(params, rows, keys) -> log pi(token)` in nats
TokenLogps = Callable[[Params, TextRows, jax.Array], jax.Array]
# `(params, rows, keys) -> (log pi(token), entropy)`, or two other arrays of that shape
TokenPairs = Callable[[Params, TextRows, jax.Array], tuple[jax.Array, jax.Array]]
# `(params, batch, keys) -> (log pi(action), entropy, values)`, each `[B, T]`
EvaluateActions = Callable[[Params, Experience, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
# `(params, texts, keys)` -> `[B]` scores of texts, or `[B, T]` after every token
TextScores = Callable[[Params, TokenBatch, jax.Array], jax.Array]
# `(student_logits, teacher_logits) -> [...]`, both `[..., V]`
Divergence = Callable[[jax.Array, jax.Array], jax.Array]
# `(params, rows, keys, teacher_logits, divergence) -> [B, T]`
TokenDivergences = Callable[[Params, TokenBatch, jax.Array, jax.Array, Divergence], jax.Array]

Metrics = dict[str, Any]  # sums by name; with a weight of their own pairs `(sum, weight)`
LossSums = tuple[jax.Array, tuple[jax.Array, Metrics]]  # `(sum, (weight, metric sums))`
# `(params, batch, key) -> LossSums`; a loss that reads the whole batch takes `measured=` and
# `statistics=` too, see `train.step`
LossFn = Callable[..., LossSums]
# `(params, batch, key) -> pytree of sums` over the rows of a batch, for `train_step(measure=...)`
BatchSums = Callable[[Params, Any, jax.Array], Any]
