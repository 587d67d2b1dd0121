"""A transformer in float64 loops over tokens and heads, one unpadded text at a time; no jax.

From the papers: attention (Vaswani et al. 2017, Eq. 1), pre-norm blocks (Radford et al. 2019,
section 2.3), rotary positions (Su et al. 2021, Eq. 15; pairs (i, i + H/2) as in Llama), RMS norm
(Zhang and Sennrich 2019, Eq. 4), layer norm (Ba et al. 2016, Eq. 4), SwiGLU (Shazeer 2020, Eq. 6),
GELU in its tanh form (Hendrycks and Gimpel 2016).
"""

import itertools
import math

import numpy as np


def hidden_states(tokens, weights, *, heads, kv_heads, norm, positions, epsilon, theta=10_000.0):
    """`[T, D]` after the final norm; `weights` is the tree of one trunk (`layers_0`, ...)."""
    x = np.array([weights["embedding"][token] for token in tokens], np.float64)
    if positions == "learned":
        x = x + np.asarray(weights["positions"], np.float64)[: len(tokens)]
    theta = theta if positions == "rope" else None
    for i in range(sum(name.startswith("layers_") for name in weights)):
        layer = weights[f"layers_{i}"]
        normed = [normalised(row, layer["attention_norm"], norm, epsilon) for row in x]
        x = x + attention(np.array(normed), layer["attention"], heads, kv_heads, theta)
        normed = [normalised(row, layer["feed_forward_norm"], norm, epsilon) for row in x]
        x = x + np.array([feed_forward(row, layer["feed_forward"]) for row in normed])
    return np.array([normalised(row, weights["norm"], norm, epsilon) for row in x])


def normalised(row, weights, kind, epsilon):
    if kind == "rms":
        return row / math.sqrt((row**2).sum() / len(row) + epsilon) * weights["scale"]
    centred = row - row.sum() / len(row)
    deviation = math.sqrt((centred**2).sum() / len(row) + epsilon)
    return centred / deviation * weights["scale"] + weights["bias"]


def linear(x, weights):
    out = x @ np.asarray(weights["kernel"], np.float64)
    return out + weights["bias"] if "bias" in weights else out


def turned(vector, position, theta):
    """The pair (x_i, x_{i + H/2}) as a complex number, times exp(i * position * theta^(-2i/H))."""
    half = len(vector) // 2
    out = np.zeros(len(vector))
    for i in range(half):
        angle = position * theta ** (-2.0 * i / len(vector))
        z = complex(vector[i], vector[i + half]) * complex(math.cos(angle), math.sin(angle))
        out[i], out[i + half] = z.real, z.imag
    return out


def attention(x, weights, heads, kv_heads, theta):
    width = weights["query"]["kernel"].shape[1] // heads
    out = np.zeros((len(x), heads * width))
    q, k, v = (linear(x, weights[name]) for name in ("query", "key", "value"))
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        shared = head // (heads // kv_heads)
        theirs = slice(shared * width, (shared + 1) * width)
        queries, keys = q[:, mine], k[:, theirs]
        if theta is not None:
            queries = [turned(row, t, theta) for t, row in enumerate(queries)]
            keys = [turned(row, t, theta) for t, row in enumerate(keys)]
        for t in range(len(x)):
            logits = np.array([queries[t] @ keys[s] / math.sqrt(width) for s in range(t + 1)])
            share = np.exp(logits - logits.max())
            share /= share.sum()
            out[t, mine] = sum(share[s] * v[s, theirs] for s in range(t + 1))
    return linear(out, weights["output"])


def feed_forward(row, weights):
    up = linear(row, weights["up"])
    if "gate" in weights:
        gate = linear(row, weights["gate"])
        return linear(up * gate / (1 + np.exp(-gate)), weights["down"])
    inner = math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)
    return linear(0.5 * up * (1 + np.tanh(inner)), weights["down"])


def mixed(before, code):
    """The hash of the score head in Python's integers."""
    pair = (int(before) * 2654435769 + int(code)) % 2**32
    folded = (pair ^ (pair >> 16)) * 2246822519 % 2**32
    return folded ^ (folded >> 13)


def ngram_sum(tokens, weights, known, power):
    """Weights of tokens, hashed bigrams and 4 to 6 characters in a row, each times its idf.

    Divided by the number of all of them to the power.
    """

    def term(kind, number):
        return float(weights[kind][number]) * float(known[f"{kind}_idf"][number])

    terms = [term("unigrams", token) for token in tokens]
    for previous, token in itertools.pairwise(tokens):
        terms.append(term("bigrams", mixed(previous, token) % len(weights["bigrams"])))
    codes = []
    if "spelling" in known:
        codes = [int(code) for t in tokens for code in known["spelling"][t] if code > 0]
    for length in (4, 5, 6):
        for start in range(len(codes) - length + 1):
            hashed = codes[start]
            for code in codes[start + 1 : start + length]:
                hashed = mixed(hashed, code)
            bucket = hashed % len(weights["character_ngrams"])
            terms.append(term("character_ngrams", bucket))
    return sum(terms) / len(terms) ** power
