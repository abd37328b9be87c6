"""A network whose output is the score itself."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from .._process import IsotropicGaussian
from .._types import PRNGKey
from .network import MLP, PRIOR, init_mlp, mlp_from_layers, precision_of, with_network


class ScoreMLP(eqx.Module):
    r"""A network $s_\theta(t, x) \approx \nabla\log p(t, x)$ that need not be a gradient.

    $$s_\theta(t, x) = N_\theta(t, x) - \kappa x$$

    Arguments, shapes and errors are as for `PotentialMLP`.

    **Example:**

    ```python
    model = fpflow.ScoreMLP(dim=2, key=jax.random.key(0))
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
        self.network = init_mlp(dim, width, depth, dim, beta, condition_dim, key)
        self.precision = precision_of(prior)

    @classmethod
    def from_layers(
        cls, layers: Sequence[tuple[Any, Any]], beta: float = 100.0, precision: float = 0.0
    ) -> "ScoreMLP":
        """Builds the model from the layers of a network trained elsewhere, as `PotentialMLP.from_layers`
        but with `dim` outputs."""
        network = mlp_from_layers(layers, beta)
        if network.weights[-1].shape[0] != network.dim:
            raise ValueError(
                f"the last layer of `layers` must have {network.dim} outputs, one per coordinate, got "
                f"{network.weights[-1].shape[0]}."
            )
        return with_network(cls, network, precision)

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.network.dim

    def score(
        self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None
    ) -> Float[Array, "*batch dim"]:
        """$s(t, x)$, or $s(t, x, c)$ for a conditional network."""
        return self.network(t, x, condition) - self.precision * x
