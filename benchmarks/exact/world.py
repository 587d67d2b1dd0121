"""Three tokens, three steps, fifteen responses: everything about them is a finite sum.

A response ends with the token END or after HORIZON tokens, so lengths differ and masks matter. The
policy is a table of logits, one row for each of the seven prefixes; it is given to the library as a
model whose hidden states are one-hot, so that log-probabilities come from where a transformer's do.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import k1, log_softmax, sequence_logps
from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.models.functions import text_logps, text_policy
from jaxalign.models.transformer import Outputs

END, VOCABULARY, HORIZON = 0, 3, 3
PREFIXES = 7  # nothing, 1, 2, 11, 12, 21, 22: a binary heap
PROMPT = 1
BETA = 0.5  # reward units per nat


@pytree
class World:
    """What is fixed.

    reference: `[PREFIXES, VOCABULARY]` logits of the reference policy.
    scores: `[R]` reward of each response, in the order of `RESPONSES`.
    """

    reference: jax.Array
    scores: jax.Array


def all_responses() -> list[tuple[int, ...]]:
    """Every response, shortest first."""
    found = []
    for length in range(1, HORIZON + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            ended = tokens[-1] == END
            if END not in tokens[:-1] and (ended or length == HORIZON):
                found.append(tokens)
    return found


RESPONSES = all_responses()


def rows() -> TokenBatch:
    """All responses behind a prompt of one token; padding after a response that ended early."""
    tokens = np.zeros((len(RESPONSES), 1 + HORIZON), np.int32)
    response_mask = np.zeros(tokens.shape, bool)
    for row, response in enumerate(RESPONSES):
        tokens[row, 1 : 1 + len(response)] = response
        response_mask[row, 1 : 1 + len(response)] = True
    tokens[:, 0] = PROMPT
    prompt_mask = np.zeros(tokens.shape, bool)
    prompt_mask[:, 0] = True
    arrays = (tokens, prompt_mask, response_mask, np.arange(len(RESPONSES), dtype=np.int32))
    names = ("tokens", "prompt_mask", "response_mask", "index")
    return TokenBatch(**dict(zip(names, map(jnp.asarray, arrays), strict=True)))


def prefixes(tokens: jax.Array) -> jax.Array:
    """`[B, T]`: the number of the prefix that stands after each token; 0 where there is none."""
    number = jnp.zeros_like(tokens[:, 0])
    numbers = [number]
    for column in range(1, tokens.shape[1]):
        number = 2 * number + tokens[:, column]
        numbers.append(number)
    numbers = jnp.stack(numbers, axis=1)
    return jnp.where(numbers < PREFIXES, numbers, 0)


class Table:
    """A model of the library's kind: logits and values by prefix."""

    def apply(self, variables, tokens, mask, *, keys=None):
        """Parameters: `logits` `[PREFIXES, VOCABULARY]`, `values` `[PREFIXES]`."""
        del mask, keys  # padding is never read, there is no dropout
        params, here = variables["params"], prefixes(tokens)
        before = jnp.concatenate([here[:, :1], here[:, :-1]], axis=1)
        return Outputs(
            hidden=jax.nn.one_hot(here, PREFIXES, dtype=params["logits"].dtype),
            unembedding=params["logits"],
            values=params["values"][before],
            scores=None,
            step_scores=None,
            cache=None,
            softcap=None,
        )


MODEL = Table()
table_logps, table_policy = text_logps(MODEL), text_policy(MODEL)


def params_of(logits: jax.Array, values: jax.Array | None = None) -> dict[str, jax.Array]:
    """The parameters of `MODEL`; values are 0 where none are given."""
    return {"logits": logits, "values": jnp.zeros_like(logits[:, 0]) if values is None else values}


def make_world(seed: int = 91) -> World:
    """Random logits and rewards; double precision under `jax.enable_x64`.

    The default seed has an optimum that spreads over all lengths: 18, 31 and 50% of its responses
    have 1, 2 and 3 tokens, and the likeliest response has 18%.
    """
    rng = np.random.default_rng(seed)
    return World(
        reference=jnp.asarray(0.7 * rng.normal(size=(PREFIXES, VOCABULARY))),
        scores=jnp.asarray(rng.normal(size=len(RESPONSES))),
    )


