"""Laws and models with known answers, shared by all tests."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.linalg import sqrtm

import fpflow

# Formulas of order one that agree up to the round-off of a few dozen float64 operations.
ROUND_OFF = 1e-11

OU = fpflow.OrnsteinUhlenbeck()
PROCESSES = {
    "paper": OU,
    "other rate and noise": fpflow.OrnsteinUhlenbeck(rate=0.7, noise=1.4, t1=4.0),
    "late start": fpflow.OrnsteinUhlenbeck(rate=2.0, noise=0.5, t0=0.3, t1=3.0),
}
# One of each kind, as they come.
KINDS = {
    "ou": OU,
    "vp": fpflow.VariancePreserving(),
    "vp-cosine": fpflow.VariancePreserving(fpflow.CosineSchedule(), t1=0.995),
    "vp-table": fpflow.VariancePreserving(
        fpflow.TabulatedSchedule(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    ),
    "subvp": fpflow.SubVariancePreserving(),
    "ve": fpflow.VarianceExploding(),
    "ve-harmonic": fpflow.VarianceExploding(fpflow.HarmonicNoise(scale=20.0), t1=0.999),
    "edm": fpflow.EDM(),
    "linear": fpflow.LinearPath(),
    "trigonometric": fpflow.TrigonometricPath(),
}


class Stretch(fpflow.AbstractProcess):
    """A linear process with a drift that depends on time and no closed form but its two functions."""

    t0: float = 0.0
    t1: float = 3.0

    def alpha(self, t):
        return jnp.exp(-(t**2) / 2)

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(-(t**2)))


def mixture(dim: int) -> fpflow.datasets.GaussianMixture:
    """Three tilted Gaussians of unequal weights in any dimension."""
    key_mean, key_cov = jr.split(jr.key(dim))
    roots = 0.4 * jr.normal(key_cov, (3, dim, dim))
    covariances = roots @ jnp.swapaxes(roots, 1, 2) + 0.1 * jnp.eye(dim)
    means = 1.5 * jr.normal(key_mean, (3, dim))
    return fpflow.datasets.GaussianMixture(means, covariances, weights=[1.0, 2.0, 3.0])


class End(eqx.Module):
    """The law of noised data at one time, as a prior."""

    marginal: eqx.Module
    time: float

    def log_prob(self, x):
        return self.marginal.potential(jnp.asarray(self.time), x)


def without_mismatch(process, law):
    """The same process with what it makes of the data for a prior, so that of the exact score every
    density is that of the data."""
    prior = End(law.marginal(process), process.t1)
    kind = type(process)
    exact = type(kind.__name__, (kind,), {"prior": property(lambda _: prior)})
    fields = {f.name: getattr(process, f.name) for f in dataclasses.fields(process)}
    return exact(**fields)


def in_double(model):
    """The same network in double precision."""
    return jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_array(leaf) else leaf, model)


class LinearScore(eqx.Module):
    """The wrong score s = -A x, under which both laws stay Gaussian."""

    matrix: jax.Array

    @property
    def dim(self) -> int:
        return self.matrix.shape[0]

    def score(self, t, x):
        del t
        return -self.matrix @ x


def linear_laws(matrix, process, steps=4000):
    """Covariances of the SDE and ODE laws at t0, from their moment equations by Heun's method."""
    dim = len(matrix)
    eye, g2 = np.eye(dim), float(process.diffusion(jnp.array(1.0))) ** 2
    theta = -float(process.drift(jnp.array(1.0), jnp.ones(1))[0])
    laws = []
    for noise, share in ((g2, 1.0), (0.0, 0.5)):
        drift = theta * eye - share * g2 * np.asarray(matrix)

        def rate(cov, drift=drift, noise=noise):
            return drift @ cov + cov @ drift.T + noise * eye

        cov, h = process.prior.std**2 * eye, (process.t1 - process.t0) / steps
        for _ in range(steps):
            k = rate(cov)
            cov = cov + h / 2 * (k + rate(cov + h * k))
        laws.append(cov)
    return laws


def bures(a, b) -> float:
    """W2^2 between centred Gaussians: tr(A + B - 2 (A^1/2 B A^1/2)^1/2)."""
    root = sqrtm(a)
    return float(np.trace(a + b - 2 * np.real(sqrtm(root @ b @ root))))


class WithoutPotential:
    """A plain object with a score and nothing else."""

    def __init__(self, model):
        self._model = model

    def score(self, t, x):
        return self._model.score(t, x)
