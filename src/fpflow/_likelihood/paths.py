r"""Noising paths from a point, and the exponent whose mean exponential is $p_\text{SDE}$ there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._calculus import divergence
from .._devices import over_devices
from .._process import AbstractProcess, graded_times, levels
from .._residual import log_fp_residual
from .._types import PotentialModel

# Times at which the paths of one point are looked at side by side.
_TIMES = 16


class NoisingGrid(eqx.Module):
    """Times from $t_0$ to $t_1$ and the exact transition of each step, $y' = a y + c z$."""

    times: Array
    scale: Array
    noise: Array


def noising_grid(process: AbstractProcess, num_steps: int, dtype) -> NoisingGrid:
    times = graded_times(process, num_steps)[::-1].copy()
    # In double precision: the variance of a short step is a difference of close numbers.
    a, std = levels(process, times)
    scale = a[1:] / a[:-1]
    noise = np.sqrt(np.maximum(std[1:] ** 2 - (scale * std[:-1]) ** 2, 0))
    return NoisingGrid(*(jnp.asarray(part, dtype) for part in (times, scale, noise)))


class SmoothPaths(eqx.Module):
    r"""Paths $a x \pm c z$ with one $z$, which have the law of the noising at each time. Their times
    hold those of a grid, four to a step; `whole` is the rule of all of them, and `missed` what the rules
    of the grid miss of it, extrapolated and by all times alone."""

    times: Array
    scale: Array
    width: Array
    whole: Array
    missed: Array


def smooth_paths(process: AbstractProcess, num_steps: int, dtype) -> SmoothPaths:
    times = graded_times(process, 4 * num_steps)[::-1].copy()
    a, std = levels(process, times)
    scale = a / a[0]
    width = np.sqrt(np.maximum(std**2 - (scale * std[0]) ** 2, 0))

    def trapezoids(kept):
        weight, half = np.zeros(len(times)), np.diff(times[kept]) / 2
        weight[kept[:-1]] += half
        weight[kept[1:]] += half
        return weight

    def extrapolated(kept):
        return (4 * trapezoids(kept) - trapezoids(np.union1d(kept[::2], kept[-1:]))) / 3

    every = np.arange(len(times))
    whole = extrapolated(every)
    missed = whole - np.stack([extrapolated(every[::4]), trapezoids(every[::4])])
    return SmoothPaths(*(jnp.asarray(part, dtype) for part in (times, scale, width, whole, missed)))


@eqx.filter_jit
def shared_errors(model, process, paths: SmoothPaths, mesh, x):
    """What sums over a grid miss at each of a block of points, shape `(n, 2)`."""
    return over_devices(jax.vmap(lambda x: _shared_error(model, process, paths, x)), mesh)(x)


def _shared_error(model, process, paths: SmoothPaths, x):
    r"""What sums over a grid miss on every path alike, shape `(2,)` as of `path_exponents`.

    The mean of $r$ is large and changes fast where $u$ lacks a function of time alone, and faster than
    a grid can follow where the network is told of the time by waves. That function is in $du/dt$ along
    the noiseless path $a x$ too, whose integral is known, so that no rule is asked for it, where that
    leaves the finer rule less to find. What it finds is in the first and not in the second, so that
    their difference tells of it.
    """
    z = jnp.ones_like(x)  # one deviation in every direction

    def rates(row):
        t, scale, width = row
        ends = jnp.stack([scale * x + width * z, scale * x - width * z])
        rate = jax.vmap(lambda y: log_fp_residual(model, process, t, y))(ends).mean()
        tangent = (jnp.ones_like(t), process.drift(t, scale * x))
        return rate, jax.jvp(model.potential, (t, scale * x), tangent)[1]

    # One time after another: all at once do not fit a cache, and cost ten times as much.
    rows = (paths.times, paths.scale, paths.width)
    rate, gained = jax.lax.map(rates, rows, batch_size=_TIMES)
    known = model.potential(paths.times[-1], paths.scale[-1] * x) - model.potential(
        paths.times[0], x
    )
    seen, without = paths.missed[0] @ rate, paths.missed[0] @ (rate - gained)
    better = jnp.abs(without) < jnp.abs(seen)
    found = jnp.where(better, without, seen)
    shift = jnp.where(better, known - paths.whole @ gained, 0)
    return paths.missed @ rate + shift - jnp.stack([jnp.zeros_like(found), found])


