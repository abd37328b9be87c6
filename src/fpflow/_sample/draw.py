"""Many samples: blocks, devices, a bar and checks around a sampler."""

from collections.abc import Iterator
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, Float
from tqdm.auto import tqdm

from .._blocks import in_cache
from .._devices import check_mesh, num_devices, over_devices
from .._hosts import gathered, no_bar, watched
from .._model import (
    Transformed,
    check_counts,
    check_key,
    check_score,
    model_dim,
    model_dtype,
    samples_in_units,
)
from .._process import AbstractProcess
from .._types import ArrayLike, PRNGKey, ScoreModel, shown
from .._window import GridDensity, Window
from ..datasets import count_in_cells, histogram_density
from .base import AbstractSampler
from .chain import AbstractChain, ChainPaths, run_chain
from .ode import ODE
from .sde import SDE
from .solve import Eta

# Samples that share one state, one key and, under an adaptive solver, one step size. Fixed, so
# that results do not depend on `batch_size`.
_BLOCK = 4096


@eqx.filter_jit
def _sample_blocks(sampler, model, process, shape, mesh, keys):
    """One block of samples a key, shape `(len(keys) * n, dim)`, and whether all went well."""

    def one_block(key):
        key_prior, key_path = jr.split(key)
        x1 = process.prior.sample(key_prior, shape).astype(model_dtype(model))
        x0, info = sampler(model, process, x1, key=key_path)
        return x0, info.success

    x, fine = over_devices(jax.vmap(one_block), mesh)(keys)
    return x.reshape(-1, shape[1]), jnp.all(fine) & jnp.isfinite(x).all()


