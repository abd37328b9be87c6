r"""Importance weights of samples, and the evidence, by the density of the sampler that drew them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ._likelihood import filtered, log_prob_ode, log_prob_sde, noising_steps
from ._metrics import Estimate
from ._model import Transformed, check_counts, check_key, check_score, model_dim
from ._process import AbstractProcess
from ._sample import ODE, SDE, AbstractChain, AbstractSampler, GaussianChain, chain_paths, sample
from ._types import PotentialModel, PRNGKey, ScoreModel
from ._warning import warn

_BLOCK = 4096
# So many weights must be effective, a third of it in their first quarter.
_EFFECTIVE = 6
# Means of weights with a heavier tail do not converge in practice (Vehtari et al.).
_HEAVY = 0.7


class ImportanceSample(eqx.Module):
    r"""Samples with importance weights $w = \rho(x) / p(x)$ towards an unnormalised target $\rho$.

    **Attributes:**

    - `x`: draws from the sampler, shape `(n, dim)`.
    - `log_weights`: $\log w$ in nats, shape `(n,)`.
    - `log_z`: the logarithm of the mean weight: an `Estimate` of $\log\int\rho\,dx$ with its standard
      error, which for the ODE includes the size of its solver's.
    - `effective_sample_size`: $(\sum w)^2 / \sum w^2$.
    - `pareto_k`: the tail index of the weights; above 0.7 neither mean nor error should be trusted.
    - `biased`: whether the weights use the density of another distribution than the one that was
      sampled.
    """

    x: Float[Array, "n dim"]
    log_weights: Float[Array, " n"]
    log_z: Estimate
    effective_sample_size: float
    pareto_k: float
    biased: bool

    def resampled(self, num_samples: int, *, key: PRNGKey) -> Float[Array, "num_samples dim"]:
        """Points drawn in proportion to their weights, approximately draws from the target.

        **Raises:** `ValueError` for an invalid number.
        """
        (num_samples,) = check_counts(num_samples=num_samples)
        return self.x[jr.categorical(key, self.log_weights, shape=(num_samples,))]

    def __repr__(self) -> str:
        word = ", biased: weighted by another distribution" if self.biased else ""
        return (
            f"ImportanceSample({len(self.x)} points in dimension {self.x.shape[1]}, log Z = "
            f"{self.log_z}, effective {self.effective_sample_size:.0f}, Pareto k "
            f"{self.pareto_k:.2f}{word})"
        )


def importance_sample(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    log_target: Callable[[Array], Array],
    num_samples: int,
    *,
    sampler: AbstractSampler | None = None,
    density: AbstractSampler | None = None,
    num_paths: int = 16,
    dim: int | None = None,
    key: PRNGKey,
) -> ImportanceSample:
    r"""Draws samples and weights them towards a target by the density of the sampler that drew them.

    $$\log Z = \log\int \rho\,dx = \log E_{x \sim p}\,\frac{\rho(x)}{p(x)}.$$

    For a chain, each sample's own path is kept among the noising paths (`TwistedFilter`), so that
    $E[1/\hat p] = 1/p$ and the expected weight is exactly $Z$, for any number of paths and steps. For
    `ODE()` the density is that of the flow. For `SDE()` it is that of the exact equation, and what its
    standard error adds to the mean of $1/p$ is subtracted.

    **Arguments:**

    - `model`: has `score(t, x)` for one point, or is `Transformed`.
    - `process`: gives the noising and the prior.
    - `log_target`: $\log\rho(x)$ of one point, written with `jax.numpy`; $\rho$ need not integrate to
      one.
    - `num_samples`: number of points.
    - `sampler`: an `AbstractChain`, `ODE()` or `SDE()`; a `GaussianChain` of 100 steps by default.
    - `density`: `ODE()` or `SDE()`, whose density is used for the weights instead of the sampler's own.
      This is biased, and the result says so.
    - `num_paths`: number of paths for each sample of a chain, including its own.
    - `dim`: the dimension, if neither `model.dim` nor the score determines it.
    - `key`: a `jax.random.key`.

    **Returns:** an `ImportanceSample`.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if a weight is not a number.
    Warns if the weights are too uneven for the numbers to be trusted. Samples cannot show mass where the
    sampler hardly goes: a few may look even and give a $\log Z$ that is too low. Repeat with more
    samples.

    **Example:**

    ```python
    found = fpflow.importance_sample(
        model, process, lambda x: -x @ x / 2, 1000, sampler=fpflow.ODE(), key=jax.random.key(0)
    )
    found.log_z
    ```

    ??? cite "Reference"
        Andrieu, Doucet and Holenstein, *Particle Markov chain Monte Carlo methods*, JRSS B 72 (2010);
        Vehtari et al., *Pareto smoothed importance sampling*, JMLR 25 (2024), arXiv 1507.02646.
    """
    if isinstance(model, Transformed):
        inner = _in_variables_of(model, log_target)
        asked = {"sampler": sampler, "density": density, "num_paths": num_paths, "dim": dim}
        found = importance_sample(model.model, process, inner, num_samples, **asked, key=key)
        return eqx.tree_at(lambda f: f.x, found, jax.vmap(model.transform.inverse)(found.x))
    sampler = GaussianChain(0.1) if sampler is None else sampler
    num_samples, num_paths = check_counts(num_samples=num_samples, num_paths=num_paths)
    check_key(key)
    dim = model_dim(model, dim)
    check_score(model, process, dim)
    _check_target(log_target, dim)
    for name, law in (("sampler", sampler), ("density", density)):
        if law is not None and not isinstance(law, ODE | SDE | AbstractChain):
            raise ValueError(
                f"`{name}` must be `fpflow.ODE()`, `fpflow.SDE()` or a chain such as "
                f"`fpflow.GaussianChain()`, got {law!r}."
            )
    key_draw, key_weigh = jr.split(key)
    if isinstance(sampler, AbstractChain) and density is None:
        x, log_p = _by_own_paths(sampler, model, process, num_samples, num_paths, dim, key)
        shared = 0.0
    else:
        x = sample(sampler, model, process, num_samples, dim=dim, key=key_draw)
        log_p, shared = _log_density(density or sampler, model, process, x, key_weigh)
    log_w = jax.vmap(log_target)(x) - log_p
    bad = int((jnp.isnan(log_w) | (log_w == jnp.inf)).sum())
    if bad:
        raise FloatingPointError(
            f"`log_target` minus the log density is not a number at {bad} of {num_samples} samples."
        )
    if not bool(jnp.isfinite(log_w).any()):
        raise FloatingPointError(
            f"`log_target` is minus infinity at all {num_samples} samples: none lies in the support of "
            "the target."
        )
    return summed_up(x, log_w, density is not None and not _one_law(sampler, density), shared)


def _check_target(log_target: Callable[[Array], Array], dim: int) -> None:
    """Before anything is drawn: a number at one point, in operations that JAX can trace."""
    point = jax.ShapeDtypeStruct((dim,), jnp.result_type(float))
    try:
        shape = getattr(eqx.filter_eval_shape(log_target, point), "shape", ())
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            "`log_target` must be written with `jax.numpy`, which JAX can trace, instead of `numpy`."
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"`log_target` fails at one point, shape ({dim},): {error}") from error
    if shape != ():
        raise ValueError(f"`log_target` must return one number at one point, got shape {shape}.")


def _in_variables_of(model: Transformed, log_target: Callable[[Array], Array]) -> Callable:
    """The target as a density of the network's own variables."""

    def of_variables(y: Array) -> Array:
        x = model.transform.inverse(y)
        return log_target(x) - model.transform.log_det(x)

    return of_variables


