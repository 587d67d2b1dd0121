"""Length-normalised DPO."""

from tests.cases.losses.length_normalised_dpo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
