"""A network that sees every process as the same one."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._calculus import PotentialJet, potential_jet
from .._process import AbstractProcess, Frame
from .._types import Point, PotentialModel, Scalar, Time
from .given import given


class FramedScore(eqx.Module):
    """What `in_frame` makes of a model with a score."""

    model: Any
    frame: Frame

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, t: Time, x: Point, *condition: Array) -> Point:
        r"""$s(\tau, z) / \lambda$."""
        t = jnp.asarray(t, x.dtype)
        z, spread = self.frame.inside(t, x), self.frame.spread(t)
        return self.model.score(self.frame.tau(t), z, *condition) / spread


class FramedPotential(FramedScore):
    """What `in_frame` makes of a model with a potential."""

    def potential(self, t: Time, x: Point, *condition: Array) -> Scalar:
        r"""$u(\tau, z) - d\log\lambda$."""
        t = jnp.asarray(t, x.dtype)
        inner = self.model.potential(self.frame.tau(t), self.frame.inside(t, x), *condition)
        return inner - x.size * jnp.log(self.frame.spread(t))

    def jet(self, t: Time, x: Point, *condition: Array) -> PotentialJet:
        r"""$u$, $\partial_t u$, $\nabla u$ and $\Delta u$ from those of the inner model."""
        frame, t = self.frame, jnp.asarray(t, x.dtype)
        (tau, z, log_spread), (pace, motion, growth) = jax.jvp(
            lambda t: (frame.tau(t), frame.inside(t, x), jnp.log(frame.spread(t))),
            (t,),
            (jnp.ones_like(t),),
        )
        inner: Any = given(self.model, *condition) if condition else self.model
        value, change, gradient, laplacian = potential_jet(inner, tau, z)
        spread = jnp.exp(log_spread)
        return PotentialJet(
            value - x.size * log_spread,
            pace * change + gradient @ motion - x.size * growth,
            gradient / spread,
            laplacian / spread**2,
        )


def in_frame(
    model: Any, process: AbstractProcess, *, centre: float = 0.0, scale: float = 1.0
) -> FramedScore | FramedPotential:
    r"""Makes a network of $(\tau, z)$ a model of $(t, x)$, so that the same recipe trains it for any
    process.

    $$s(t, x) = \frac{1}{\lambda}\,s_\theta\Bigl(\tau, \frac{x - \alpha m}{\lambda}\Bigr), \qquad
    \lambda^2 = \alpha^2 c + \sigma^2, \qquad
    \tau = \tfrac12\log\Bigl(1 + \frac{\sigma^2}{\alpha^2 c}\Bigr)$$

    In $z$ and $\tau$ every linear process is $dz = -z\,d\tau + \sqrt2\,dW$ between data of about unit
    width and the prior $N(0, I)$. A network that receives $x$ and $t$ directly has to learn that a prior
    of width 50 and times up to 80 mean the same.

    **Arguments:**

    - `model`: has `score(t, x)`, and `potential(t, x)` if it has a potential; each takes a condition as
      its last argument if the model is conditional. `PotentialMLP` and `ScoreMLP` with
      `prior=IsotropicGaussian()` correct the prior of the frame.
    - `process`: the noising process it is trained with.
    - `centre`: the centre of the data $m$, the same in every direction, in units of $x$.
    - `scale`: the width of the data $\sqrt c$, in units of $x$.

    **Returns:** a model with `score(t, x)`, and `potential(t, x)` if `model` has a potential.

    **Raises:** `ValueError` if `model` has no score or corrects another prior, for a `centre` that is
    not finite, or for a `scale` that is not positive.

    **Example:**

    ```python
    process = fpflow.VarianceExploding()
    prior = fpflow.IsotropicGaussian()
    network = fpflow.PotentialMLP(dim=2, prior=prior, key=jax.random.key(0))
    model = fpflow.in_frame(network, process)
    ```

    ??? cite "Reference"
        Karras et al., NeurIPS 2022, arXiv 2206.00364, section 5, scale the inputs and outputs of
        networks to unit variance; here both follow from the change of variables.
    """
    if not callable(getattr(model, "score", None)):
        raise ValueError(f"`model` must have a method `score(t, x)`, got {type(model).__name__}.")
    precision = getattr(model, "precision", 0.0)
    if precision and not math.isclose(precision, 1, rel_tol=1e-3):
        raise ValueError(
            f"`model` corrects a prior of width {precision**-0.5:.4g}, but the prior of the frame has "
            "width 1; make the network with `prior=fpflow.IsotropicGaussian()`."
        )
    frame = Frame(process, centre, scale)
    return (FramedPotential if isinstance(model, PotentialModel) else FramedScore)(model, frame)