def _one_law(a: Any, b: Any) -> bool:
    """Whether two samplers draw, but for their steps, from one law."""
    if isinstance(a, SDE) and isinstance(b, SDE):
        return float(np.asarray(a.eta)) == float(np.asarray(b.eta))
    return isinstance(a, ODE) and isinstance(b, ODE)


def _log_density(
    law: Any, model: Any, process: AbstractProcess, x: Array, key: PRNGKey
) -> tuple[Array, float]:
    """That by which the samples are weighed, in nats, and how much of its error they may share."""
    if isinstance(law, ODE):
        found = log_prob_ode(model, process, x)
        return found.value, float(found.solver_error.mean())
    if isinstance(law, SDE):
        if float(np.asarray(law.eta)) != 1:
            raise ValueError("only `SDE()` with eta = 1 has a density by noising paths.")
        found = log_prob_sde(model, process, x, key=key)
        return found.value + found.standard_error**2 / 2, 0.0
    raise ValueError("a chain can weight only its own samples; leave out `density`.")


def _by_own_paths(chain, model, process, num_samples, num_paths, dim, key):
    """Samples of a chain with $\\log\\hat p$ by filters that keep their paths."""
    steps = noising_steps(chain, process, jnp.result_type(float))
    x, log_p = [], []
    for number in range(-(-num_samples // _BLOCK)):
        key_draw, key_weigh = jr.split(jr.fold_in(key, number))
        count = min(_BLOCK, num_samples)
        paths = chain_paths(chain, model, process, count, dim=dim, key=key_draw).x
        log_p.append(_own_densities(model, process, steps, num_paths, paths, key_weigh))
        x.append(paths[-1])
    return jnp.concatenate(x)[:num_samples], jnp.concatenate(log_p)[:num_samples]


@eqx.filter_jit
def _own_densities(model, process, steps, num_paths, paths, key):
    twist = model if isinstance(model, PotentialModel) else None
    steps = jax.tree.map(lambda v: v.astype(paths.dtype), steps)

    def one(path, key):
        own = path[::-1]
        return filtered(model, process, steps, twist, path[-1], key, num_paths=num_paths, own=own)

    keys = jr.split(key, paths.shape[1])
    rows = (jnp.moveaxis(paths, 0, 1), keys)
    return jax.lax.map(lambda row: one(*row), rows, batch_size=max(_BLOCK // num_paths, 1))


def summed_up(x: Array, log_w: Array, biased: bool, shared: float = 0.0) -> ImportanceSample:
    """The evidence and what tells whether it should be believed; all weights may miss `shared` nats
    alike, which no number of them shows."""
    logs = np.asarray(log_w, float)
    largest = logs.max()
    w = np.exp(logs - largest)
    log_z = largest + np.log(w.mean())
    error = w.std(ddof=1) / w.mean() / len(w) ** 0.5 if len(w) > 1 else np.inf
    # Means that miss heavy weights look too certain: half of their skewness makes up for it.
    skewness = ((w - w.mean()) ** 3).mean() / max(w.std(), 1e-100) ** 3 / len(w) ** 0.5
    error *= 1 + max(skewness, 0.0) / 2
    # Judged by a part: a mean of all that is too high by luck comes from weights that look even.
    part = logs[: -(-len(logs) // 4)]
    effective, seen = _effective(logs), _effective(part)
    k, tail = pareto_k(logs), pareto_k(part)
    if np.isnan(k):
        warn(
            f"{len(w)} weights are too few to say whether their mean can be trusted; raise "
            "`num_samples` to 25 or more."
        )
    elif effective < _EFFECTIVE or seen < _EFFECTIVE / 3 or tail > 1:
        warn(
            f"the weights are too uneven to be trusted: {effective:.1f} of {len(w)} effective (at "
            f"least {_EFFECTIVE}), {seen:.1f} of the first quarter (at least {_EFFECTIVE // 3}), whose "
            f"Pareto k is {tail:.2f} (at most 1); the sampler misses part of the target."
        )
    elif k > _HEAVY:
        warn(
            f"the largest weights fall off slowly, Pareto k {k:.2f}: the sampler may miss part of the "
            f"target, and unless more samples bring it below {_HEAVY}, the error of log Z is too small."
        )
    rounded = 4 * float(jnp.finfo(log_w.dtype).eps)  # of log densities of a few nats, alike too
    estimate = Estimate(float(log_z), float(np.hypot(error, shared + rounded)))
    return ImportanceSample(x, log_w, estimate, float(effective), float(k), biased)


def _effective(logs: np.ndarray) -> float:
    """So many equal weights are as good as these."""
    w = np.exp(logs - max(logs.max(), np.finfo(float).min))
    return float(w.sum() ** 2 / max((w**2).sum(), 1e-300))


def pareto_k(log_weights: Any) -> float:
    r"""The shape $\hat k$ of the generalised Pareto distribution of the largest weights.

    Means of weights have a finite variance if $k < \tfrac12$, and converge in practice up to $k = 0.7$.

    **Arguments:**

    - `log_weights`: in nats, shape `(n,)`.

    **Returns:** $\hat k$ of the $\min(n/5, 3\sqrt n)$ largest weights, shrunk slightly towards one half;
    minus infinity if all weights are equal to a ten-thousandth, infinity if a quarter of the largest are
    negligible, NaN for fewer than 25 weights.

    **Example:**

    ```python
    fpflow.pareto_k(jax.random.normal(jax.random.key(0), (1000,)))
    ```

    ??? cite "Reference"
        Zhang and Stephens, Technometrics 51 (2009) 316; Vehtari et al., JMLR 25 (2024), arXiv
        1507.02646.
    """
    logs = np.sort(np.asarray(log_weights, float))
    num = int(min(len(logs) / 5, 3 * len(logs) ** 0.5))
    if num < 5:
        return np.nan
    weights = np.exp(logs - logs[-1])
    tail = weights[-num:] - weights[-num - 1]
    # Their mean is right whatever their tail, of which rounding leaves a few steps.
    if tail[-1] <= 0 or np.ptp(logs[-num:]) < 1e-9 or np.ptp(logs) < 1e-4:
        return -np.inf
    if tail[int(num / 4 + 0.5) - 1] <= 0:  # a quarter of the largest weigh nothing beside the first
        return np.inf
    tail = np.maximum(tail, np.finfo(float).tiny)
    grid = 30 + int(num**0.5)
    theta = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    theta = theta / (3 * tail[int(num / 4 + 0.5) - 1]) + 1 / tail[-1]
    shape = np.log1p(-theta[:, None] * tail).mean(1)
    likelihood = num * (np.log(-theta / shape) - shape - 1)
    posterior = 1 / np.exp(likelihood - likelihood[:, None]).sum(1)
    k = np.log1p(-(theta * posterior).sum() * tail).mean()
    return float((num * k + 5) / (num + 10))
