"""A network whose output is a potential, and whose score is therefore a gradient."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._calculus import PotentialJet
from .._process import IsotropicGaussian
from .._types import PRNGKey
from .network import MLP, PRIOR, init_mlp, mlp_from_layers, precision_of, with_network


class PotentialMLP(eqx.Module):
    r"""A network $u_\theta(t, x) \approx \log p(t, x) + c(t)$ with score $s = \nabla u_\theta$.

    $$u_\theta(t, x) = N_\theta(t, x) - \tfrac12\kappa\|x\|^2$$

    with softplus layers $N_\theta$ and the prior's precision $\kappa = 1/\sigma^2$. The layers grow only
    linearly far from the data; there the potential of the prior keeps samples from running away.

    All methods take one point, with `t` of shape `()` and `x` of shape `(dim,)`, or any leading axes on
    both (`t` may stay a single number).

    **Arguments:**

    - `dim`: the dimension of $x$.
    - `width`: number of units in each hidden layer.
    - `depth`: number of hidden layers.
    - `beta`: sharpness of the softplus $\tfrac1\beta\log(1 + e^{\beta h})$. Small values make scores
      smooth and close the ODE--SDE gap; large values approach ReLU and resolve edges.
    - `condition_dim`: the number of entries of a condition $c$ that the network also takes, as
      $u(t, x, c)$; `given(model, c)` is then a model like any other.
    - `prior`: the prior $N(0, \sigma^2 I)$ that the layers correct, that is, `process.prior`; by default
      that of `OrnsteinUhlenbeck()`. With `None` the layers stand alone, as in the paper.
    - `key`: a `jax.random.key` for the initial weights.

    **Raises:** `ValueError` for sizes below one, a `beta` that is not positive, or a `prior` of another
    kind.

    **Example:**

    ```python
    model = fpflow.PotentialMLP(dim=2, key=jax.random.key(0))
    s = model.score(0.5, jnp.zeros(2))
    ```
    """

    network: MLP
    precision: float

    def __init__(
        self,
        dim: int,
        *,
        width: int = 80,
        depth: int = 3,
        beta: float = 1.0,
        condition_dim: int = 0,
        prior: IsotropicGaussian | None = PRIOR,
        key: PRNGKey,
    ):
        self.network = init_mlp(dim, width, depth, 1, beta, condition_dim, key)
        self.precision = precision_of(prior)

    @classmethod
    def from_layers(
        cls, layers: Sequence[tuple[Any, Any]], beta: float = 100.0, precision: float = 0.0
    ) -> "PotentialMLP":
        """Builds the model from the layers of a network trained elsewhere.

        **Arguments:**

        - `layers`: pairs `(weight, bias)` of shapes `(out, in)` and `(out,)`, first layer first;
          the inputs are $(t, x_1, \\dots, x_d)$ in this order and the last layer has one output.
        - `beta`: sharpness of the softplus between the layers.
        - `precision`: $\\kappa$, zero if the layers stand alone.

        **Raises:** `ValueError` if shapes do not chain, values are not finite, or the last layer has
        more than one output.
        """
        network = mlp_from_layers(layers, beta)
        if network.weights[-1].shape[0] != 1:
            raise ValueError(
                f"the last layer of `layers` must have one output, got {network.weights[-1].shape[0]}; "
                "for a network that returns a score, use `ScoreMLP`."
            )
        return with_network(cls, network, precision)

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.network.dim

    def potential(
        self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None
    ) -> Float[Array, "*batch"]:
        """$u(t, x)$, or $u(t, x, c)$ for a conditional network."""
        return self.network(t, x, condition)[..., 0] - self.precision / 2 * jnp.sum(x**2, axis=-1)

    def score(
        self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None
    ) -> Float[Array, "*batch dim"]:
        r"""$s(t, x) = \nabla u(t, x)$."""
        return self.network.gradient(t, x, condition) - self.precision * x

    def jet(self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None) -> PotentialJet:
        r"""$u$, $\partial_t u$, $\nabla u$ and $\Delta u$ in one pass."""
        value, time_derivative, gradient, laplacian = self.network.jet(t, x, condition)
        return PotentialJet(
            value - self.precision / 2 * jnp.sum(x**2, axis=-1),
            time_derivative,
            gradient - self.precision * x,
            laplacian - self.precision * x.shape[-1],
        )
