"""exp as the library documents it: continued by its tangent where sums of it would overflow."""

import math
import sys

KNEE = math.log(sys.float_info.max) / 2


def saturating_exp(x: float) -> float:
    return math.exp(x) if x <= KNEE else math.exp(KNEE) * (1 + x - KNEE)
