"""Scores from what other libraries train: noise, data, v and velocity predictions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._process import AbstractProcess, at_time
from .._types import Time
from .transformed import Transformed

Prediction = Callable[..., Any]

# The first time a prediction is asked at unless told otherwise, after t0.
_T_MIN = 1e-3


class ScoreFunction(eqx.Module):
    r"""A model made from any function `score(t, x)` of one point.

    **Arguments:**

    - `function`: takes `t` of shape `()` and `x` of shape `(dim,)`, and returns shape `(dim,)`.
    - `dim`: the dimension; if it is not given, the library finds it by trial.
    """

    function: Prediction
    dim: int | None = None

    def score(self, t: Time, x: Any, *condition: Any) -> Any:
        """$s(t, x)$, or $s(t, x, c)$ if the function takes a condition."""
        return self.function(t, x, *condition)


class AdaptedScore(eqx.Module):
    r"""A score computed from another prediction.

    **Attributes:**

    - `prediction`: the function `(t, x)` that was trained.
    - `process`: the noising process it was trained with.
    - `rule`: `(process, prediction at the point, t, x) -> score`.
    - `t_min`: the smallest time the prediction is asked at; earlier times are taken for it.
    - `dim`: the dimension, where it is known.
    """

    prediction: Prediction
    process: AbstractProcess
    rule: Callable[..., Any] = eqx.field(static=True)
    t_min: float
    dim: int | None = None

    def score(self, t: Time, x: Any, *condition: Any) -> Any:
        r"""$s(\max(t, t_\text{min}), x)$."""
        t = jnp.maximum(jnp.asarray(t, x.dtype), self.t_min)
        return self.rule(self.process, self.prediction(t, x, *condition), t, x)


def _noise_rule(process, noise, t, x):
    del x
    return -noise / process.sigma(t)


def _data_rule(process, x0, t, x):
    return (process.alpha(t) * x0 - x) / process.sigma(t) ** 2


def _v_rule(process, v, t, x):
    alpha, sigma = process.alpha(t), process.sigma(t)
    return -(alpha * v + sigma * x) / (alpha**2 + sigma**2) / sigma


def _velocity_rule(process, velocity, t, x):
    return 2 * (process.drift(t, x) - velocity) / process.diffusion(t) ** 2


def _adapt(prediction, process, rule, t_min, dim):
    if not callable(prediction):
        raise ValueError(
            f"`prediction` must be a function of (t, x), got {type(prediction).__name__}."
        )
    if t_min is None:
        t_min = process.t0 + _T_MIN
    if not process.t0 <= t_min < process.t1:
        raise ValueError(f"`t_min` must lie in [{process.t0}, {process.t1}), got {t_min}.")
    return AdaptedScore(prediction, process, rule, float(t_min), dim)


def from_noise_prediction(
    prediction: Prediction,
    process: AbstractProcess,
    *,
    t_min: float | None = None,
    dim: int | None = None,
) -> AdaptedScore:
    r"""The score $s = -\hat\epsilon(t, x) / \sigma(t)$ of a network that predicts the noise in
    $x = \alpha x_0 + \sigma\epsilon$.

    **Arguments:**

    - `prediction`: $\hat\epsilon(t, x)$ at one point, shape `(dim,)`, in the time of `process`.
    - `process`: the noising process it was trained with.
    - `t_min`: the smallest time of its training, by default $t_0 + 10^{-3}$; $\sigma$ vanishes at $t_0$.
    - `dim`: the dimension of $x$, if it should not be found by trial.

    **Returns:** a model with `score(t, x)`.

    **Raises:** `ValueError` if `prediction` is not a function or `t_min` lies outside the process.

    ??? cite "Reference"
        Ho, Jain and Abbeel, *Denoising diffusion probabilistic models*, NeurIPS 2020, arXiv 2006.11239.
    """
    return _adapt(prediction, process, _noise_rule, t_min, dim)


def from_data_prediction(
    prediction: Prediction,
    process: AbstractProcess,
    *,
    t_min: float | None = None,
    dim: int | None = None,
) -> AdaptedScore:
    r"""The score $s = (\alpha\hat x_0(t, x) - x) / \sigma^2$ of a network that predicts the data.

    Arguments, result and errors are as for `from_noise_prediction`.
    """
    return _adapt(prediction, process, _data_rule, t_min, dim)


def from_v_prediction(
    prediction: Prediction,
    process: AbstractProcess,
    *,
    t_min: float | None = None,
    dim: int | None = None,
) -> AdaptedScore:
    r"""The score of a network that predicts $v = \alpha\epsilon - \sigma x_0$, from
    $\hat\epsilon = (\alpha v + \sigma x) / (\alpha^2 + \sigma^2)$.

    Arguments, result and errors are as for `from_noise_prediction`.

    ??? cite "Reference"
        Salimans and Ho, *Progressive distillation for fast sampling of diffusion models*, ICLR 2022,
        arXiv 2202.00512.
    """
    return _adapt(prediction, process, _v_rule, t_min, dim)


def from_velocity(
    prediction: Prediction,
    process: AbstractProcess,
    *,
    t_min: float | None = None,
    dim: int | None = None,
) -> AdaptedScore:
    r"""The score $s = 2 (f - v) / g^2$ of a flow with the learned velocity $v = f - \tfrac12 g^2 s$.

    The velocity is $dx/dt$ in the time of `process`, which runs from data to noise. Other arguments,
    result and errors are as for `from_noise_prediction`; `t_min` is $t_0$ by default if $g$ does not
    vanish there.
    """
    if t_min is None and at_time(process.diffusion, process.t0) > _T_MIN:
        t_min = process.t0
    return _adapt(prediction, process, _velocity_rule, t_min, dim)


def as_model(model_or_score: Any, dim: int | None = None) -> Any:
    """What has `score(t, x)`, or is `Transformed`, as it is; a function `score(t, x)` as a model."""
    if callable(getattr(model_or_score, "score", None)) or isinstance(model_or_score, Transformed):
        return model_or_score
    if callable(model_or_score):
        return ScoreFunction(model_or_score, dim)
    raise ValueError(
        "a model must have a method `score(t, x)` or be a function `score(t, x)`, got "
        f"{type(model_or_score).__name__}."
    )
