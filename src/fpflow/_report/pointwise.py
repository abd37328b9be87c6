"""The gap point by point, and what it comes to in nats."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import mean_and_error
from .._likelihood import log_prob_ode, log_prob_sde
from .._metrics import Estimate
from .._model import Transformed, log_dets, model_dtype
from .._process import AbstractProcess
from .._shown import shown_fields
from .._types import PotentialModel, PRNGKey, ScoreModel


@dataclasses.dataclass(frozen=True)
class PointwiseGap:
    r"""Both log densities at points, in nats, and what their difference shows.

    **Attributes:**

    - `x`: the points, shape `(n, dim)`.
    - `log_p_ode`, `log_p_sde`: shape `(n,)`.
    - `potential`: $u(t_0, x)$, shape `(n,)`, if the model has a potential; else `None`.
    - `error`: the standard error of `log_p_sde - log_p_ode`, including the errors of the solver and the
      time grid, shape `(n,)`.
    - `noise`: the part of `error` that comes from the paths, shape `(n,)`.
    - `solver_error`: the part of `error` that comes from the ODE solver, shape `(n,)`.
    - `reliable`: where `log_p_sde` can be trusted, shape `(n,)`.
    - `mean`: the mean of $\log p_\text{SDE} - \log p_\text{ODE}$ over the points.
    - `spread`: the standard deviation of the difference over the points, less what its errors explain.
    """

    x: np.ndarray
    log_p_ode: np.ndarray
    log_p_sde: np.ndarray
    potential: np.ndarray | None
    error: np.ndarray
    noise: np.ndarray
    solver_error: np.ndarray
    reliable: np.ndarray
    mean: Estimate
    spread: float

    __repr__ = shown_fields


@dataclasses.dataclass(frozen=True)
class NatsGap:
    r"""How far apart the distributions are in nats, without cells and in any dimension.

    **Attributes:**

    - `kl_sde_ode`: $KL(p_\text{SDE}\|p_\text{ODE}) = E_\text{SDE}\log(p_\text{SDE}/p_\text{ODE})$, from
      samples of the SDE.
    - `kl_ode_sde`: the reverse divergence, from samples of the ODE.
    - `nll_ode`, `nll_sde`: the negative log-likelihood of the points, in nats per point; `None` without
      data.
    - `kl_data_ode`, `kl_data_sde`: $KL(p_0\|\cdot)$, if the density of the data is known.
    - `nearer`: $KL(p_0\|p_\text{ODE}) - KL(p_0\|p_\text{SDE})$, the number of nats by which the SDE is
      closer to the data, estimated from the points; `None` without data.
    - `mixing_bias`: the error of $\log Z$ if samples of the SDE are weighted by $p_\text{ODE}$,
      $\log E_\rho(p_\text{SDE}/p_\text{ODE})$. The target $\rho$ is the data, or without data the
      distribution of the SDE itself. A mean of weights misses the largest, so this is a lower bound.
    - `potential_ode`, `potential_sde`: mean and spread of $\log p_\text{ODE} - u(t_0, \cdot)$ and
      $\log p_\text{SDE} - u(t_0, \cdot)$, each over samples of its own distribution. If that
      distribution is $e^u / Z$, the mean is $-\log Z$ and the spread is zero.
    - `kl_sde_potential`, `kl_ode_potential`: $KL(\cdot\|e^u/Z)$, with $Z$ from the same samples. These
      are lower bounds, because mass of $e^u$ where the sampler does not go is not seen.
    - `dim`: the dimension, used to convert nats to bits.
    """

    kl_sde_ode: Estimate
    kl_ode_sde: Estimate
    nll_ode: Estimate | None
    nll_sde: Estimate | None
    kl_data_ode: Estimate | None
    kl_data_sde: Estimate | None
    nearer: Estimate | None
    mixing_bias: Estimate
    potential_ode: tuple[Estimate, float] | None
    potential_sde: tuple[Estimate, float] | None
    kl_ode_potential: Estimate | None
    kl_sde_potential: Estimate | None
    dim: int

    __repr__ = shown_fields

    def bits(self, nll: Estimate) -> Estimate:
        """Converts a log-likelihood to bits per dimension."""
        unit = self.dim * np.log(2)
        return Estimate(float(nll.value / unit), float(nll.error / unit), nll.kind)


def pointwise_gaps(
    model: ScoreModel,
    process: AbstractProcess,
    sets: dict[str, np.ndarray],
    num_paths: int,
    progress: bool | None,
    key: PRNGKey,
) -> dict[str, PointwiseGap]:
    """Both log densities at several sets of points, all in one call of each."""
    x = np.concatenate(list(sets.values()))
    ode = log_prob_ode(model, process, x, progress=progress)
    asked = {"target_error": _TARGET, "num_paths": num_paths, "progress": progress, "key": key}
    sde = log_prob_sde(model, process, x, **asked)
    log_ode, log_sde = np.asarray(ode.value, float), np.asarray(sde.value, float)
    parts = (sde.standard_error, sde.step_error, ode.standard_error, ode.solver_error)
    error = np.sqrt(sum(np.asarray(part, float) ** 2 for part in parts))
    potential = None
    if isinstance(model, PotentialModel):
        t0 = jnp.asarray(process.t0, model_dtype(model))
        rows = jnp.asarray(x, model_dtype(model))
        of_points = jax.jit(jax.vmap(lambda x: model.potential(t0, x)))
        potential = np.asarray(of_points(rows), float)
    noise = np.asarray(sde.standard_error, float)
    solver_error, reliable = np.asarray(ode.solver_error, float), np.asarray(sde.reliable)
    found, start = {}, 0
    for name, points in sets.items():
        own = slice(start, start := start + len(points))
        apart = log_sde[own] - log_ode[own]
        spread = float(np.sqrt(max(apart.var(ddof=1) - (error[own] ** 2).mean(), 0)))
        found[name] = PointwiseGap(
            x[own],
            log_ode[own],
            log_sde[own],
            None if potential is None else potential[own],
            error[own],
            noise[own],
            solver_error[own],
            reliable[own],
            _estimate(apart),
            spread,
        )
    return found


def in_units(gap: PointwiseGap, model: Transformed) -> PointwiseGap:
    """What was found in the network's variables, in the units of the data."""
    x = jax.vmap(model.transform.inverse)(jnp.asarray(gap.x))
    gained = np.asarray(log_dets(model, x), float)
    return dataclasses.replace(
        gap,
        x=np.asarray(x),
        log_p_ode=gap.log_p_ode + gained,
        log_p_sde=gap.log_p_sde + gained,
        potential=None if gap.potential is None else gap.potential + gained,
    )


