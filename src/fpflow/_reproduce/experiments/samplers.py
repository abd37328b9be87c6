"""Samplers at equal numbers of evaluations, from one network."""

import functools
from typing import Any

import diffrax
import equinox as eqx
import jax.random as jr
import numpy as np

import fpflow

from ..._types import PRNGKey
from ..data import PROCESS
from .base import Experiment, Numbers, Setting, seconds_of, trained

_POINTS = 20_000
# By the number of evaluations of the score.
_SAMPLERS = {
    "ODE, Euler": lambda n: fpflow.ODE(diffrax.Euler(), num_steps=n),
    "ODE, Heun": lambda n: fpflow.ODE(num_steps=n // 2),
    "DDIM": lambda n: fpflow.DDIM(n),
    "EDM, Heun": lambda n: fpflow.EDMHeun(n // 2),
    "EDM, Heun with churn": lambda n: fpflow.EDMHeun(n // 2, churn=n / 8),
    "DDIM with Langevin": lambda n: fpflow.PredictorCorrector(predictor=fpflow.DDIM(n // 2)),
    "Picard over DDIM": lambda n: fpflow.Picard(fpflow.DDIM(n), tolerance=1e-3),
    "SDE, ShARK": lambda n: fpflow.SDE(num_steps=n // 2),
    "Euler-Maruyama": lambda n: fpflow.EulerMaruyama(num_steps=n),
    "ancestral": lambda n: fpflow.Ancestral(n),
    "reverse diffusion with Langevin": lambda n: fpflow.PredictorCorrector(n // 2),
}


_kept: dict[tuple, Any] = {}


def _network(setting: Setting, key: PRNGKey) -> Any:
    """One for all samplers of a seed."""
    name = (id(setting.law), setting.scale, np.asarray(jr.key_data(key)).tobytes())
    if name not in _kept:
        _kept[name] = _trained(setting, key)
    return _kept[name]


def _trained(setting: Setting, key: PRNGKey) -> Any:
    key_network, key_train = jr.split(key)
    network = fpflow.PotentialMLP(2, prior=PROCESS.prior, key=key_network)
    counts = {"num_steps": setting.count(3000), "batch_size": setting.count(1024)}
    return trained(network, PROCESS, setting.law, key=key_train, **counts)[0]


def _measured(make: Any, evaluations: int, setting: Setting, key) -> Numbers:
    key_network, key_prior, key_draw, key_data = jr.split(key, 4)
    model = _network(setting, key_network)
    sampler, number = make(evaluations), setting.count(_POINTS)
    start = PROCESS.prior.sample(key_prior, (number, 2))
    draw = eqx.filter_jit(lambda model, x, key: sampler(model, PROCESS, x, key=key))
    (x, info), seconds = seconds_of(lambda: draw(model, start, key_draw))
    rounds = info.num_evaluations if info.num_rounds is None else info.num_rounds
    found = fpflow.sliced_w2(x, np.asarray(setting.law.sample(key_data, number)))
    return {
        "evaluations": float(info.num_evaluations),
        "rounds": float(rounds),
        "sliced": 1e3 * (found.value - found.floor),
        "seconds": seconds,
    }


SAMPLERS = Experiment(
    "samplers",
    "Which sampler is nearest to the data with 20 and with 100 evaluations of one network?",
    {
        f"{name}, {number}": functools.partial(_measured, make, number)
        for number in (20, 100)
        for name, make in _SAMPLERS.items()
    },
    {
        "evaluations": "evaluations per point",
        "rounds": "sequential rounds",
        "sliced": "sliced W2² to the data, x 10⁻³, less its floor",
        "seconds": "s for all samples",
    },
    times=("seconds",),
)
