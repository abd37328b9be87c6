"""A network whose output is the score itself."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float

from .._types import PRNGKey
from .network import MLP, init_mlp, mlp_from_layers


class ScoreMLP(eqx.Module):
    r"""A network $s_\theta(t, x) \approx \nabla\log p(t, x)$ that need not be a gradient.

    Arguments, shapes and errors are those of `PotentialMLP`.

    **Example:**

    ```python
    model = fpflow.ScoreMLP(dim=2, key=jax.random.key(0))
    ```
    """

    network: MLP

    def __init__(
        self, dim: int, *, width: int = 80, depth: int = 3, beta: float = 1.0, key: PRNGKey
    ):
        if depth < 1:
            raise ValueError(f"`depth` must be at least 1, got {depth}.")
        self.network = init_mlp([dim + 1, *[width] * depth, dim], beta, key)

    @classmethod
    def from_layers(cls, layers: Sequence[tuple[Any, Any]], beta: float = 100.0) -> "ScoreMLP":
        """A network trained elsewhere; see `PotentialMLP.from_layers`, with `dim` outputs."""
        network = mlp_from_layers(layers, beta)
        if network.weights[-1].shape[0] != network.dim:
            raise ValueError(
                f"the last of `layers` must have {network.dim} outputs, one a coordinate, "
                f"got {network.weights[-1].shape[0]}."
            )
        blank = cls(network.dim, width=1, depth=1, key=jr.key(0))
        return eqx.tree_at(lambda model: model.network, blank, network)

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.network.dim

    def score(self, t: Any, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """$s(t, x)$."""
        return self.network(t, x)
