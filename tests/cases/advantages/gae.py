"""Examples of what `jaxalign/advantages/gae.py` offers."""

import jaxalign
from tests.cases.case import Case
from tests.cases.episodes import EPISODES
from tests.oracles import gae as gae_oracle

CASES = (
    Case(function=jaxalign.gae, fixed_rank=True, oracle=gae_oracle.gae, **EPISODES),
    Case(function=jaxalign.gae_associative, fixed_rank=True, oracle=gae_oracle.gae, **EPISODES),
)
