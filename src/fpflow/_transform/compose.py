"""One transform after another."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Point, Scalar
from .base import AbstractTransform


class Compose(AbstractTransform):
    r"""$T = T_n \circ \dots \circ T_1$, where $T_1$ is applied to the data first.

    **Arguments:**

    - `transforms`: at least one `AbstractTransform`.

    **Raises:** `ValueError` if one of them is not a transform.

    **Example:**

    ```python
    box = fpflow.Logit(low=[0.0, 0.0], high=[1.0, 1.0])
    data = jax.random.uniform(jax.random.key(0), (500, 2), minval=0.01, maxval=0.99)
    both = fpflow.Compose(box, fpflow.Standardise.of(jax.vmap(box.forward)(data)))
    ```
    """

    transforms: tuple[AbstractTransform, ...]

    def __init__(self, *transforms: AbstractTransform):
        for transform in transforms:
            if not isinstance(transform, AbstractTransform):
                raise ValueError(
                    f"`transforms` must be transforms such as `fpflow.Standardise`, got {transform!r}."
                )
        if not transforms:
            raise ValueError("`transforms` must hold at least one transform.")
        self.transforms = transforms

    def forward(self, x: Point) -> Point:
        """$T(x)$."""
        for transform in self.transforms:
            x = transform.forward(x)
        return x

    def inverse(self, y: Point) -> Point:
        """$T^{-1}(y)$."""
        for transform in reversed(self.transforms):
            y = transform.inverse(y)
        return y

    def log_det(self, x: Point) -> Scalar:
        """The sum of the terms of its parts, each at the point that the parts before it produce."""
        total = jnp.zeros((), x.dtype)
        for transform in self.transforms:
            total, x = total + transform.log_det(x), transform.forward(x)
        return total

    def check(self, x: Float[Array, "n dim"]) -> None:
        """Refuses the points that one of its parts refuses."""
        for transform in self.transforms:
            transform.check(x)
            x = jax.vmap(transform.forward)(jnp.asarray(x, jnp.result_type(float)))
