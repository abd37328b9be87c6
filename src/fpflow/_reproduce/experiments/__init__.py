"""Experiments that compare methods on one bench: `fpflow reproduce --experiment NAME`."""

from .ablation import ABLATION
from .base import Setting as Setting
from .dimension import DIMENSION
from .parameterisations import PARAMETERISATIONS
from .processes import PROCESSES
from .regularisers import REGULARISERS
from .run import run_experiment as run_experiment
from .samplers import SAMPLERS

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (REGULARISERS, PARAMETERISATIONS, PROCESSES, SAMPLERS, DIMENSION, ABLATION)
}
