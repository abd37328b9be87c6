r"""Networks as scores and as potentials, on the prior of the frame."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from .._types import Point, PotentialModel, Scalar, Time
from .features import noise_ratio


class _FromNetwork(eqx.Module):
    """A model made of a network."""

    network: Callable[..., Array]

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the network knows it."""
        return getattr(self.network, "dim", None)


class _PotentialFromNetwork(_FromNetwork):
    """A potential, whose score is its gradient."""

    @abc.abstractmethod
    def potential(self, tau: Time, z: Point, *condition: Any) -> Scalar:
        r"""$u(\tau, z)$."""

    def score(self, tau: Time, z: Point, *condition: Any) -> Point:
        r"""$\nabla u(\tau, z)$."""
        return jax.grad(lambda z: self.potential(tau, z, *condition))(z)


class ScoreNetwork(_FromNetwork):
    r"""A score on the prior of the frame, from a network: $s(\tau, z) = N(\tau, z) - z$.

    **Arguments:**

    - `network`: has `network(tau, z)`, or `network(tau, z, condition)`, which returns as many numbers as
      $z$ has.

    **Example:**

    ```python
    network = fpflow.ResidualMLP(2, width=32, depth=2, key=jax.random.key(0))
    model = fpflow.in_frame(fpflow.ScoreNetwork(network), process)
    ```
    """

    def score(self, tau: Time, z: Point, *condition: Any) -> Point:
        r"""$N(\tau, z) - z$."""
        return self.network(tau, z, *condition) - z


class PotentialNetwork(_PotentialFromNetwork):
    r"""A potential on the prior of the frame, from a network; its score is a gradient.

    $$u(\tau, z) = N(\tau, z) - \tfrac12\|z\|^2,$$

    and $\langle z, N(\tau, z)\rangle - \tfrac12\|z\|^2$ if the network returns as many numbers as $z$
    has.

    **Arguments:**

    - `network`: has `network(tau, z)`, or `network(tau, z, condition)`, which returns one number or as
      many as $z$ has.

    **Example:**

    ```python
    network = fpflow.ResidualMLP(2, out=1, width=32, depth=2, key=jax.random.key(0))
    model = fpflow.in_frame(fpflow.PotentialNetwork(network), process)
    ```

    ??? cite "Reference"
        Salimans and Ho, *Should EBMs model the energy or the score?*, ICLR 2021 workshop.
    """

    def potential(self, tau: Time, z: Point, *condition: Any) -> Scalar:
        r"""$u(\tau, z)$."""
        n = self.network(tau, z, *condition)
        return (n[0] if n.shape == (1,) else z @ n) - z @ z / 2


class ReconstructionPotential(_PotentialFromNetwork):
    r"""A potential that is high where a network gives its argument back,

    $$u(\tau, z) = -\tfrac12\|z - N(\tau, z)\|^2.$$

    It is never positive and, unlike that of `PotentialNetwork`, not tied to the prior.

    **Arguments:**

    - `network`: has `network(tau, z)`, or `network(tau, z, condition)`, which returns as many numbers as
      $z$ has.

    **Example:**

    ```python
    network = fpflow.ResidualMLP(2, width=32, depth=2, key=jax.random.key(0))
    model = fpflow.in_frame(fpflow.ReconstructionPotential(network), process)
    ```

    ??? cite "Reference"
        Salimans and Ho, *Should EBMs model the energy or the score?*, ICLR 2021 workshop.
    """

    def potential(self, tau: Time, z: Point, *condition: Any) -> Scalar:
        r"""$u(\tau, z)$."""
        missed = z - self.network(tau, z, *condition)
        return -missed @ missed / 2


class PreconditionedScore(eqx.Module):
    """What `Preconditioned` makes of a score."""

    model: Any

    @property
    def dim(self) -> int | None:
        """The dimension of a point, if the model knows it."""
        return getattr(self.model, "dim", None)

    def score(self, tau: Time, z: Point, *condition: Any) -> Point:
        r"""$-z + (s + z) / \sqrt{e^{2\tau} - 1}$."""
        return _sharpened(tau, self.model.score(tau, z, *condition), -z)


class PreconditionedPotential(PreconditionedScore):
    """What `Preconditioned` makes of a potential."""

    def potential(self, tau: Time, z: Point, *condition: Any) -> Scalar:
        r"""$-\tfrac12\|z\|^2 + (u + \tfrac12\|z\|^2) / \sqrt{e^{2\tau} - 1}$."""
        return _sharpened(tau, self.model.potential(tau, z, *condition), -z @ z / 2)


def _sharpened(tau: Time, value: Array, prior: Array) -> Array:
    """The prior's score or potential, with what the network adds over the noise ratio."""
    return prior + (value - prior) / noise_ratio(tau)


def Preconditioned(model: Any) -> PreconditionedScore | PreconditionedPotential:
    r"""A model in the frame whose network is of order one at all noise levels, like that of EDM.

    $$s(\tau, z) = -z + \frac{N(\tau, z)}{\sqrt{e^{2\tau} - 1}},$$

    with $N = s_\theta + z$, the part of the network. In units of $x$ this is the preconditioning of
    Karras et al.: with $D$ the denoiser, $c_\text{skip} = c / (c + \sigma^2)$ and
    $c_\text{out} = \sigma\sqrt{c} / \sqrt{c + \sigma^2}$ at $\alpha = 1$. Scores of sharp data grow as
    $1/\sigma$ towards $t_0$; the factor supplies this growth, so the network need not learn it. Noise
    below a hundredth of the data's width counts as a hundredth.

    **Arguments:**

    - `model`: a `ScoreNetwork` or `PotentialNetwork`, or any model on the prior $N(0, I)$ of the frame.

    **Returns:** a model with `score`, and `potential` if `model` has one, for use with `in_frame`.

    **Raises:** `ValueError` if `model` has no score.

    **Example:**

    ```python
    network = fpflow.ResidualMLP(2, width=32, depth=2, key=jax.random.key(0))
    sharp = fpflow.Preconditioned(fpflow.ScoreNetwork(network))
    model = fpflow.in_frame(sharp, process)
    ```

    ??? cite "Reference"
        Karras et al., *Elucidating the design space of diffusion-based generative models*, NeurIPS 2022,
        arXiv 2206.00364, Table 1.
    """
    if not callable(getattr(model, "score", None)):
        raise ValueError(
            f"`model` must have a method `score(tau, z)`, got {type(model).__name__}; wrap a network "
            "in `fpflow.ScoreNetwork`."
        )
    kind = PreconditionedPotential if isinstance(model, PotentialModel) else PreconditionedScore
    return kind(model)
