"""All specimens, by the name of their function."""

from tests.specimens import (
    divergences,
    estimators,
    importance,
    language,
    policy_gradients,
    preferences,
    statistics,
)

MODULES = (
    preferences,
    policy_gradients,
    importance,
    estimators,
    divergences,
    language,
    statistics,
)
SPECIMENS = {specimen.name: specimen for module in MODULES for specimen in module.SPECIMENS}
