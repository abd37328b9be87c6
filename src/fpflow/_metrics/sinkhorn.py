"""A bracket of the Wasserstein distance by entropic transport; the only room that knows ott-jax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from .._window import Window
from .result import W2Result, centre_costs

_FILL = 1e-9


@dataclasses.dataclass(frozen=True)
class Sinkhorn:
    r"""Settings of the entropic method of `w2_grid`.

    **Arguments:**

    - `epsilon`: the regularisation, in units of $x^2$. As it falls, the bracket narrows and the number
      of iterations grows.
    - `threshold`: the violation of the marginals at which the iterations stop.
    - `max_iterations`: maximum number of iterations.

    **Raises:** `ValueError` for values that are not positive.
    """

    epsilon: float = 2e-3
    threshold: float = 1e-6
    max_iterations: int = 5000

    def __post_init__(self):
        for name in ("epsilon", "threshold", "max_iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")

    def solve(self, p: np.ndarray, q: np.ndarray, window: Window) -> W2Result:
        """The bracket, from a dual made feasible by a conjugate and a plan rounded to the marginals."""
        x = window.centres()
        # ott's separable sums lose their way on empty cells; the bracket is taken for p and q.
        filled = [(1 - _FILL) * mass + _FILL / mass.size for mass in (p, q)]
        with jax.enable_x64(True):
            a, b = (jnp.asarray(mass.ravel()) for mass in filled)
            f = _potential(a, b, jnp.asarray(x), self.epsilon, self.threshold, self.max_iterations)
        f = np.asarray(f).reshape(window.shape)
        if not np.isfinite(f[p > 0]).all():
            raise FloatingPointError(
                f"Sinkhorn failed at `epsilon` = {self.epsilon}; choose another value, or use the "
                "exact method."
            )
        costs = centre_costs(window)
        full = (costs[:, None, :, None] + costs[None, :, None, :]).reshape(p.size, p.size)
        u = np.where(p > 0, f, -np.inf).ravel()
        v = (full - u[:, None]).min(axis=0)
        u = (full - np.where(q.ravel() > 0, v, -np.inf)).min(axis=1)
        lower = float((u * p.ravel()).sum() + (v * q.ravel()).sum())

        # The plan of f with its columns made exact: q_j times a softmax over i.
        log_plan = (np.where(p > 0, f, -np.inf).ravel()[:, None] - full) / self.epsilon
        plan = np.exp(log_plan - log_plan.max(axis=0))
        plan = _rounded(plan * (q.ravel() / plan.sum(axis=0)), p.ravel(), q.ravel())
        upper = float((plan * full).sum())
        return W2Result(upper, max(min(lower, upper), 0.0), upper)


def _potential(p, q, x, epsilon, threshold, max_iterations):
    # ott takes as long to load as jax itself, and only this method needs it.
    from ott.geometry import grid
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    geometry = grid.Grid(x=[x, x], epsilon=epsilon)
    problem = linear_problem.LinearProblem(geometry, a=p, b=q)
    solver = ott_sinkhorn.Sinkhorn(threshold=threshold, max_iterations=max_iterations)
    return jax.jit(solver)(problem).f


def _rounded(plan: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The plan scaled down to the marginals, the rest spread as a product (Altschuler et al.)."""

    def ratio(target, sums):
        return np.minimum(np.divide(target, sums, out=np.zeros_like(sums), where=sums > 0), 1)

    plan *= ratio(p, plan.sum(1))[:, None]
    plan *= ratio(q, plan.sum(0))
    missing_p, missing_q = p - plan.sum(1), q - plan.sum(0)
    total = missing_p.sum()
    return plan + np.outer(missing_p, missing_q) / total if total > 0 else plan
