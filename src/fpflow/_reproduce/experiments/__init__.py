"""Experiments that compare methods on one bench: `fpflow reproduce --experiment NAME`."""

from .base import Setting as Setting
from .regularisers import REGULARISERS
from .run import run_experiment as run_experiment

EXPERIMENTS = {experiment.name: experiment for experiment in (REGULARISERS,)}
