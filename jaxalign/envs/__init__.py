"""Environments of control and image tasks, under one protocol.

The line that imports a file with a control task here is all that a configuration needs to name it.
"""

from jaxalign.envs import protocol as _protocol
from jaxalign.numerics import named as _named

# isort: off
from jaxalign.envs.cartpole import *
# isort: on

CONTROL_TASKS = _named.by_name(
    [value for value in vars().copy().values() if isinstance(value, _protocol.Task)]
)
