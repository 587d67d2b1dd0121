"""Groups of token sequences as one shared prefix and several continuations."""

from collections.abc import Sequence

import numpy as np

from jaxalign.batches.tokens import SharedPrompts
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.errors import UserError


def shared_lengths(groups: Sequence[Sequence[TokenRow]]) -> tuple[int, int]:
    """Padded lengths `(P, R)` of shared prefixes and of continuations, for groups of K rows.

    P + K R is least; a prefix of more than P tokens continues in the columns of the continuations.
    """
    shared = np.array([shared_prefix(group) for group in groups])
    longest = np.array([max(map(len, group)) for group in groups])
    count = max(map(len, groups))
    # at least one column: the first token of a response is predicted from the last of them
    candidates = np.unique(np.maximum(shared, 1))[::-1]  # of equals, the one with fewest logits
    continuations = [int((longest - np.minimum(shared, p)).max()) for p in candidates]
    best = int(np.argmin(candidates + count * np.array(continuations)))
    return int(candidates[best]), continuations[best]


def shared_prefix(rows: Sequence[TokenRow]) -> int:
    """Number of tokens that all rows begin with and none of them is trained on."""
    length = min(int(np.argmax(row.is_response)) if row.is_response.any() else len(row)
                 for row in rows)  # fmt: skip
    first = rows[0].tokens[:length]
    same = np.all([row.tokens[:length] == first for row in rows], axis=0)
    return length if same.all() else int(np.argmin(same))


def shared_prompts(
    groups: Sequence[Sequence[TokenRow]],
    *,
    pad_id: int,
    lengths: tuple[int, int] | None = None,
    index: Sequence[int] | np.ndarray | None = None,
) -> SharedPrompts:
    """Batch of groups of K rows, each as one left-padded shared prefix and K continuations.

    Args:
      groups: B groups.
      pad_id: of padding.
      lengths: `(P, R)`, see `shared_lengths`; of these groups by default.
      index: `[B]` global example indices; 0, 1, 2 ... by default.

    Raises:
      UserError: a group has another size, or a continuation is longer than R.
    """
    prompt_length, continuation_length = shared_lengths(groups) if lengths is None else lengths
    if len({len(group) for group in groups}) > 1:
        raise UserError("all groups must have the same number of rows")
    cuts = [min(shared_prefix(group), prompt_length) for group in groups]
    prefixes = [TokenRow(g[0].tokens[:cut], np.zeros(cut, bool))
             for g, cut in zip(groups, cuts, strict=True)]  # fmt: skip
    continuations = [TokenRow(row.tokens[cut:], row.is_response[cut:])
                     for g, cut in zip(groups, cuts, strict=True) for row in g]  # fmt: skip
    prompts = token_batch(
        prefixes, pad_id=pad_id, length=prompt_length, index=index, padding="left"
    )
    flat = token_batch(continuations, pad_id=pad_id, length=continuation_length)
    shape = (len(groups), -1, continuation_length)
    return SharedPrompts(
        prompts=prompts.tokens,
        prompt_mask=prompts.mask,
        responses=flat.tokens.reshape(shape),
        mask=flat.mask.reshape(shape),
        response_mask=flat.response_mask.reshape(shape),
        index=prompts.index,
    )