# Less than the spread over points where there is a gap to be seen.
_TARGET = 0.03


def in_nats(gaps: dict[str, PointwiseGap], exact: np.ndarray | None) -> NatsGap:
    """What the points of each law say of the distances between the laws.

    **Arguments:**

    - `gaps`: at samples of the `SDE`, of the `ODE`, and first, where there are some, at the `points`.
    - `exact`: the log density of the data at the points, where it is known.
    """
    sde, ode = gaps["SDE"], gaps["ODE"]
    nll_ode, nll_sde, data_ode, data_sde, nearer = [None] * 5
    if "points" in gaps:
        points = gaps["points"]
        nll_ode, nll_sde = _estimate(-points.log_p_ode), _estimate(-points.log_p_sde)
        nearer = points.mean
        if exact is not None:
            data_ode, data_sde = (
                _skewed(exact - points.log_p_ode),
                _skewed(exact - points.log_p_sde),
            )
    potential_ode = potential_sde = kl_ode_potential = kl_sde_potential = None
    if sde.potential is not None and ode.potential is not None:
        from_ode, from_sde = ode.log_p_ode - ode.potential, sde.log_p_sde - sde.potential
        potential_ode = (_estimate(from_ode), float(from_ode.std(ddof=1)))
        potential_sde = (_estimate(from_sde), float(from_sde.std(ddof=1)))
        kl_ode_potential, kl_sde_potential = map(_kl_up_to_constant, (from_ode, from_sde))
    return NatsGap(
        kl_sde_ode=_skewed(sde.log_p_sde - sde.log_p_ode),
        kl_ode_sde=_skewed(ode.log_p_ode - ode.log_p_sde),
        nll_ode=nll_ode,
        nll_sde=nll_sde,
        kl_data_ode=data_ode,
        kl_data_sde=data_sde,
        nearer=nearer,
        mixing_bias=_mixing_bias(gaps.get("points", sde)),
        potential_ode=potential_ode,
        potential_sde=potential_sde,
        kl_ode_potential=kl_ode_potential,
        kl_sde_potential=kl_sde_potential,
        dim=sde.x.shape[1],
    )


def _estimate(values: np.ndarray) -> Estimate:
    return Estimate(*mean_and_error(values))


def _skewed(values: np.ndarray) -> Estimate:
    """A mean of terms with a long upper tail: the error is wider by one and a half times the skewness of
    the mean."""
    found = _estimate(values)
    if found.error == 0:
        return found
    skewness = ((values - found.value) ** 3).mean() / values.std() ** 3 / len(values) ** 0.5
    return Estimate(found.value, found.error * (1 + 1.5 * max(float(skewness), 0.0)))


def _mixing_bias(gap: PointwiseGap) -> Estimate:
    """The logarithm of the mean of p_SDE / p_ODE at the points, less what noise adds to it."""
    apart = gap.log_p_sde - gap.log_p_ode - gap.noise**2 / 2
    largest = apart.max()
    weight = np.exp(apart - largest)
    found = _skewed(weight)
    value, error = float(largest + np.log(found.value)), float(found.error / found.value)
    return Estimate(value, error, "lower bound")


def _kl_up_to_constant(apart: np.ndarray) -> Estimate:
    r"""$KL(p\|e^u/Z)$ from $\log p - u$ at samples of $p$: its mean, and $\log Z = \log E_p e^{u}/p$."""
    weight = np.exp(apart.min() - apart)
    share = weight / weight.mean()
    log_z = float(np.log(weight.mean()) - apart.min())
    error = _skewed(apart + share).error  # the first order of both together
    return Estimate(float(apart.mean()) + log_z, error, "lower bound")
