"""Environments of control and image tasks, under one protocol.

The line that imports a file with a control task here is all that a configuration needs to name it.
"""

from jaxalign.envs import protocol as _protocol
from jaxalign.losses import declarations as _declarations

# isort: off
from jaxalign.envs.cartpole import *
# isort: on

CONTROL_TASKS = _declarations.by_name(
    [value for value in vars().copy().values() if isinstance(value, _protocol.Task)]
)
