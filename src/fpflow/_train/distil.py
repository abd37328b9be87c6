"""A potential for a score that has none."""

from typing import Any

import jax.random as jr
import numpy as np

from .._model import PotentialMLP, check_key, check_score, in_frame
from .._process import AbstractProcess, IsotropicGaussian
from .._terms import Distillation, Objective
from .._types import ArrayLike, DataLaw, PotentialModel, PRNGKey, ScoreModel
from ..datasets import as_data, unconditional
from .train import train


def distil_potential(
    model: ScoreModel,
    process: AbstractProcess,
    data: DataLaw | ArrayLike,
    *,
    student: PotentialModel | None = None,
    num_steps: int = 2000,
    batch_size: int = 512,
    progress: bool | None = None,
    key: PRNGKey,
) -> Any:
    r"""Trains a network whose gradient is as close as possible to a score under the noised data.

    $$\min_u \int E\,\frac{\sigma^2(t)}{\sigma^2(t_1)}\,\|\nabla u(t, x_t) - s(t, x_t)\|^2\,dt$$

    The network serves as the `twist` of a `TwistedFilter`, which is unbiased for any network; a poor one
    only needs more paths. The score is not differentiated.

    **Arguments:**

    - `model`: has `score(t, x)`; a model made by `from_callback` will do.
    - `process`: the noising process.
    - `data`: where the score is learned: an array `(n, dim)`, or an object with `sample(key, n)`.
      Samples of the model will do.
    - `student`: the `equinox.Module` to train, with `potential(t, x)` and `score(t, x)`; by default a
      `PotentialMLP` of 64 units in the frame of the process.
    - `num_steps`, `batch_size`, `progress`, `key`: as for `train`, which does the training with its
      `Distillation` term.

    **Returns:** the trained student.

    **Raises:** `ValueError` for invalid data or settings, or a student without a potential.

    **Example:**

    ```python
    points = jax.random.normal(jax.random.key(0), (500, 2))
    twist = fpflow.distil_potential(model, process, points, num_steps=20, key=jax.random.key(1))
    fpflow.TwistedFilter(fpflow.GaussianChain(), twist=twist)
    ```
    """
    check_key(key)
    law = unconditional(as_data(data))
    key_data, key_init, key_train = jr.split(key, 3)
    drawn = np.asarray(law.sample(key_data, 1000), float)
    check_score(model, process, drawn.shape[1])
    network: Any = student
    if network is None:
        prior = IsotropicGaussian()
        layers = PotentialMLP(drawn.shape[1], width=64, prior=prior, key=key_init)
        width = max(float(drawn.std()), 1e-3 * float(np.abs(drawn).max()), 1e-6)
        network = in_frame(layers, process, centre=float(drawn.mean()), scale=width)
    if not isinstance(network, PotentialModel):
        raise ValueError(
            f"`student` must have a method `potential(t, x)`, got {type(network).__name__}."
        )
    return train(
        network,
        process,
        law,
        objective=Objective({"distillation": Distillation(teacher=model)}),
        num_steps=num_steps,
        batch_size=batch_size,
        progress=progress,
        key=key_train,
    ).model
