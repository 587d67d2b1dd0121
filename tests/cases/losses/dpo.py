"""Examples of what `jaxalign/losses/dpo.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_rows
from tests.cases.pairs import PAIRED, SETTINGS, SMOOTHED, refused
from tests.oracles import preferences as oracle

CASES = (
    Case(
        function=jaxalign.log_ratios,
        oracle=by_rows(oracle.log_ratios),
        **PAIRED,
    ),
    Case(
        function=jaxalign.no_reference,
        draw=lambda rng: {"policy": draws.pair(rng)},
        oracle=by_rows(lambda chosen, rejected: (0.0, 0.0)),
        frozen=("policy",),
        order=0,
    ),
    Case(
        function=jaxalign.implicit_rewards,
        oracle=by_rows(oracle.implicit_rewards),
        settings=SETTINGS,
        **PAIRED,
    ),
    Case(
        function=jaxalign.dpo_loss,
        oracle=by_rows(oracle.dpo_loss),
        settings=SMOOTHED,
        invalid=refused(beta=0.1),
        **PAIRED,
    ),
    Case(
        function=jaxalign.robust_dpo_loss,
        oracle=by_rows(oracle.robust_dpo_loss),
        settings=(
            {"beta": 0.3, "label_smoothing": 0.2},
            {"beta": 1.5, "label_smoothing": 0.0},
            {"beta": 1.5, "label_smoothing": 0.4},
        ),
        invalid=refused(beta=0.1),
        **PAIRED,
    ),
)
