"""Errors as numbers and as phrases."""

import numpy as np

from benchmarks.conformance.peers.adapter import Measured

TOLERANCE = 1e-4  # most libraries compute in float32; every defect here is far larger


def error(found, wanted) -> float:
    """Largest |found - wanted| / max(1, |wanted|); infinite if something is not finite."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        raise ValueError(f"shape {found.shape}, wanted {wanted.shape}")
    if not np.isfinite(found).all():
        return np.inf
    return float((np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0))


def distance(found, wanted) -> float:
    """|found - wanted| / |wanted| of whole vectors."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if not np.linalg.norm(wanted) > 0:
        raise ValueError("nothing to compare with: the vector is 0")
    off = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    return off if np.isfinite(off) else np.inf


def short(number: float) -> str:
    return f"{number:.3g}"


def close(found, wanted, phrase: str = "error", tolerance: float = TOLERANCE) -> Measured:
    """Passes if the error is within the tolerance; single numbers are shown with what is right."""
    off = error(found, wanted)
    if np.ndim(found) == 0:
        return Measured(off <= tolerance, f"{float(found):.5g}, right is {float(wanted):.5g}")
    return Measured(off <= tolerance, f"{phrase} {short(off)}")
