"""Environments: control and images, one small protocol.

The line that imports a file with a control task here is all that a configuration needs to name it.
"""

from jaxalign.envs import protocol as _protocol

# isort: off
from jaxalign.envs.cartpole import *
# isort: on

CONTROL_TASKS = {
    value.name: value for value in vars().copy().values() if isinstance(value, _protocol.Task)
}
