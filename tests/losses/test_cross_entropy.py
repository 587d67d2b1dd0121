"""Cross-entropy of tokens."""

from tests.cases.losses.cross_entropy import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
