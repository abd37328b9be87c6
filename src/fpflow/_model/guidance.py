r"""Guidance: scores that are not those of any noised distribution, on purpose."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from .._types import Point, PotentialModel, Scalar, Time
from .check import check_has_score
from .transformed import Transformed


class GuidedScore(eqx.Module):
    """What `guided` makes of two scores."""

    model: Any
    unconditional: Any
    weight: Array

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point) -> Point:
        r"""$\gamma\,s(t, x, c) + (1 - \gamma)\,s(t, x)$."""
        return _mixed(self, self.model.score(t, x), self.unconditional.score(t, x))


class GuidedPotential(eqx.Module):
    """What `guided` makes of two potentials."""

    model: Any
    unconditional: Any
    weight: Array

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point) -> Point:
        r"""$\gamma\,s(t, x, c) + (1 - \gamma)\,s(t, x)$."""
        return _mixed(self, self.model.score(t, x), self.unconditional.score(t, x))

    def potential(self, t: Time, x: Point) -> Scalar:
        r"""$\gamma\,u(t, x, c) + (1 - \gamma)\,u(t, x)$; at $t_0$ that of the powered target."""
        return _mixed(self, self.model.potential(t, x), self.unconditional.potential(t, x))


class ClassifierScore(eqx.Module):
    """What `classifier_guided` makes of a score."""

    model: Any
    log_classifier: Callable[[Time, Point], Scalar]
    weight: Array

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point) -> Point:
        r"""$s(t, x) + \gamma\nabla\log p(c \mid t, x)$."""
        pull = jax.grad(lambda x: self.log_classifier(t, x))(x)
        return self.model.score(t, x) + self.weight.astype(x.dtype) * pull


class ClassifierPotential(eqx.Module):
    """What `classifier_guided` makes of a potential."""

    model: Any
    log_classifier: Callable[[Time, Point], Scalar]
    weight: Array

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point) -> Point:
        r"""$s(t, x) + \gamma\nabla\log p(c \mid t, x)$."""
        pull = jax.grad(lambda x: self.log_classifier(t, x))(x)
        return self.model.score(t, x) + self.weight.astype(x.dtype) * pull

    def potential(self, t: Time, x: Point) -> Scalar:
        r"""$u(t, x) + \gamma\log p(c \mid t, x)$."""
        weight = self.weight.astype(x.dtype)
        return self.model.potential(t, x) + weight * self.log_classifier(t, x)


def _mixed(guided: Any, inner: Array, outer: Array) -> Array:
    """Scores or potentials, mixed by the weight."""
    weight = guided.weight.astype(inner.dtype)
    return weight * inner + (1 - weight) * outer


def guided(
    model: Any, unconditional: Any, weight: float
) -> GuidedScore | GuidedPotential | Transformed:
    r"""A conditional model with classifier-free guidance.

    $$s_\gamma(t, x) = \gamma\,s(t, x, c) + (1 - \gamma)\,s(t, x).$$

    For $\gamma \ne 1$ this is not the score of any noised distribution. Neither sampler draws from the
    powered target $p_\gamma \propto p(x \mid c)^\gamma\,p(x)^{1 - \gamma}$, and the two draw from
    different distributions even if the scores are exact. The densities, distances and weights of fpflow
    are those of the distributions that are really drawn from. `importance_sample` with the potential at
    $t_0$ as its target weights samples towards $p_\gamma$.

    **Arguments:**

    - `model`: the model at its condition, such as `given(network, c)`; has `score(t, x)`. It may be
      `Transformed` if the unconditional model is too, with the same transform.
    - `unconditional`: a model of all data together, such as `given(network, null)` of a network trained
      on `datasets.Dropped`.
    - `weight`: $\gamma$; one gives the conditional model, zero the unconditional one. It is an array
      leaf, so another weight does not recompile anything.

    **Returns:** a model with `score`, and `potential` if both models have one.

    **Raises:** `ValueError` if a model has no score, if the transforms differ, or for a weight that is
    not finite.

    **Example:**

    ```python
    network = fpflow.PotentialMLP(dim=2, condition_dim=1, key=jax.random.key(0))
    pair = fpflow.given(network, [1.0]), fpflow.given(network, [0.0])
    x = fpflow.sample_ode(fpflow.guided(*pair, weight=3.0), process, 100, key=jax.random.key(1))
    ```

    ??? cite "Reference"
        Ho and Salimans, *Classifier-free diffusion guidance*, arXiv 2207.12598; Bradley and Nakkiran,
        *Classifier-free guidance is a predictor-corrector*, arXiv 2408.09000.
    """
    if isinstance(model, Transformed) and isinstance(unconditional, Transformed):
        if not eqx.tree_equal(model.transform, unconditional.transform):
            raise ValueError(
                "`model` and `unconditional` use different transforms, so their scores are with "
                "respect to different variables; wrap both in the same one."
            )
        inner = guided(model.model, unconditional.model, weight)
        return Transformed(inner, model.transform)
    for part in (model, unconditional):
        check_has_score(part)
    both = isinstance(model, PotentialModel) and isinstance(unconditional, PotentialModel)
    return (GuidedPotential if both else GuidedScore)(model, unconditional, _checked(weight))


def classifier_guided(
    model: Any, log_classifier: Callable[[Time, Point], Scalar], weight: float = 1.0
) -> ClassifierScore | ClassifierPotential:
    r"""An unconditional model guided by a classifier of noised points.

    $$s_\gamma(t, x) = s(t, x) + \gamma\nabla\log p(c \mid t, x).$$

    With the exact classifier and $\gamma = 1$ this is the conditional score; otherwise the remarks on
    `guided` apply.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `log_classifier`: $\log p(c \mid t, x)$ of one point noised to time $t$, written with `jax.numpy`.
    - `weight`: $\gamma$.

    **Returns:** a model with `score`, and `potential` if `model` has one.

    **Raises:** `ValueError` if `model` has no score, or for a weight that is not finite.

    **Example:**

    ```python
    right = lambda t, x: jax.nn.log_sigmoid(4 * x[0])
    led = fpflow.classifier_guided(model, right, weight=2.0)
    x = fpflow.sample_ode(led, process, 100, key=jax.random.key(0))
    ```

    ??? cite "Reference"
        Dhariwal and Nichol, *Diffusion models beat GANs on image synthesis*, NeurIPS 2021, arXiv
        2105.05233.
    """
    check_has_score(model)
    kind = ClassifierPotential if isinstance(model, PotentialModel) else ClassifierScore
    return kind(model, log_classifier, _checked(weight))


def _checked(weight: Any) -> Array:
    if not isinstance(weight, Tracer) and not np.isfinite(weight):
        raise ValueError(f"`weight` must be finite, got {weight}.")
    return jnp.asarray(weight, jnp.result_type(float))