def _batches(
    sampler, model, process, num_samples, dim, batch_size, mesh, progress, key
) -> Iterator[Any]:
    """Yields the samples in batches, after checking every argument."""
    if not isinstance(sampler, AbstractSampler):
        raise ValueError(
            "`sampler` must be an `fpflow.AbstractSampler` such as `fpflow.SDE()`, got "
            f"{shown(sampler)}."
        )
    if batch_size is None:
        batch_size = _BLOCK if in_cache() else 64 * _BLOCK
    num_samples, batch_size = check_counts(num_samples=num_samples, batch_size=batch_size)
    check_key(key)
    check_mesh(mesh)
    dim = model_dim(model, dim)
    check_score(model, process, dim)
    name = type(sampler).__name__

    shape = (min(num_samples, _BLOCK), dim)
    num_blocks = -(-num_samples // shape[0])
    devices = num_devices(mesh)
    num_batches = -(-num_blocks // (max(batch_size // shape[0], 1) * devices))
    per_batch = -(-num_blocks // (num_batches * devices)) * devices
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((sampler, model, key)))
    disable = traced or no_bar(progress)
    with (
        watched(mesh, "sampling"),
        tqdm(total=num_samples, unit="sample", desc=f"sample {name}", disable=disable) as bar,
    ):
        for first in range(0, num_blocks, per_batch):
            # The last batch is as wide as the others, so that nothing compiles twice.
            keys = jax.vmap(lambda i: jr.fold_in(key, i))(first + jnp.arange(per_batch))
            x, fine = _sample_blocks(sampler, model, process, shape, mesh, keys)
            x, fine = gathered((x, fine), mesh)
            x = x[: num_samples - first * shape[0]]
            bar.update(len(x))
            if not isinstance(fine, Tracer) and not fine:
                raise FloatingPointError(
                    f"{'an' if name[0] in 'AEIOS' else 'a'} {name} sample is not finite or the solver "
                    "gave up: the score may be too stiff for the steps; raise `num_steps`"
                    + (", or pass a `stepsize_controller`." if name in ("ODE", "SDE") else ".")
                )
            yield x if isinstance(x, Tracer) else np.asarray(x)


@samples_in_units
def sample(
    sampler: AbstractSampler,
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    num_samples: int,
    *,
    dim: int | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> Float[Array, "num_samples dim"]:
    r"""Draws samples with any sampler, from the prior at $t_1$ to data at $t_0$.

    `jax.jit`, `jax.vmap` and `jax.grad` apply to it. Inside `jax.jit` and `jax.vmap` there are no values
    to check, so a sample that is not finite raises no error.

    **Arguments:**

    - `sampler`: an `AbstractSampler`: `ODE`, `SDE`, `EulerMaruyama`, `PredictorCorrector`,
      `Ancestral`, `DDIM`, `EDMHeun`, or one of your own.
    - `model`: has `score(t, x)` for one point, or is `Transformed`; then the samples are in the units of
      the data.
    - `process`: gives $\alpha$, $\sigma$ and the prior.
    - `num_samples`: number of points.
    - `dim`: the dimension, if neither `model.dim` nor the score determines it.
    - `batch_size`: number of points held in the memory of a device at once, in whole blocks of 4096; by
      default one block on a CPU, whose cache holds no more, and 64 on other devices. Does not change the
      result.
    - `mesh`: a `jax.sharding.Mesh` of devices that share the blocks; does not change the result. If it
      spans several processes, each of them returns all samples.
    - `progress`: whether to show a progress bar; by default on a terminal or in a notebook.
    - `key`: a `jax.random.key`.

    **Returns:** points of shape `(num_samples, dim)` in the precision of the model.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if a sample is not finite,
    `HostLost` if another process of the mesh ended.

    **Example:**

    ```python
    x = fpflow.sample(fpflow.DDIM(50), model, process, 1000, key=jax.random.key(0))
    ```
    """
    return _drawn(sampler, model, process, num_samples, dim, batch_size, mesh, progress, key)


def _drawn(*arguments) -> Array:
    return jnp.concatenate(list(_batches(*arguments)))


@samples_in_units
def sample_ode(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    num_samples: int,
    *,
    num_steps: int | None = None,
    step_grid: ArrayLike | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    dim: int | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> Float[Array, "num_samples dim"]:
    r"""Draws samples with the probability-flow ODE, from the prior at $t_1$ to data at $t_0$.

    $$dx = \bigl(f - \tfrac12 g^2 s\bigr)\,dt, \qquad x_{t_1} \sim \pi.$$

    This is `sample` with the sampler `ODE`.

    **Arguments:** as for `sample`, and

    - `num_steps`: number of steps, graded by `process.graded_time`; 100 by default.
    - `step_grid`: your own times, decreasing from `t1` to `t0`, shape `(n + 1,)`.
    - `solver`: a diffrax solver; `diffrax.Heun()` by default.
    - `stepsize_controller`: a diffrax controller for adaptive steps instead of a grid, such as
      `diffrax.PIDController(rtol=1e-5, atol=1e-5)`.

    **Returns:** points of shape `(num_samples, dim)` in the precision of the model.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if a sample is not finite.

    **Example:**

    ```python
    x = fpflow.sample_ode(model, process, 1000, key=jax.random.key(0))
    ```

    ??? cite "Reference"
        Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, arXiv 2011.13456.
    """
    sampler = ODE(solver or diffrax.Heun(), num_steps, step_grid, stepsize_controller)
    return _drawn(sampler, model, process, num_samples, dim, batch_size, mesh, progress, key)


@samples_in_units
def sample_sde(
    model: ScoreModel | Transformed,
    process: AbstractProcess,
    num_samples: int,
    *,
    eta: Eta = 1.0,
    num_steps: int | None = None,
    step_grid: ArrayLike | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    dim: int | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> Float[Array, "num_samples dim"]:
    r"""Draws samples with the reverse SDE, from the prior at $t_1$ to data at $t_0$.

    $$dx = (f - g^2 s)\,dt + g\,d\bar W, \qquad x_{t_1} \sim \pi,$$

    or with another member of the family that has the same marginals if the score is exact,
    $dx = \bigl[f - \tfrac12(1 + \eta^2) g^2 s\bigr]dt + \eta\,g\,d\bar W$. This is `sample` with the
    sampler `SDE`.

    **Arguments:** as for `sample_ode`, except

    - `eta`: $\eta \ge 0$; one gives the reverse SDE, zero the probability-flow ODE.
    - `num_steps`: 200 by default.
    - `solver`: a diffrax solver for additive noise, `diffrax.ShARK()` by default. Others are
      `diffrax.SRA1()`, `diffrax.SEA()`, and `diffrax.Euler()`, which is Euler--Maruyama here.
    - `stepsize_controller`: a diffrax controller for adaptive steps. It needs a solver with an error
      estimate, such as `diffrax.ShARK()`; the noise then comes from a `diffrax.VirtualBrownianTree`,
      which is several times slower.

    **Returns:** points of shape `(num_samples, dim)` in the precision of the model.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if a sample is not finite.

    **Example:**

    ```python
    x = fpflow.sample_sde(model, process, 1000, eta=1.0, key=jax.random.key(0))
    ```

    ??? cite "Reference"
        Anderson, *Reverse-time diffusion equation models*, Stoch. Proc. Appl. 12 (1982) 313.
    """
    if not isinstance(eta, Tracer):
        eta = jnp.asarray(eta, float)  # an array, so that another value compiles nothing
    sampler = SDE(eta, solver or diffrax.ShARK(), num_steps, step_grid, stepsize_controller)
    return _drawn(sampler, model, process, num_samples, dim, batch_size, mesh, progress, key)


def sample_histogram(
    sampler: AbstractSampler,
    model: ScoreModel,
    process: AbstractProcess,
    num_samples: int,
    window: Window | None = None,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
    key: PRNGKey,
) -> GridDensity:
    """Counts samples in the cells of a window without keeping them.

    **Arguments:** as for `sample`, and

    - `window`: the window whose cells are used, `Window()` by default.

    **Returns:** a `GridDensity` whose `error` is the expected total variation due to counting. The
    samples are those that `sample` would return.

    **Raises:** the errors of `sample`, and `ValueError` if no sample lies in the window.

    **Example:**

    ```python
    counts = fpflow.sample_histogram(
        fpflow.SDE(), model, process, 100_000, fpflow.Window(), key=jax.random.key(0)
    )
    ```
    """
    window = Window() if window is None else window
    counts = np.zeros(window.shape)
    for x in _batches(
        sampler, model, process, num_samples, window.dim, batch_size, mesh, progress, key
    ):
        counts += count_in_cells(x, window)
    return histogram_density(counts, num_samples, window)


def chain_paths(
    chain: AbstractChain,
    model: ScoreModel,
    process: AbstractProcess,
    num_samples: int,
    *,
    dim: int | None = None,
    key: PRNGKey,
) -> ChainPaths:
    r"""Draws samples of a chain with their whole paths, from $x_n \sim \pi$ to $x_0$.

    **Arguments:**

    - `chain`: an `AbstractChain` such as `GaussianChain`.
    - `model`, `process`, `num_samples`, `dim`, `key`: as for `sample`, which draws the same points; at
      most 4096 samples, whose paths are held in memory together.

    **Returns:** `ChainPaths`.

    **Raises:** `ValueError` for invalid arguments, `FloatingPointError` if a point is not finite.

    **Example:**

    ```python
    paths = fpflow.chain_paths(fpflow.GaussianChain(0.1), model, process, 100, key=jax.random.key(0))
    ```
    """
    if not isinstance(chain, AbstractChain):
        raise ValueError(f"`chain` must be an `fpflow.AbstractChain`, got {shown(chain)}.")
    (num_samples,) = check_counts(num_samples=num_samples)
    if num_samples > _BLOCK:
        raise ValueError(f"`num_samples` must be at most {_BLOCK}, got {num_samples}.")
    check_key(key)
    dim = model_dim(model, dim)
    check_score(model, process, dim)
    key_prior, key_path = jr.split(jr.fold_in(key, 0))
    x1 = process.prior.sample(key_prior, (num_samples, dim)).astype(model_dtype(model))
    found = run_chain(chain, model, process, x1, key_path)
    if not isinstance(found.x, Tracer) and not bool(jnp.isfinite(found.x).all()):
        raise FloatingPointError(
            "a path of the chain is not finite: the score may be too stiff for the steps; raise "
            "`num_steps`."
        )
    return found
