"""SPPO: log-ratios of wins and losses."""

from tests.cases.losses.sppo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
