"""What an experiment is: variants of one thing, run with several seeds, and what is measured of each."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.random as jr
import numpy as np

import fpflow

from ..._types import DataLaw, PRNGKey
from ..data import PROCESS, WINDOW, cells_of

Numbers = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the variants of a run share.

    **Attributes:**

    - `law`: the data.
    - `scale`: by what the numbers of steps and of points are multiplied; below one only to try things.
    """

    law: DataLaw
    scale: float = 1.0

    def count(self, number: int) -> int:
        """A number of steps or points, scaled."""
        return max(round(number * self.scale), 16)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Variants beside each other.

    **Attributes:**

    - `name`: of the folder.
    - `question`: what it is to answer, a sentence.
    - `variants`: by name, each a function of the setting and a key that returns numbers by name.
    - `columns`: the words of the table by the names of the numbers.
    - `times`: the names of those that are times. Other work on a machine only lengthens them, so the
      smallest of the seeds is told instead of the mean.
    - `owns_data`: whether the data are part of the experiment, so that none of one's own can be chosen.
    """

    name: str
    question: str
    variants: dict[str, Callable[[Setting, PRNGKey], Numbers]]
    columns: dict[str, str]
    times: tuple[str, ...] = ("ms_per_step",)
    owns_data: bool = False


IN_THE_PLANE = {
    "kl": "KL(SDE ‖ ODE), nats x 10⁻³",
    "ode_sde": "W2² ODE–SDE, x 10⁻³",
    "ode_data": "W2² ODE–data, x 10⁻³",
    "sde_data": "W2² SDE–data, x 10⁻³",
    "ms_per_step": "ms per step",
}


def trained(
    model: Any, process: Any, law: DataLaw, *, key: PRNGKey, **how: Any
) -> tuple[Any, float]:
    """A network after training, and the milliseconds of a step in the fastest part of it."""
    result = fpflow.train(model, process, law, progress=False, key=key, **how)
    if len(result.history.step) < 2:
        return result.model, float("nan")
    speeds = np.diff(result.history.seconds) / np.diff(result.history.step)
    return result.model, float(1e3 * speeds.min())


def in_the_plane(model: Any, process: Any, law: DataLaw) -> Numbers:
    """The distances between the exact laws of both samplers and the data, in thousandths."""
    ode = fpflow.grid_density_ode(model, process, WINDOW)
    sde = fpflow.grid_density_sde(model, process, WINDOW)
    data = cells_of(law, WINDOW)
    found = {
        "kl": fpflow.kl_divergence(sde, ode).value,
        "ode_sde": fpflow.w2_grid(ode, sde).value,
        "ode_data": fpflow.w2_grid(ode, data).value,
        "sde_data": fpflow.w2_grid(sde, data).value,
    }
    return {name: 1e3 * value for name, value in found.items()}


def network_in_the_plane(
    setting: Setting,
    make: Callable[[PRNGKey], Any],
    *,
    key: PRNGKey,
    process: Any = PROCESS,
    **how: Any,
) -> Numbers:
    """Trains what `make` makes and measures it."""
    key_network, key_train = jr.split(key)
    how = {"num_steps": 3000, "batch_size": 1024, **how}
    how |= {name: setting.count(how[name]) for name in ("num_steps", "batch_size")}
    model, speed = trained(make(key_network), process, setting.law, key=key_train, **how)
    return {**in_the_plane(model, process, setting.law), "ms_per_step": speed}


def seconds_of(function: Callable[[], Any]) -> tuple[Any, float]:
    """A result and how long it took the second time, compiled."""
    jax.block_until_ready(function())
    start = time.perf_counter()
    found = jax.block_until_ready(function())
    return found, time.perf_counter() - start