def _integrands(model, process, t, y):
    r"""What $A$ integrates at one point: its rate in time; for a bare score also $s$, $\nabla s$ and
    $\partial_t s$."""
    if isinstance(model, PotentialModel):
        return (log_fp_residual(model, process, t, y),)
    score, push = jax.linearize(model.score, t, y)
    basis = jnp.eye(y.size, dtype=y.dtype)
    jacobian = jax.vmap(lambda e: push(jnp.zeros_like(t), e))(basis).T
    motion = push(jnp.ones_like(t), jnp.zeros_like(y))
    drift, half_g2 = process.drift(t, y), process.diffusion(t) ** 2 / 2
    spread_drift = divergence(lambda y: process.drift(t, y), y)
    rate = spread_drift - half_g2 * jnp.trace(jacobian) + drift @ score - half_g2 * score @ score
    return rate, score, jacobian, motion


def _gained(dt, dy, before, now):
    r"""The part of $A$ from one step of one path: the trapezoidal rule in time and, along the chord
    $\Delta$, the rule with end derivatives for the field $s$ at the step's middle time,

    $$\int s \circ dY \approx \tfrac12 (s_0 + s_1)\cdot\Delta
    - \tfrac1{12}\Delta\cdot(J_1 - J_0)\Delta - \tfrac h6 (\dot s_1 - \dot s_0)\cdot\Delta.$$

    What it misses has mean zero to second order in $h$.
    """
    gain = dt / 2 * (before[0] + now[0])
    if len(now) == 1:
        return gain
    ends = (before[1] + now[1]) @ dy / 2
    bend = dy @ (now[2] - before[2]) @ dy / 12 + dt / 6 * (now[3] - before[3]) @ dy
    return gain - ends + bend


def path_exponents(model, process, grid: NoisingGrid, x, key, antithetic: bool):
    r"""$A$ along forward noising paths from `x`, shape `(signs, 2)`: extrapolated from all times and
    every second one, and from all times alone.

    For a potential $A = u(t_0, x) + \int r\,dt + \log\pi(Y_T) - u(T, Y_T)$. For a bare score
    $A = \log\pi(Y_T) + \int (\nabla\cdot v + s\cdot f - \tfrac12 g^2\|s\|^2)\,dt - \int s\circ dY$,
    with $v = f - \tfrac12 g^2 s$: the Stratonovich integral needs no noise of its own, and rules of high
    order take it where Ito's sum would have strong order one half.
    """
    signs = jnp.asarray([1, -1] if antithetic else [1], x.dtype)
    integrands = jax.vmap(lambda t, y: _integrands(model, process, t, y), (None, 0))
    gained = jax.vmap(_gained, (None, 0, 0, 0))
    start = jnp.broadcast_to(x, (len(signs), x.size))
    first = integrands(grid.times[0], start)

    def step(carry, row):
        y, before, anchor, total, halved = carry
        index, t_old, t, scale, noise = row
        z = signs[:, None] * jr.normal(jr.fold_in(key, index), (x.size,), x.dtype)
        new = scale * y + noise * z
        now = integrands(t, new)
        total = total + gained(t - t_old, new - y, before, now)
        t_anchor, y_anchor, at_anchor = anchor
        longer = halved + gained(t - t_anchor, new - y_anchor, at_anchor, now)
        even = (index % 2 == 1) | (index == len(grid.noise) - 1)
        anchor, halved = jax.tree.map(
            lambda a, b: jnp.where(even, a, b), ((t, new, now), longer), (anchor, halved)
        )
        return (new, now, anchor, total, halved), None

    zero = jnp.zeros(len(signs), x.dtype)
    rows = (
        jnp.arange(len(grid.noise)),
        grid.times[:-1],
        grid.times[1:],
        grid.scale,
        grid.noise,
    )
    carry = (start, first, (grid.times[0], start, first), zero, zero)
    (end, _, _, total, halved), _ = jax.lax.scan(step, carry, rows)
    edge = jax.vmap(process.prior.log_prob)(end)
    if isinstance(model, PotentialModel):
        t0, t1 = grid.times[0], grid.times[-1]
        edge = edge + model.potential(t0, x) - jax.vmap(lambda y: model.potential(t1, y))(end)
    # Both rules are of second order in mean.
    return edge[:, None] + jnp.stack([total + (total - halved) / 3, total], axis=1)
