"""GRPO: PPO's loss of a response's advantage with a KL term."""

from tests.cases.losses.grpo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)
