"""Text labels of points in a plot, moved so that they do not overlap."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

_SIZE = 8.5  # points
_SIDES = ((7, 0), (0, 10), (0, -10), (-7, 0), (7, 9), (7, -9), (-7, 9), (-7, -9))
_FARTHER = ((0, 20), (0, -20), (14, 18), (14, -18), (-14, 18), (-14, -18), (20, 28), (20, -28))
_OFFSETS = _SIDES + _FARTHER  # points; of equal ones the first is taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """Text for the point (x, y), data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def place(axes: Axes, labels: Sequence[Label], avoid: Sequence[tuple[float, float]] = ()) -> None:
    """Writes each label at the free place nearest to its point.

    Call it last: the limits and margins of the axes must be final.

    Args:
      axes: where to write.
      labels: the labels; those of the highest points choose first.
      avoid: further points (data coordinates) that a label should not cover.
    """
    points = [*((label.x, label.y) for label in labels), *avoid]
    scale = 72 / axes.figure.dpi
    pixels = axes.transData.transform(np.array(points).reshape(-1, 2)) * scale
    taken = [np.array([x - 3, y - 3, x + 3, y + 3]) for x, y in pixels]
    frame = np.array(axes.get_window_extent().extents) * scale + np.array([0, 0, 8, 8])
    for index in sorted(range(len(labels)), key=lambda i: -pixels[i, 1]):
        boxes = [_box(pixels[index], offset, labels[index].text) for offset in _OFFSETS]
        others = [box for i, box in enumerate(taken) if i != index]
        far = [2 * np.hypot(*offset) for offset in _OFFSETS]
        costs = [_cost(box, others, frame) + cost for box, cost in zip(boxes, far, strict=True)]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        _write(axes, labels[index], _OFFSETS[best])


def end_labels(axes: Axes, labels: Sequence[Label], *, gap: float = 11) -> None:
    """Writes labels to the right of their line ends, pushed apart vertically to `gap` points."""
    scale = 72 / axes.figure.dpi
    order = sorted(labels, key=lambda label: label.y)
    ends = np.array([(label.x, label.y) for label in order]).reshape(-1, 2)
    heights = axes.transData.transform(ends)[:, 1] * scale
    spread = heights.copy()
    for _ in range(50):
        for i in range(len(spread) - 1):
            short = gap - (spread[i + 1] - spread[i])
            if short > 0:
                spread[i], spread[i + 1] = spread[i] - short / 2, spread[i + 1] + short / 2
    for label, shift in zip(order, spread - heights, strict=True):
        _write(axes, label, (6, shift))


def _write(axes: Axes, label: Label, offset: tuple[float, float]) -> None:
    """One annotation, on the side that the offset points to; from farther away with a line."""
    leader = {
        "arrowstyle": "-",
        "color": label.colour,
        "linewidth": 0.6,
        "shrinkA": 1,
        "shrinkB": 4,
    }
    axes.annotate(
        label.text,
        (label.x, label.y),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right" if offset[0] < 0 else "center",
        va="center",
        fontsize=_SIZE,
        color=label.colour,
        annotation_clip=False,
        arrowprops=leader if offset in _FARTHER else None,
    )


def _box(point: np.ndarray, offset: tuple[float, float], text: str) -> np.ndarray:
    """Left, bottom, right, top of a label in points; a character is about 0.58 em wide."""
    width, height = 0.58 * _SIZE * len(text), 1.1 * _SIZE
    x, y = point + np.array(offset)
    left = x if offset[0] > 0 else x - width if offset[0] < 0 else x - width / 2
    return np.array([left, y - height / 2, left + width, y + height / 2])


def _cost(box: np.ndarray, taken: Sequence[np.ndarray], frame: np.ndarray) -> float:
    """Square points of overlap with what is taken, and of box outside the frame."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    outside = area - _overlap(box, frame)
    return 5 * outside + sum(_overlap(box, other) for other in taken)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Area shared by two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
