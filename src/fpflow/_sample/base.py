"""What every sampler is: a map from points of the prior to points of the data."""

import abc
import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._process import AbstractProcess
from .._shown import shown_fields
from .._types import PRNGKey, ScoreModel


class SampleInfo(eqx.Module):
    """What a sampler reports about its run.

    **Attributes:**

    - `num_evaluations`: number of evaluations of the score per point; -1 if a solver does not report it.
    - `success`: whether the sampler reached `t0`.
    - `num_rounds`: of a sampler that evaluates several times side by side, how many such rounds followed
      each other; else `None`, and every evaluation waits for the one before.
    """

    num_evaluations: Int[Array, "..."]
    success: Bool[Array, "..."]
    num_rounds: Int[Array, "..."] | None = None

    __repr__ = shown_fields


class AbstractSampler(eqx.Module):
    """Maps points of the prior at `t1` to points at `t0`.

    A sampler is a pure function of its arguments, so `jax.jit`, `jax.vmap` and `jax.grad` apply to it.
    `sample` draws the points of the prior and passes them to the sampler. Settings that change the
    compiled program, such as the number of steps, are static fields.

    **Example:**

    ```python
    class Straight(fpflow.AbstractSampler):
        def __call__(self, model, process, x1, *, key):
            score = jax.vmap(lambda x: model.score(process.t1, x))(x1)
            x0 = (x1 + process.sigma(process.t1) ** 2 * score) / process.alpha(process.t1)
            return x0, fpflow.SampleInfo(jnp.asarray(1), jnp.asarray(True))

        def finer(self, factor):
            return self
    ```
    """

    @abc.abstractmethod
    def __call__(
        self,
        model: ScoreModel,
        process: AbstractProcess,
        x1: Float[Array, "n dim"],
        *,
        key: PRNGKey,
    ) -> tuple[Float[Array, "n dim"], SampleInfo]:
        """One block of points.

        **Arguments:**

        - `model`: has `score(t, x)` for one point.
        - `process`: its marginals are those of the score.
        - `x1`: draws of the prior, shape `(n, dim)`.
        - `key`: a `jax.random.key` for noise on the way.

        **Returns:** the points at `t0`, shape `(n, dim)`, and a `SampleInfo`.
        """

    @abc.abstractmethod
    def finer(self, factor: int) -> "AbstractSampler":
        """The same sampler with `factor` times as many steps."""

    def as_dict(self) -> dict[str, Any]:
        """The kind of sampler and its settings as plain values, for JSON."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": type(self).__name__, **{name: _plain(v) for name, v in settings.items()}}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, diffrax.PIDController):
        return {"kind": "PIDController", "rtol": float(value.rtol), "atol": float(value.atol)}
    if isinstance(value, AbstractSampler):
        return value.as_dict()
    if isinstance(value, eqx.Module):
        return type(value).__name__
    array = np.asarray(value)
    return array.item() if array.ndim == 0 and array.dtype.kind in "fiub" else str(value)
