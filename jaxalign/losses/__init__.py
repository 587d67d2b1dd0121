"""The losses, one paper a file, all unreduced: sum over a mask, divide once by a global weight.

A file's `__all__` is what it offers: formulas, and the declarations of losses. The line that
imports it here is all that the command line, its help, the tables and the tests need; the order of
the lines is theirs.
"""

import types
import typing

from jaxalign.losses import declarations as _declarations
from jaxalign.losses import group_methods as _group_methods

# isort: off
from jaxalign.losses.cross_entropy import *
from jaxalign.losses.bradley_terry import *
from jaxalign.losses.plackett_luce import *
from jaxalign.losses.process_reward import *
from jaxalign.losses.dpo import *
from jaxalign.losses.ipo import *
from jaxalign.losses.hinge import *
from jaxalign.losses.exo import *
from jaxalign.losses.nca import *
from jaxalign.losses.kto import *
from jaxalign.losses.bco import *
from jaxalign.losses.sppo import *
from jaxalign.losses.aot import *
from jaxalign.losses.apo import *
from jaxalign.losses.discopop import *
from jaxalign.losses.length_normalised_dpo import *
from jaxalign.losses.ld_dpo import *
from jaxalign.losses.wpo import *
from jaxalign.losses.f_dpo import *
from jaxalign.losses.simpo import *
from jaxalign.losses.alphapo import *
from jaxalign.losses.cpo import *
from jaxalign.losses.orpo import *
from jaxalign.losses.tpo import *
from jaxalign.losses.online_dpo import *
from jaxalign.losses.xpo import *
from jaxalign.losses.nash_md import *
from jaxalign.losses.ppo import *
from jaxalign.losses.grpo import *
from jaxalign.losses.dr_grpo import *
from jaxalign.losses.dapo import *
from jaxalign.losses.bnpo import *
from jaxalign.losses.gspo import *
from jaxalign.losses.cispo import *
from jaxalign.losses.sapo import *
from jaxalign.losses.luspo import *
from jaxalign.losses.gmpo import *
from jaxalign.losses.vespo import *
from jaxalign.losses.reinforce import *
from jaxalign.losses.reinforce_plus_plus import *
from jaxalign.losses.aggregation import *
from jaxalign.losses.importance import *
from jaxalign.losses.distillation import *
# isort: on

PAIR_LOSSES = _declarations.losses_of(_declarations.PAIRED, vars())
UNPAIRED_LOSSES = _declarations.losses_of(_declarations.UNPAIRED, vars())
ONLINE_LOSSES = _declarations.losses_of(_declarations.ONLINE, vars())
REWARD_LOSSES = _declarations.losses_of(_declarations.REWARDS, vars())
DISTILLATION_LOSSES = _declarations.losses_of(_declarations.DISTILLATION, vars())
GROUP_LOSSES = _group_methods.methods_of(vars())
if not typing.TYPE_CHECKING:  # which follows the imports themselves
    __all__ = [
        name
        for name, value in vars().items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    ]
