r"""How errors of the score at different times are weighed, as functions $\lambda$ of `(process, t)`.

A network may predict something else than the score: its error is then another multiple of that of the
score, and weighing it by one is a weighting here.
"""

from collections.abc import Callable

import jax.numpy as jnp

from .._process import AbstractProcess, variance
from .._types import Scalar, Time

Weighting = Callable[[AbstractProcess, Time], Scalar]


def likelihood_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = g^2$: the weight for which the loss bounds the Kullback--Leibler divergence. It is
    also that of variational diffusion models: $-\mathrm{SNR}'(t)$ times the squared error of the
    data."""
    return process.diffusion(t) ** 2


def no_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = 1$."""
    del process
    return jnp.ones_like(t)


def noise_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = \sigma^2(t) / \sigma^2(t_1)$, the squared error of a predicted noise up to a constant.
    Small times, where a network cannot follow the edges of the data and the residual is largest, then do
    not dominate all others."""
    end = jnp.full_like(t, process.t1)
    return variance(process, t) / variance(process, end)


def data_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = \sigma^4/\alpha^2$: the squared error of predicted data."""
    return variance(process, t) ** 2 / process.alpha(t) ** 2


def v_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = \tfrac{\sigma^2}{\alpha^2}(\alpha^2 + \sigma^2)^2$: the squared error of a predicted
    $v = \alpha z - \sigma x_0$."""
    alpha2, sigma2 = process.alpha(t) ** 2, variance(process, t)
    return sigma2 / alpha2 * (alpha2 + sigma2) ** 2


class SNRWeighting:
    r"""$\lambda = \min(\mathrm{SNR}, \gamma)\,\sigma^4/\alpha^2$ with
    $\mathrm{SNR} = \alpha^2/\sigma^2$: the squared error of predicted data, weighted by the
    signal-to-noise ratio up to a limit.

    **Arguments:**

    - `gamma`: the limit.

    ??? cite "Reference"
        Hang et al., *Efficient diffusion training via min-SNR weighting strategy*, ICCV 2023, arXiv
        2303.09556.
    """

    def __init__(self, gamma: float = 5.0):
        if not gamma > 0:
            raise ValueError(f"`gamma` must be positive, got {gamma}.")
        self.gamma = float(gamma)

    def __call__(self, process: AbstractProcess, t: Time) -> Scalar:
        snr = process.alpha(t) ** 2 / variance(process, t)
        return jnp.minimum(snr, self.gamma) * data_weighting(process, t)


class EDMWeighting:
    r"""$\lambda = \frac{r^2 + c^2}{r^2 c^2}\,\frac{\sigma^4}{\alpha^2}$ with $r = \sigma/\alpha$: the
    squared error of predicted data, weighted so that every noise level initially counts the same.

    **Arguments:**

    - `data_std`: $c$, the standard deviation of the data.

    ??? cite "Reference"
        Karras, Aittala, Aila and Laine, NeurIPS 2022, arXiv 2206.00364.
    """

    def __init__(self, data_std: float = 0.5):
        if not data_std > 0:
            raise ValueError(f"`data_std` must be positive, got {data_std}.")
        self.data_std = float(data_std)

    def __call__(self, process: AbstractProcess, t: Time) -> Scalar:
        ratio2, c2 = variance(process, t) / process.alpha(t) ** 2, self.data_std**2
        return (ratio2 + c2) / (ratio2 * c2) * data_weighting(process, t)
