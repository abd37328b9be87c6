"""The simulators of the examples against their published posteriors."""

import importlib.util

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import simulators
from simulators import TASKS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sbibm") is None, reason="sbibm has the published posteriors"
)

# Observations, and parameters whose posterior ends before their prior does: the gradient has mean zero.
FREE = {"gaussian_linear": (1, 10), "slcp": (1, 2), "lotka_volterra": (2, 4)}


@pytest.mark.parametrize("name", FREE)
def test_published_samples_are_of_the_posterior(name):
    r"""$E\,\nabla\log p(x, y) = 0$ under the posterior, whoever sampled it."""
    number, free = FREE[name]
    y, x = TASKS[name].published(number)
    y, x = jnp.asarray(y), jnp.asarray(x[:: 50 if name == "lotka_volterra" else 10])
    gradient = jax.jit(jax.vmap(jax.grad(lambda x: TASKS[name].log_joint(x, y))))(x)[:, :free]
    error = gradient.std(0) / len(x) ** 0.5
    # One of sixteen parts is that far off in one of a hundred and thirty runs.
    assert (abs(gradient.mean(0)) < 3.5 * error).all(), gradient.mean(0) / error


def test_the_evidence_of_two_moons_is_the_mean_over_its_prior():
    """Two routes: a lattice, and the share of simulations in a small square about the observation."""
    task = TASKS["two_moons"]
    y, _ = task.published(1)
    _, seen = task.sample(jr.key(0), 1_000_000)
    near = (abs(seen - jnp.asarray(y)) < 0.05).all(1)
    density, error = near.mean() / 0.01, (near.sum() ** 0.5) / len(seen) / 0.01
    # Over the square the evidence bends by less than the error.
    assert abs(density - jnp.exp(task.log_evidence(jnp.asarray(y)))) < 3 * error


def test_prey_stay_finite_all_over_the_prior():
    """Ten thousand draws held two from which a free step size did not come back."""
    with jax.enable_x64(False):
        _, y = TASKS["lotka_volterra"].sample(jr.key(0), 10_000)
    assert np.isfinite(np.asarray(y)).all()


@pytest.mark.slow
def test_posteriors_are_judged(capsys):
    """Shortened: the figures of the page are those of 10,000 simulations."""
    with jax.enable_x64(False):
        off = simulators.main("two_moons", (1,), 2000, 1500, 1000, 40, 20)
    printed = capsys.readouterr().out
    assert printed.count("C2ST") == 2 and "exact log Z" in printed
    assert np.isfinite(off).all() and off.shape == (4,)
    told = [float(line.split("C2ST ")[1].split(",")[0]) for line in printed.splitlines()[:2]]
    assert max(told) < 0.85
