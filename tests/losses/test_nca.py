"""NCA: likelihoods of both responses by themselves."""

from tests.cases.losses.nca import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
