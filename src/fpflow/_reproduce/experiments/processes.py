"""One network and recipe under every process."""

import functools
from typing import Any

import fpflow

from ..._process import BY_NAME
from .base import IN_THE_PLANE, Experiment, Numbers, Setting, network_in_the_plane


def _measured(name: str, setting: Setting, key) -> Numbers:
    process: Any = BY_NAME[name]()

    def make(key):
        network = fpflow.PotentialMLP(2, prior=fpflow.IsotropicGaussian(), key=key)
        return fpflow.in_frame(network, process)

    return network_in_the_plane(setting, make, process=process, num_steps=2000, key=key)


PROCESSES = Experiment(
    "processes",
    "How far apart are the samplers, and how near to the data, when the same network, in the frame that "
    "all processes share, learns under each?",
    {name: functools.partial(_measured, name) for name in BY_NAME},
    IN_THE_PLANE,
)
