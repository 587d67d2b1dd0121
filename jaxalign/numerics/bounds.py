"""Bounds of the numbers that users give."""

# Largest score, weight or margin, in size. There float32 goes in steps of 64, and no square of it,
# nor a sum of squares over a million tokens and a billion parameters, leaves float32's range
# (1e18 x 1e6 x 1e9 = 1e33, of 3e38); beyond it training would end with a loss of NaN.
LARGEST = 1e9
