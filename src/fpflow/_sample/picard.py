"""All steps of a chain at once: Picard iterations, parallel in time."""

import dataclasses

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._model import check_counts
from .._process import AbstractProcess
from .._types import PRNGKey, ScoreModel
from .base import AbstractSampler, SampleInfo
from .chain import AbstractChain
from .ddim import DDIM


class Picard(AbstractSampler):
    r"""The samples of a chain in fewer rounds, each of which evaluates the score at all steps at once.

    With the chain's noise $z_k$ fixed, its path $x_{k+1} = a_k x_k + b_k s(t_k, x_k) + c_k z_k$ is the
    fixed point of

    $$x^{(j+1)}_{k+1} = a_k x^{(j+1)}_k + b_k\,s\bigl(t_k, x^{(j)}_k\bigr) + c_k z_k .$$

    After $j$ rounds the first $j$ steps are exact, so it ends after as many rounds as steps at the
    latest. On a machine that evaluates all steps in the time of one, this is as much faster as there are
    fewer rounds; elsewhere it is slower.

    **Arguments:**

    - `chain`: any chain, such as `DDIM` for the ODE or `Ancestral` for the SDE; `DDIM()` by default.
    - `tolerance`: the rounds end once no coordinate changes by more, in units of $x$. Samples differ
      from the chain's by about so much.
    - `num_windows`: the steps are cut into so many windows, which follow each other; more of them need
      less memory and fewer evaluations, and more rounds.

    **Raises:** `ValueError` for what is no chain, a tolerance that is not positive, or more windows than
    steps.

    **Example:**

    ```python
    x = fpflow.sample(fpflow.Picard(fpflow.DDIM(50)), model, process, 100, key=jax.random.key(0))
    ```

    ??? cite "Reference"
        Shih et al., *Parallel sampling of diffusion models*, NeurIPS 2023, arXiv 2305.16317; Chen et
        al., *Accelerating diffusion models with parallel sampling*, NeurIPS 2024, arXiv 2405.15986.
    """

    chain: AbstractChain = DDIM()
    tolerance: float = eqx.field(default=1e-4, static=True)
    num_windows: int = eqx.field(default=1, static=True)

    def __post_init__(self):
        if not isinstance(self.chain, AbstractChain):
            raise ValueError(
                f"`chain` must be a chain of kernels, such as `DDIM(100)`, got {self.chain!r}."
            )
        if not (self.tolerance > 0 and np.isfinite(self.tolerance)):
            raise ValueError(f"`tolerance` must be positive and finite, got {self.tolerance}.")
        (self.num_windows,) = check_counts(num_windows=self.num_windows)
        self.tolerance = float(self.tolerance)

    def __call__(
        self,
        model: ScoreModel,
        process: AbstractProcess,
        x1: Float[Array, "n dim"],
        *,
        key: PRNGKey,
    ) -> tuple[Float[Array, "n dim"], SampleInfo]:
        kernels = self.chain.kernels(process, x1.dtype)
        number = len(kernels.ratio)
        if self.num_windows > number:
            raise ValueError(
                f"`num_windows` must be at most the {number} steps of the chain, got "
                f"{self.num_windows}."
            )
        noise = jnp.asarray(kernels.noise)
        noise = noise.reshape(number, 1, -1)
        if kernels.quiet:
            noise = jnp.zeros((number, *x1.shape), x1.dtype)
        else:
            keys = jax.vmap(lambda k: jr.fold_in(key, k))(jnp.arange(number))
            noise = noise * jax.vmap(lambda key: jr.normal(key, x1.shape, x1.dtype))(keys)
        columns = (
            jnp.asarray(kernels.times[:-1]),
            jnp.asarray(kernels.ratio),
            jnp.asarray(kernels.pull),
        )
        x, rounds, evaluations = x1, jnp.asarray(0), jnp.asarray(0)
        for steps in np.array_split(np.arange(number), self.num_windows):
            rows = (*(column[steps] for column in columns), noise[steps])
            x, taken = self._window(model, x, rows)
            rounds, evaluations = rounds + taken, evaluations + taken * len(steps)
        return x, SampleInfo(evaluations, jnp.asarray(True), rounds)

    def _window(self, model: ScoreModel, x: Array, rows: tuple[Array, ...]) -> tuple[Array, Array]:
        """The end of a window that starts at `x`, and in how many rounds."""
        times, ratio, pull, noise = rows
        scores = jax.vmap(lambda t, x: jax.vmap(lambda x: model.score(t, x))(x))
        factor = ratio[:, None, None]

        def joined(first, second):
            return second[0] * first[0], second[0] * first[1] + second[1]

        def step(state):
            path, _, taken = state
            before = jnp.concatenate([x[None], path[:-1]])
            gained = pull[:, None, None] * scores(times, before) + noise
            # x_{k+1} = a_k x_k + c_k is associative as a map, so all k take log k steps.
            kept, added = jax.lax.associative_scan(joined, (factor, gained))
            new = kept * x + added
            change = jnp.max(jnp.abs(jax.lax.stop_gradient(new - path)))
            return new, change, taken + 1

        def goes_on(state):
            return state[1] > self.tolerance

        start = (
            jnp.broadcast_to(x, (len(times), *x.shape)),
            jnp.asarray(jnp.inf, x.dtype),
            jnp.asarray(0),
        )
        path, _, taken = eqxi.while_loop(
            goes_on, step, start, max_steps=len(times), kind="checkpointed"
        )
        return path[-1], taken

    def finer(self, factor: int) -> "Picard":
        """The same iterations over a chain with `factor` times as many steps."""
        return dataclasses.replace(self, chain=self.chain.finer(factor))
