"""EXO: reverse KL between smoothed labels and the policy."""

from tests.cases.losses.exo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
