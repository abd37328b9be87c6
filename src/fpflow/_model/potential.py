"""A network whose output is a potential, and whose score is therefore a gradient."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float

from .._calculus import PotentialJet
from .._types import PRNGKey
from .network import MLP, init_mlp, mlp_from_layers


class PotentialMLP(eqx.Module):
    r"""A network $u_\theta(t, x) \approx \log p(t, x) + c(t)$ with score $s = \nabla u_\theta$.

    All methods take one point, `t` of shape `()` and `x` of shape `(dim,)`, or any leading axes on
    both (`t` may stay a number).

    **Arguments:**

    - `dim`: the dimension of $x$.
    - `width`: units in each hidden layer.
    - `depth`: number of hidden layers.
    - `beta`: sharpness of the softplus $\tfrac1\beta\log(1 + e^{\beta h})$. Small values make
      smooth scores and close the ODE--SDE gap; large ones approach ReLU and resolve edges.
    - `key`: a `jax.random.key` for the initial weights.

    **Raises:** `ValueError` for sizes below one or `beta` not positive.

    **Example:**

    ```python
    model = fpflow.PotentialMLP(dim=2, key=jax.random.key(0))
    s = model.score(0.5, jnp.zeros(2))
    ```
    """

    network: MLP

    def __init__(
        self, dim: int, *, width: int = 80, depth: int = 3, beta: float = 1.0, key: PRNGKey
    ):
        if depth < 1:
            raise ValueError(f"`depth` must be at least 1, got {depth}.")
        self.network = init_mlp([dim + 1, *[width] * depth, 1], beta, key)

    @classmethod
    def from_layers(cls, layers: Sequence[tuple[Any, Any]], beta: float = 100.0) -> "PotentialMLP":
        """A network trained elsewhere.

        **Arguments:**

        - `layers`: pairs `(weight, bias)` of shapes `(out, in)` and `(out,)`, first layer first;
          the inputs are $(t, x_1, \\dots, x_d)$ in this order and the last layer has one output.
        - `beta`: sharpness of the softplus between the layers.

        **Raises:** `ValueError` when shapes do not chain, values are not finite, or the last layer
        has more than one output.
        """
        network = mlp_from_layers(layers, beta)
        if network.weights[-1].shape[0] != 1:
            raise ValueError(
                f"the last of `layers` must have one output, got {network.weights[-1].shape[0]}; "
                "a network that returns a score is a `ScoreMLP`."
            )
        blank = cls(network.dim, width=1, depth=1, key=jr.key(0))
        return eqx.tree_at(lambda model: model.network, blank, network)

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.network.dim

    def potential(self, t: Any, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        """$u(t, x)$."""
        return self.network(t, x)[..., 0]

    def score(self, t: Any, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        r"""$s(t, x) = \nabla u(t, x)$."""
        return self.network.gradient(t, x)

    def jet(self, t: Any, x: Float[Array, "*batch dim"]) -> PotentialJet:
        r"""$u$, $\partial_t u$, $\nabla u$ and $\Delta u$ in one pass."""
        return self.network.jet(t, x)