@jax.jit
def policy_at(world: World, share: float) -> jax.Array:
    """Logits of a policy that has gone this share of the way from the reference to the optimum."""
    start = log_softmax(world.reference)
    return start + share * (log_softmax(logits_of(optimal_logps(world))) - start)


def values_of(params) -> jax.Array:
    """`[R, T]`: the value of the prefix before each token."""
    batch = rows()
    return MODEL.apply({"params": params}, batch.tokens, batch.mask).values


@jax.jit
def token_scores(logits: jax.Array) -> jax.Array:
    """`[R, T, PREFIXES, VOCABULARY]`: gradient of the log-probability of each response token."""
    batch = rows()
    each = jax.jacrev(lambda x: table_logps(params_of(x), batch))(logits)
    return jnp.where(batch.response_mask[:, :, None, None], each, 0)


@jax.jit
def logps(logits: jax.Array) -> jax.Array:
    """`[R]` nats: log-probability of every response."""
    batch = rows()
    return sequence_logps(table_logps(params_of(logits), batch), batch.response_mask)


@functools.partial(jax.jit, static_argnames="samples")
def draw(logits: jax.Array, key: jax.Array, samples: int) -> jax.Array:
    """`[samples]`: responses drawn token by token, as indices into `RESPONSES`."""
    ends = np.full((PREFIXES, VOCABULARY), -1)
    for row, tokens in enumerate(RESPONSES):
        before = 0
        for token in tokens[:-1]:
            before = 2 * before + token
        ends[before, tokens[-1]] = row
    before, found = jnp.zeros(samples, jnp.int32), jnp.full(samples, -1)
    for column in range(HORIZON):
        token = jax.random.categorical(jax.random.fold_in(key, column), logits[before])
        found = jnp.where(found < 0, jnp.asarray(ends)[before, token], found)
        before = jnp.where(found < 0, 2 * before + token, 0).astype(jnp.int32)
    return found


def kl(logits: jax.Array, other: jax.Array) -> jax.Array:
    """KL(policy, other) in nats: the sum over all responses."""
    log_p, log_q = logps(logits), logps(other)
    return jnp.sum(jnp.exp(log_p) * k1(log_p, log_q))


@jax.jit
def objective(logits: jax.Array, world: World, beta: float = BETA) -> jax.Array:
    """J = E[score] - beta KL(policy, reference)."""
    expected = jnp.sum(jnp.exp(logps(logits)) * world.scores)
    return expected - beta * kl(logits, world.reference)


def optimal_logps(world: World, beta: float = BETA) -> jax.Array:
    """`[R]` nats: log pi* with pi* = pi_ref exp(score / beta) / Z, which maximises J."""
    return log_softmax(logps(world.reference) + world.scores / beta)


def logits_of(response_logps: jax.Array) -> jax.Array:
    """`[PREFIXES, VOCABULARY]`: the policy with these log-probabilities of all responses.

    Entry (prefix, token) is the log of the probability of all responses that go through there.
    """
    batch = rows()
    before, after = prefixes(batch.tokens)[:, :-1], batch.tokens[:, 1:]
    shares = jnp.where(batch.response_mask[:, 1:], jnp.exp(response_logps)[:, None], 0)
    mass = jnp.zeros((PREFIXES, VOCABULARY), shares.dtype).at[before, after].add(shares)
    return jnp.log(mass)


def exact_values(logits: jax.Array, rewards: jax.Array) -> jax.Array:
    """`[PREFIXES]`: expected sum of the rewards from each prefix on.

    Args:
      logits: of the policy that continues.
      rewards: `[R, T]`, reward units, 0 where masked.
    """
    batch = rows()
    before = prefixes(batch.tokens)[:, :-1]
    real = batch.response_mask[:, 1:]
    to_come = jnp.cumsum(rewards[:, :0:-1], axis=1)[:, ::-1]
    shares = jnp.where(real, jnp.exp(logps(logits))[:, None], 0)
    total, reached = (
        jnp.zeros(PREFIXES, shares.dtype).at[before].add(x) for x in (shares * to_come, shares)
    )
    return total / reached
