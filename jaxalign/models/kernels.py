"""Attention by the kernels that accelerators have for long texts.

They give what `attention.attend` gives, without ever holding the `[T, S]` weights: on TPUs splash
attention (Pallas), on NVIDIA GPUs cuDNN's flash attention. Neither has second derivatives.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import AxisType, PartitionSpec

from jaxalign.batches.tokens import pytree

TILES = (512, 256, 128)  # of splash attention: lengths are padded to multiples of one
PADDING = 9 / 8  # how much longer a text may get by that for a larger tile
FUSED = 4  # tiles of keys: one pass backward holds the queries' gradients once for each of them
LONG = 512  # keys; shorter texts would mostly be padding of one tile
CUDNN_WIDTH = 128  # widest head on any GPU
INTERPRETED = False  # whether kernels of TPUs run on whatever there is, slowly


@pytree
class Sight:
    """What T queries, the last of S columns, see.

    visible: `[B, T, S]` bool.
    numbers: the same in short: `[B, T]` and `[B, S]` int32; a query sees the keys with its number
      up to its own column. None where that does not say it all.
    """

    visible: jax.Array
    numbers: tuple[jax.Array, jax.Array] | None


def kernel_for(q, k, *, sight: Sight, softcap: float | None):
    """The kernel for queries `[B, N, T, H]` and keys `[B, K, S, H]`, or None: none is better."""
    length, width = k.shape[2], q.shape[3]
    if length < LONG:
        return None
    platform = "tpu" if INTERPRETED else jax.default_backend()
    numbered = sight.numbers is not None and _rows_fit_mesh(q)
    if platform == "tpu" and numbered and width % 64 == 0:
        return by_splash
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    even = q.shape[2] % 2 == 0 and length % 2 == 0
    narrow = width <= CUDNN_WIDTH and width % 8 == 0
    if platform == "gpu" and half and softcap is None and even and narrow and has_cudnn():
        return by_cudnn
    return None


def has_cudnn() -> bool:
    """Whether the GPU is one that cuDNN's flash attention knows: NVIDIA's, from Ampere on."""
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return bool(re.fullmatch(r"\d+\.\d+", capability)) and float(capability) >= 8


def by_cudnn(q, k, v, *, sight: Sight, scale, softcap=None, implementation: Any = "cudnn"):
    """Flash attention of an NVIDIA GPU, half precision only; arguments as of `attention.attend`."""
    assert softcap is None, "cuDNN's attention has no softcap"
    out = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (scaled(q, scale), k, v)),
        mask=sight.visible[:, None],
        scale=1.0,
        is_causal=q.shape[2] == k.shape[2],  # says nothing new, but leaves half of the work out
        implementation=implementation,
    )
    return out.swapaxes(1, 2)


def by_splash(q, k, v, *, sight: Sight, scale, softcap):
    """Splash attention of a TPU; arguments as of `attention.attend`."""
    assert sight.numbers is not None
    (tile_q, queries), (tile_k, keys) = (tiled(x.shape[2]) for x in (q, k))
    offset = k.shape[2] - q.shape[2]
    fused = keys // tile_k <= FUSED

    def attend(q, k, v, of_queries, of_keys):
        kernel = splash.make_splash_mha(
            masks.MultiHeadMask([masks.CausalMask((queries, keys), offset)] * q.shape[1]),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=splash.BlockSizes(
                block_q=tile_q,
                block_kv=tile_k,
                block_kv_compute=tile_k,
                block_q_dkv=tile_q,
                block_kv_dkv=tile_k,
                block_kv_dkv_compute=tile_k,
                block_q_dq=None if fused else tile_q,
                block_kv_dq=None if fused else tile_k,
                use_fused_bwd_kernel=fused,
            ),
            attn_logits_soft_cap=softcap,
            interpret=INTERPRETED,
        )
        return jax.vmap(kernel)(q, k, v, splash.SegmentIds(of_queries, of_keys))

    of_queries, of_keys = sight.numbers
    out: Any = _a_device_each(attend)(
        _padded(scaled(q, scale), queries, 2),
        _padded(k, keys, 2),
        _padded(v, keys, 2),
        _padded(of_queries, queries, 1),
        _padded(of_keys, keys, 1),  # with 0, which no query has
    )
    return out[:, :, : q.shape[2]]


def tiled(length: int) -> tuple[int, int]:
    """The largest tile that costs little padding, and the length in such tiles.

    >>> tiled(512), tiled(640), tiled(8320)
    ((512, 512), (128, 640), (512, 8704))
    """
    sizes = [(tile, -(-length // tile) * tile) for tile in TILES]
    return next((x for x in sizes if x[1] <= PADDING * length), sizes[-1])


def scaled(q: jax.Array, scale: float | jax.Array | None) -> jax.Array:
    """Queries `[..., H]` as their products with keys want them; None: by 1 / sqrt(H)."""
    return q * jnp.asarray(q.shape[-1] ** -0.5 if scale is None else scale, q.dtype)


def _padded(x, length, axis):
    after = [(0, length - size if i == axis else 0) for i, size in enumerate(x.shape)]
    return jnp.pad(x, after)


def _a_device_each(fn):
    """A kernel sees its own device's rows; where the compiler splits them, that must be said."""
    if not (names := _split_by_compiler()):
        return fn
    rows = PartitionSpec(names[0])
    return jax.shard_map(fn, in_specs=rows, out_specs=rows, check_vma=False)


def _split_by_compiler() -> list[str]:
    """The axes of a mesh over which the compiler splits arrays as it sees fit."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return [name for name, kind in kinds if kind == AxisType.Auto]


def _rows_fit_mesh(q) -> bool:
    """Whether every device has as many rows as the others."""
    mesh = jax.sharding.get_abstract_mesh()
    return all(q.shape[0] % mesh.shape[name] == 0 for name in _split_by_compiler()[:1])
