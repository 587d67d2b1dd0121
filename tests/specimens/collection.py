"""All specimens, by the name of their function."""

from tests.specimens import estimators, importance, policy_gradients, preferences, statistics

MODULES = (preferences, policy_gradients, importance, estimators, statistics)
SPECIMENS = {specimen.name: specimen for module in MODULES for specimen in module.SPECIMENS}
