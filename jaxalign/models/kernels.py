"""Flash attention: the kernels that accelerators have for the attention of long texts.

The same numbers as `attention.attend`, without ever holding the `[T, S]` weights: on TPUs splash
attention (Pallas), on NVIDIA GPUs cuDNN's flash attention. Neither has second derivatives.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import AxisType, PartitionSpec

from jaxalign.batches.tokens import pytree

TILES = (512, 256, 128)  # of splash attention: lengths are padded to multiples of one
PADDING = 9 / 8  # largest length with padding, relative to the text, at which a tile is used
FUSED = 4  # tiles of keys: one pass backward holds the queries' gradients once for each of them
LONG = 512  # keys; shorter texts would mostly be padding of one tile
CUDNN_WIDTH = 128  # widest head on any GPU
INTERPRETED = False  # whether kernels of TPUs run on whatever there is, slowly


@pytree
class AttentionMask:
    """Attention mask of T queries, the last of S columns, over S keys.

    visible: `[B, T, S]` bool, true where a query sees a key.
    segment_ids: the same in short: `[B, T]` of queries and `[B, S]` of keys, int32; a query sees
      the keys with its own id up to its own column. None where the mask has no such form.
    """

    visible: jax.Array
    segment_ids: tuple[jax.Array, jax.Array] | None


def kernel_for(
    q: jax.Array, k: jax.Array, *, mask: AttentionMask, softcap: float | None
) -> Callable[..., jax.Array] | None:
    """Fastest kernel for these queries and keys on this platform; None: plain attention.

    Args:
      q: `[B, N, T, H]`.
      k: `[B, K, S, H]`.
      mask: of these queries and keys.
      softcap: bound of the scaled products; None: none.
    """
    length, width = k.shape[2], q.shape[3]
    if length < LONG:
        return None
    platform = "tpu" if INTERPRETED else jax.default_backend()
    has_ids = mask.segment_ids is not None and _rows_fit_mesh(q)
    if platform == "tpu" and has_ids and width % 64 == 0:
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


def by_cudnn(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: AttentionMask,
    scale: float | jax.Array | None,
    softcap: float | None = None,
    implementation: Any = "cudnn",
) -> jax.Array:
    """Flash attention of an NVIDIA GPU, half precision only; arguments as of `attention.attend`."""
    assert softcap is None, "cuDNN's attention has no softcap"
    out = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (scaled(q, scale), k, v)),
        mask=mask.visible[:, None],
        scale=1.0,
        is_causal=q.shape[2] == k.shape[2],  # says nothing new, but leaves half of the work out
        implementation=implementation,
    )
    return out.swapaxes(1, 2)


def by_splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: AttentionMask,
    scale: float | jax.Array | None,
    softcap: float | None,
) -> jax.Array:
    """Splash attention of a TPU; arguments as of `attention.attend`."""
    assert mask.segment_ids is not None
    (tile_q, queries), (tile_k, keys) = (tiled(x.shape[2]) for x in (q, k))
    offset = k.shape[2] - q.shape[2]

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, *segment_ids: jax.Array) -> jax.Array:
        kernel = _splash_kernel(
            heads=q.shape[1],
            queries=(tile_q, queries),
            keys=(tile_k, keys),
            offset=offset,
            softcap=softcap,
        )
        return jax.vmap(kernel)(q, k, v, splash.SegmentIds(*segment_ids))

    of_queries, of_keys = mask.segment_ids
    out = _on_own_rows(attend)(
        _padded(scaled(q, scale), queries, 2),
        _padded(k, keys, 2),
        _padded(v, keys, 2),
        _padded(of_queries, queries, 1),
        _padded(of_keys, keys, 1),  # with 0, which no query has
    )
    return out[:, :, : q.shape[2]]


def _splash_kernel(
    *,
    heads: int,
    queries: tuple[int, int],
    keys: tuple[int, int],
    offset: int,
    softcap: float | None,
) -> Callable[..., Any]:
    """Splash attention for one row; queries and keys: tile and padded length of each."""
    (tile_q, queries_padded), (tile_k, keys_padded) = queries, keys
    fused = keys_padded // tile_k <= FUSED
    causal = masks.CausalMask((queries_padded, keys_padded), offset)
    return splash.make_splash_mha(
        masks.MultiHeadMask([causal] * heads),
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


def tiled(length: int) -> tuple[int, int]:
    """Largest tile that needs little padding, and the length padded to whole tiles.

    >>> tiled(512), tiled(640), tiled(8320)
    ((512, 512), (128, 640), (512, 8704))
    """
    sizes = [(tile, -(-length // tile) * tile) for tile in TILES]
    return next((x for x in sizes if x[1] <= PADDING * length), sizes[-1])


def scaled(q: jax.Array, scale: float | jax.Array | None) -> jax.Array:
    """Queries `[..., H]` times the attention scale; None: 1 / sqrt(H)."""
    return q * jnp.asarray(q.shape[-1] ** -0.5 if scale is None else scale, q.dtype)


def _padded(x: jax.Array, length: int, axis: int) -> jax.Array:
    after = [(0, length - size if i == axis else 0) for i, size in enumerate(x.shape)]
    return jnp.pad(x, after)


def _on_own_rows(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The kernel on each device's own rows: the compiler cannot split one by itself."""
    if not (names := _split_by_compiler()):
        return fn
    rows = PartitionSpec(names[0])
    return jax.shard_map(fn, in_specs=rows, out_specs=rows, check_vma=False)


def _split_by_compiler() -> list[str]:
    """Mesh axes over which the compiler, not the program, splits arrays."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return [name for name, kind in kinds if kind == AxisType.Auto]


def _rows_fit_mesh(q: jax.Array) -> bool:
    """Whether the rows divide over the devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return all(q.shape[0] % mesh.shape[name] == 0 for name in _split_by_compiler()[:1])
