"""What the network stands for: a score or a potential, with the prior or without, in which form."""

import functools
from typing import Any

import fpflow

from ..data import PROCESS
from .base import IN_THE_PLANE, Experiment, Numbers, Setting, network_in_the_plane


def _residual(out: int, key) -> Any:
    return fpflow.ResidualMLP(2, out=out, width=32, depth=2, key=key)


_MODELS = {
    "potential, layers on the prior": lambda key: fpflow.PotentialMLP(
        2, prior=PROCESS.prior, key=key
    ),
    "potential, layers alone": lambda key: fpflow.PotentialMLP(2, prior=None, key=key),
    "score, layers on the prior": lambda key: fpflow.ScoreMLP(2, prior=PROCESS.prior, key=key),
    "score, layers alone": lambda key: fpflow.ScoreMLP(2, prior=None, key=key),
    "residual: potential N": lambda key: _framed(fpflow.PotentialNetwork(_residual(1, key))),
    "residual: potential ⟨z, N⟩": lambda key: _framed(fpflow.PotentialNetwork(_residual(2, key))),
    "residual: potential −½‖z − N‖²": lambda key: _framed(
        fpflow.ReconstructionPotential(_residual(2, key))
    ),
    "residual: score N": lambda key: _framed(fpflow.ScoreNetwork(_residual(2, key))),
    "residual: potential N, EDM": lambda key: _framed(
        fpflow.Preconditioned(fpflow.PotentialNetwork(_residual(1, key)))
    ),
    "residual: score N, EDM": lambda key: _framed(
        fpflow.Preconditioned(fpflow.ScoreNetwork(_residual(2, key)))
    ),
}


def _framed(model: Any) -> Any:
    return fpflow.in_frame(model, PROCESS)


def _measured(make: Any, setting: Setting, key) -> Numbers:
    return network_in_the_plane(setting, make, num_steps=2000, key=key)


PARAMETERISATIONS = Experiment(
    "parameterisations",
    "Does it matter whether a network is a score or a potential, whether it corrects the prior, and in "
    "which form a potential comes from it?",
    {name: functools.partial(_measured, make) for name, make in _MODELS.items()},
    IN_THE_PLANE,
)
