"""All specimens, by the name of their function."""

from tests.specimens import (
    distillation,
    divergences,
    estimators,
    importance,
    language,
    online,
    policy_gradients,
    preferences,
    reference_free,
    rewards,
    statistics,
    unpaired,
    weighting,
)

MODULES = (
    preferences,
    reference_free,
    unpaired,
    online,
    rewards,
    weighting,
    distillation,
    policy_gradients,
    importance,
    estimators,
    divergences,
    language,
    statistics,
)
SPECIMENS = {specimen.name: specimen for module in MODULES for specimen in module.SPECIMENS}
