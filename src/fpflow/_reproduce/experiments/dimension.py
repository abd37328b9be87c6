"""The gap with the dimension, on mixtures whose density is known."""

import functools

import jax
import jax.random as jr
import numpy as np

import fpflow

from ..data import PROCESS
from .base import Experiment, Numbers, Setting, trained

_POINTS = 128


def _mixture(dim: int) -> fpflow.datasets.GaussianMixture:
    """Four components, at the same distances in every dimension."""
    means = np.array(jr.normal(jr.key(dim), (4, dim)))
    means *= 1.5 / np.linalg.norm(means, axis=1, keepdims=True)
    return fpflow.datasets.GaussianMixture(means, 0.1)


def _measured(dim: int, weight: float, setting: Setting, key) -> Numbers:
    key_network, key_train, key_points, key_paths = jr.split(key, 4)
    law = _mixture(dim)
    network = fpflow.PotentialMLP(dim, prior=PROCESS.prior, width=128, key=key_network)
    square = fpflow.ExactSquare() if dim <= 8 else fpflow.TwoProbeSquare()
    terms = {
        "dsm": fpflow.DenoisingScoreMatching(),
        "fp": fpflow.FokkerPlanck(weight, num_points=256, square=square),
    }
    counts = {"num_steps": setting.count(2000), "batch_size": setting.count(1024)}
    model, speed = trained(
        network, PROCESS, law, objective=fpflow.Objective(terms), key=key_train, **counts
    )
    x = law.sample(key_points, setting.count(_POINTS))
    exact = np.asarray(jax.vmap(law.log_prob)(x))
    ode = fpflow.log_prob_ode(model, PROCESS, x, progress=False)
    sde = fpflow.log_prob_sde(
        model, PROCESS, x, target_error=0.1, num_paths=1024, progress=False, key=key_paths
    )
    below_ode, below_sde = (exact - np.asarray(found.value) for found in (ode, sde))
    return {
        "data_ode": float(below_ode.mean()),
        "data_sde": float(below_sde.mean()),
        "apart": float((below_ode - below_sde).mean()),
        "spread": float((below_ode - below_sde).std()),
        "reliable": float(np.mean(np.asarray(sde.reliable))),
        "ms_per_step": speed,
    }


DIMENSION = Experiment(
    "dimension",
    "How do the distances of both samplers to the data, in nats, grow with the dimension, and does the "
    "penalty still close the gap?",
    {
        f"d = {dim}, w_R = {weight:g}": functools.partial(_measured, dim, weight)
        for dim in (2, 8, 32)
        for weight in (0.0, 0.1)
    },
    {
        "data_ode": "KL(data ‖ ODE), nats",
        "data_sde": "KL(data ‖ SDE), nats",
        "apart": "mean of log p_SDE − log p_ODE at data, nats",
        "spread": "its deviation over points",
        "reliable": "share of reliable log p_SDE",
        "ms_per_step": "ms per step",
    },
    owns_data=True,
)
