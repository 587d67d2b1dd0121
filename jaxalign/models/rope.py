"""Rotary position embeddings, and their scaling for texts longer than those trained on."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.ranges import check_ranges
from jaxalign.numerics.precision import widen
from jaxalign.system.files import quote

KINDS = ("linear", "llama3", "yarn")
Rotation = tuple[jax.Array, jax.Array]  # cosine and sine of the rotary angles


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Scaling of rotary wavelengths for texts longer than those trained on.

    kind: "linear" divides all frequencies; "llama3" leaves short wavelengths, divides long ones and
      goes over between them; "yarn" does so by the number of turns in the trained length.
    factor: what frequencies are divided by, >= 1.
    original_length: trained length in tokens (llama3, yarn).
    low_frequency_factor, high_frequency_factor: original_length over these are the wavelengths
      between which llama3 goes over.
    beta_fast, beta_slow: numbers of turns between which yarn goes over.
    attention_factor: of cosine and sine (yarn); None: 0.1 log(factor) + 1.
    truncate: yarn's borders are whole dimensions.

    Source: Chen et al. 2023, https://arxiv.org/abs/2306.15595, Eq. 4 (linear); Grattafiori et al.
    2024, https://arxiv.org/abs/2407.21783, section 3.2, and the published Llama 3.1 code (llama3);
    Peng et al. 2023, https://arxiv.org/abs/2309.00071, Eq. 13, 14 and 22 (yarn).
    """

    kind: str
    factor: float
    original_length: int | None = None
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(
                f"the kind of rope scaling must be {' or '.join(KINDS)}; got {quote(self.kind)}"
            )
        check_ranges(self)
        if self.kind != "linear" and not self.original_length:
            raise UserError(f"rope scaling {self.kind} needs the length that was trained on")
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise UserError(
                f"low_frequency_factor {self.low_frequency_factor} must be below "
                f"high_frequency_factor {self.high_frequency_factor}"
            )
        if self.beta_fast < self.beta_slow:
            raise UserError(
                f"beta_fast {self.beta_fast} must be at least beta_slow {self.beta_slow}"
            )

    @property
    def amplitude(self) -> float:
        """Factor of cosine and sine: 1, and for yarn `attention_factor`."""
        if self.kind != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


def frequencies(head_width: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """Rotary frequencies: radians a position of each pair of features.

      theta ** (-2 i / H),  before any scaling

    Args:
      head_width: H, even.
      theta: base of the wavelengths.
      scaling: of the wavelengths; None: none.

    Returns:
      `[H / 2]` float64.
    """
    plain = theta ** (-np.arange(0, head_width, 2) / head_width)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    share = _llama3(plain, scaling) if scaling.kind == "llama3" else _yarn(plain, theta, scaling)
    return share * plain + (1 - share) * plain / scaling.factor


def _llama3(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Share of each frequency that stays, by how often its wave fits into the trained length."""
    assert scaling.original_length
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    return np.clip((scaling.original_length * plain / (2 * np.pi) - low) / (high - low), 0, 1)


def _yarn(plain: np.ndarray, theta: float, scaling: RopeScaling) -> np.ndarray:
    """Share of each frequency that stays, linear in the index between two bounds."""
    length, half = scaling.original_length, len(plain)
    assert length

    def dimension(turns: float) -> float:
        waves = length / (turns * 2 * math.pi)
        return half * math.log(waves) / math.log(theta)

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    high += 0.001 * (low == high)  # a step instead of a ramp, as in the published code
    return 1 - np.clip((np.arange(half) - low) / (high - low), 0, 1)


def rotary(
    positions: jax.Array, head_width: int, theta: float, scaling: RopeScaling | None = None
) -> Rotation:
    """Cosine and sine of the rotary angles, `angle_i = position * theta ** (-2 i / H)`.

    Args:
      positions: `[B, T]` int32, counted from 0.
      head_width: H, even.
      theta: base of the wavelengths.
      scaling: of the wavelengths; None: none.

    Returns:
      Two `[B, 1, T, H / 2]` float32 arrays.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, Eq. 15.
    """
    turns = jnp.asarray(frequencies(head_width, theta, scaling), jnp.float32)
    angles = positions[:, None, :, None] * turns[None, None, None, :]
    amplitude = 1.0 if scaling is None else scaling.amplitude
    return jnp.cos(angles) * amplitude, jnp.sin(angles) * amplitude


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Queries or keys `[B, N, T, H]` with the pairs (x_i, x_{i + H/2}) turned by rotary angles."""
    cos, sin = rotation
    (wide,) = widen(x)
    first, second = jnp.split(wide, 2, axis=-1)
    turned = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return turned.astype(x.dtype)
