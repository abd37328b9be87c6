r"""The paper's bound of the gap by the residual, with its constants computed on a grid.

With $q = p_\text{SDE}$, $\hat p_t = e^u / Z_t$, $\psi = \log q - u$, the Fokker--Planck equation gives

$$D^2 := \int \tfrac12 g^2 E_q\|\nabla\psi\|^2 dt
= KL(\pi\|\hat p_T) - KL(q_0\|\hat p_0) + \int (E_q r - E_{\hat p} r)\,dt,$$

and Gronwall's lemma for the two flows $W_2 \le G D$ with $G^2 = \int \tfrac12 g^2 e^{2\Lambda} dt$,
$\Lambda(t) = \int_{t_0}^t L$ and $L$ the one-sided Lipschitz constant of the flow run backwards.
Cauchy--Schwarz, Poincare's inequality for $\hat p_t$ with constant $C_P$ and $M = \sup q/\hat p$ turn
the integral into $B D$ with $B^2 = \int 2 C_P M\,\mathrm{Var}_{\hat p}(r)/g^2\,dt$, so that
$D \le \tfrac12\bigl(B + \sqrt{B^2 + 4 KL(\pi\|\hat p_T)}\bigr)$.

A bound in the paper's form has one constant for a bounded domain $\Omega$ and any time, and
$\delta = \tilde R$, the mean of $r^2$ over $\Omega\times[t_0, T]$. With
$\mathrm{Var}_{\hat p}(r) \le \sup\hat p\,|\Omega|$ times the mean of $r^2$ over $\Omega$, and all
integrals from $t$ on, $W_2^2(t) \le C(t)\,\delta + 2 G^2(t)\,KL(\pi\|\hat p_T)$ with
$C(t) = G^2(t)\,(T - t_0)\,\sup_{\tau\ge t} 2 C_P M \sup\hat p\,|\Omega|/g^2$: the gap $W_2$ is of the
order $\sqrt\delta$, not $\delta$.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy

from .._dynamics import flow_velocity
from .._grid import density_history
from .._model import model_dtype
from .._process import AbstractProcess
from .._residual import log_fp_residual
from .._shown import shown_fields
from .._types import PotentialModel
from .._window import Window, product_grid

# Cells with less of either law say nothing about the ratio of the two.
SOLID = 1e-10


@dataclasses.dataclass(frozen=True)
class TheoremOne:
    r"""The constants of the paper's bound, and its value.

    **Attributes:**

    - `times`: the times at which they are computed, shape `(times,)`.
    - `lipschitz`: $L(t)$, per unit of time.
    - `poincare`: $C_P(t)$ of $\hat p_t$, in units of $x^2$.
    - `ratio`: $M(t) = \sup q/\hat p$.
    - `variance`: $\mathrm{Var}_{\hat p}(r)$.
    - `growth`: $G$.
    - `forcing`: $B$, of the order $\sqrt\delta$.
    - `prior_term`: $KL(\pi\|\hat p_T)$.
    - `distance`: $D$ computed from the densities themselves.
    - `distance_by_identity`: $D$ from the right side of the identity, as a check; zero where the grid's
      errors make its square negative.
    - `bound_from_densities`: $G D \ge W_2$.
    - `bound`: $\tfrac12 G\bigl(B + \sqrt{B^2 + 4 KL}\bigr) \ge W_2$, from the residual.
    - `delta`: $\delta$, the mean of $r^2$ over the box of the grid and $[t_0, T]$.
    - `constant`: $C(t)$, of the paper's form, shape `(times,)`.
    - `bound_by_delta`: $\bigl(C(t)\,\delta + 2 G^2(t)\,KL\bigr)^{1/2} \ge W_2(t)$, shape `(times,)`.
    """

    times: np.ndarray
    lipschitz: np.ndarray
    poincare: np.ndarray
    ratio: np.ndarray
    variance: np.ndarray
    growth: float
    forcing: float
    prior_term: float
    distance: float
    distance_by_identity: float
    bound_from_densities: float
    bound: float
    delta: float
    constant: np.ndarray
    bound_by_delta: np.ndarray

    __repr__ = shown_fields


def poincare_constant(u: np.ndarray, width: float) -> float:
    r"""$C_P$ of $e^u$ on a grid: one over the spectral gap of $-\Delta - \nabla u\cdot\nabla$, made
    symmetric by $e^{u/2}$."""
    index = np.arange(u.size).reshape(u.shape)
    rows, columns, diagonal = [], [], np.zeros(u.size)
    for axis in range(u.ndim):
        i = np.delete(index, -1, axis).ravel()
        j = np.delete(index, 0, axis).ravel()
        step = np.clip((u.ravel()[j] - u.ravel()[i]) / 2, -50, 50)
        np.add.at(diagonal, i, np.exp(step))
        np.add.at(diagonal, j, np.exp(-step))
        rows += [i, j]
        columns += [j, i]
    row, column = np.concatenate(rows), np.concatenate(columns)
    off = scipy.sparse.coo_matrix((-np.ones(len(row)), (row, column)), shape=(u.size, u.size))
    operator = (off + scipy.sparse.diags(diagonal)).tocsc() / width**2
    # Shift-invert just below zero, where the operator is positive.
    values = scipy.sparse.linalg.eigsh(operator, k=2, sigma=-1e-3, return_eigenvectors=False)
    return float(1 / np.sort(values)[1])


def theorem_one(
    model: PotentialModel,
    process: AbstractProcess,
    window: Window | None = None,
    *,
    refine: int = 1,
    num_steps: int = 120,
    num_times: int = 80,
    margin: float = 1.5,
) -> TheoremOne:
    r"""The bound on the gap $W_2(p_\text{ODE}, p_\text{SDE})$ by the residual, computed numerically.

    **Arguments:**

    - `model`: has `potential(t, x)`.
    - `process`: gives $f$, $g$ and the prior.
    - `window`, `refine`, `num_steps`, `margin`: as for `grid_density_sde`.
    - `num_times`: at how many of its times the constants are computed.

    **Returns:** a `TheoremOne`. Suprema are over the grid and integrals use the trapezoidal rule, so the
    numbers are those of a discretised problem.

    **Raises:** `ValueError` for a model without a potential or invalid settings.

    ??? cite "Reference"
        Deveney et al., arXiv 2311.15996, Theorem 1 and its proof.
    """
    if not isinstance(model, PotentialModel):
        raise ValueError(
            f"`model` must have `potential(t, x)`, got {type(model).__name__}: the residual is defined "
            "for a potential."
        )
    window = Window() if window is None else window
    times, densities, axes = some_of_history(
        model, process, window, num_times, refine=refine, num_steps=num_steps, margin=margin
    )
    half_g2 = _half_g2(process, times)
    widths, dtype = axes[:, 1] - axes[:, 0], model_dtype(model)
    rows = [
        _at_time(model, process, dtype, t, q, product_grid(axis, window.dim), axis[1] - axis[0])
        for t, q, axis in zip(times, densities, axes, strict=True)
    ]
    u, lipschitz, residual, poincare = (np.array(column) for column in zip(*rows, strict=True))

    p = np.exp(u - u.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    q = densities.reshape(len(times), -1)
    solid = (q > SOLID) & (p > SOLID)
    ratio = np.where(solid, q / np.maximum(p, 1e-300), 0).max(axis=1)
    mean_p = (p * residual).sum(1)
    variance = (p * (residual - mean_p[:, None]) ** 2).sum(1)

    log_ratio = np.log(np.maximum(q, 1e-300)) - np.log(np.maximum(p, 1e-300))
    slope = _mean_square_slope(log_ratio, q, solid, widths, window.dim)

    def integral(values):
        return float(np.trapezoid(values, times))

    def kl(a, b):
        known = (a > SOLID) & (b > 0)
        return float((a[known] * np.log(a[known] / b[known])).sum())

    grown = _grown(times, half_g2, lipschitz)
    growth = grown[0] ** 0.5
    forcing = integral(poincare * ratio * variance / half_g2) ** 0.5
    prior_term = max(kl(q[-1], p[-1]), 0.0)
    distance = integral(half_g2 * slope) ** 0.5
    pulled = integral((q * residual).sum(1) - mean_p)
    by_identity = max(prior_term - kl(q[0], p[0]) + pulled, 0.0) ** 0.5
    reach = (forcing + (forcing**2 + 4 * prior_term) ** 0.5) / 2
    delta = integral((residual**2).mean(1)) / (times[-1] - times[0])
    worst = poincare * ratio * p.shape[1] * p.max(1) / half_g2
    worst = np.maximum.accumulate(worst[::-1])[::-1]
    constant = grown * (times[-1] - times[0]) * worst
    return TheoremOne(
        times,
        lipschitz,
        poincare,
        ratio,
        variance,
        growth,
        forcing,
        prior_term,
        distance,
        by_identity,
        growth * distance,
        growth * reach,
        delta,
        constant,
        np.sqrt(constant * delta + 2 * grown * prior_term),
    )


def some_of_history(model, process, window, num_times, **how):
    """`density_history` at so many of its times, first and last among them."""
    times, densities, axes = density_history(model, process, window, **how)
    chosen = np.unique(np.linspace(0, len(times) - 1, num_times).round().astype(int))
    return times[chosen], densities[chosen], axes[chosen]


def rises(times, lipschitz):
    r"""$\Lambda(t) = \int_{t_0}^t L$ by the trapezoidal rule."""
    steps = np.diff(times) * (lipschitz[1:] + lipschitz[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


def _grown(times, half_g2, lipschitz):
    r"""$G^2(t) = \int_t^T \tfrac12 g^2 e^{2(\Lambda - \Lambda(t))}$ at each of the times."""
    rise = rises(times, lipschitz)
    speed = half_g2 * np.exp(2 * (rise - rise[-1]))
    steps = np.diff(times) * (speed[1:] + speed[:-1]) / 2
    to_come = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
    return to_come * np.exp(2 * (rise[-1] - rise))


def _half_g2(process, times):
    half_g2 = np.array([float(process.diffusion(jnp.asarray(t))) ** 2 / 2 for t in times])
    if not half_g2.min() > 1e-12 * half_g2.max():  # the first time is zero but for round-off
        raise ValueError(
            "`process` must have a diffusion g above zero at all times, got g = 0 at t = "
            f"{times[half_g2.argmin()]:.3g}: the bound from the residual is infinite."
        )
    return half_g2


def _at_time(model, process, dtype, t, q, points, width):
    """Potential, one-sided Lipschitz constant, residual and Poincare constant at one time."""
    time = jnp.asarray(t, dtype)
    x = jnp.asarray(points, dtype)
    u, stretched, residual = (np.asarray(a, float) for a in _fields(model, process, time, x))
    inside = q.ravel() > SOLID
    coarse = u.reshape(q.shape)[(slice(None, None, 2),) * q.ndim]
    return u, stretched[inside].max(), residual, poincare_constant(coarse, 2 * width)


def stretch(jacobian):
    """The largest eigenvalue of the symmetric part, in dimension one or two."""
    if jacobian.shape[0] == 1:
        return jacobian[0, 0]
    mean, half = jnp.trace(jacobian) / 2, (jacobian[0, 0] - jacobian[1, 1]) / 2
    return mean + jnp.hypot(half, (jacobian[0, 1] + jacobian[1, 0]) / 2)


@eqx.filter_jit
def _fields(model, process, t, x):
    def at_point(x):
        jacobian = jax.jacfwd(lambda x: -flow_velocity(model, process, t, x))(x)
        return model.potential(t, x), stretch(jacobian), log_fp_residual(model, process, t, x)

    return jax.lax.map(at_point, x, batch_size=min(4096, len(x)))


def _mean_square_slope(log_ratio, q, solid, widths, dim):
    r"""$E_q\|\nabla\psi\|^2$ at each time by differences across the faces between solid cells."""
    shape = (len(q), *[round(q.shape[1] ** (1 / dim))] * dim)
    log_ratio, q, solid = (a.reshape(shape) for a in (log_ratio, q, solid))
    total = np.zeros(len(q))
    for axis in range(1, dim + 1):
        both = np.delete(solid, -1, axis) & np.delete(solid, 0, axis)
        weight = (np.delete(q, -1, axis) + np.delete(q, 0, axis)) / 2
        square = np.where(both, weight * np.diff(log_ratio, axis=axis) ** 2, 0)
        total += square.reshape(len(q), -1).sum(1) / widths**2
    return total
