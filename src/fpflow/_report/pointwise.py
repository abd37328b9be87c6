"""The gap point by point."""

import dataclasses

import numpy as np

from .._metrics import Estimate


@dataclasses.dataclass(frozen=True)
class PointwiseGap:
    r"""Both log densities at points, in nats, and what their difference says.

    **Attributes:**

    - `x`: the points, shape `(n, dim)`.
    - `log_p_ode`, `log_p_sde`: shape `(n,)`.
    - `error`: the standard error of `log_p_sde - log_p_ode`, with the errors of solver and time grid,
      shape `(n,)`.
    - `effective_share`: effective over all paths of `log_p_sde`, shape `(n,)`.
    - `reliable`: where `log_p_sde` may be believed, shape `(n,)`.
    - `mean`: of $\log p_\text{SDE} - \log p_\text{ODE}$ over the points; where they are draws of the
      data this is $KL(p_0\|p_\text{ODE}) - KL(p_0\|p_\text{SDE})$.
    - `spread`: the standard deviation of the difference over the points, less what its errors explain.
    - `kl_ode`, `kl_sde`: $KL(p_0\|\cdot)$ from the same points, where the data's density is known.
    """

    x: np.ndarray
    log_p_ode: np.ndarray
    log_p_sde: np.ndarray
    error: np.ndarray
    effective_share: np.ndarray
    reliable: np.ndarray
    mean: Estimate
    spread: float
    kl_ode: Estimate | None
    kl_sde: Estimate | None
