"""REINFORCE and RLOO."""

from tests.cases.losses.reinforce import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
