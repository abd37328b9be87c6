"""Work shared out among forced host devices: samples bit for bit, training within round-off."""

import inspect
import json
import subprocess
import sys

import jax
import jax.random as jr
import pytest

import fpflow
from fpflow import _devices

OU = fpflow.OrnsteinUhlenbeck()

# Devices can only be forced before jax starts, hence a process of its own.
CODE = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jax.random as jr, numpy as np
import fpflow
from fpflow import _devices

OU = fpflow.OrnsteinUhlenbeck()
law = fpflow.datasets.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], 0.2)
model = fpflow.PotentialMLP(2, width=16, depth=2, key=jr.key(0))

def mesh(n):
    return None if n is None else jax.make_mesh((n,), ("data",), devices=jax.devices()[:n])

objective = fpflow.Objective({
    "dsm": fpflow.DenoisingScoreMatching(),
    "fp": fpflow.UniformFokkerPlanck(weight=0.1, num_points=63),
})
found = {}
for n in (None, 1, 2, 4):
    few = {"num_steps": 6, "mesh": mesh(n), "key": jr.key(1)}
    x = law.sample(jr.key(2), 7)
    trained = fpflow.train(
        model, OU, law, objective=objective, num_steps=5, batch_size=64, chunk=5, mesh=mesh(n),
        optimiser=fpflow.Adam(), key=jr.key(3),
    )
    found[str(n)] = {
        "ode": fpflow.sample_ode(model, OU, 20_000, **few),
        "sde": fpflow.sample_sde(model, OU, 20_000, **few),
        "log p_ODE": fpflow.log_prob_ode(model, OU, x, mesh=mesh(n)).value,
        "log p_SDE": fpflow.log_prob_sde(model, OU, x, num_paths=8, **few).value,
        "bound": fpflow.evidence_bound(model, OU, x, num_groups=4, **few).value,
        "loss": trained.history["dsm"],
        "weight": trained.model.network.weights[1],
    }
for name in found["None"]:
    far = max(float(np.abs(found[n][name] - found["None"][name]).max()) for n in "124")
    print(json.dumps([name, far]))
"""


@pytest.fixture(scope="module")
def far():
    """The largest difference that any number of devices makes, by what was computed."""
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return dict(json.loads(line) for line in result.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("law", ["ode", "sde"])
def test_devices_change_no_bit_of_a_sample(far, law):
    assert far[law] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log p_ODE", "log p_SDE", "bound", "loss", "weight"])
def test_devices_change_other_results_by_round_off(far, name):
    # Fewer points side by side, and sums over a batch in another order: some 1e-7 of values up to 30.
    # Trained by Adam: the axes of Soap start undecided and multiply round-off in the first steps.
    assert far[name] < 1e-4


def test_what_is_no_mesh_is_refused():
    model = fpflow.PotentialMLP(2, width=4, depth=1, key=jr.key(0))
    for sampler in (fpflow.ODE(), fpflow.SDE()):
        with pytest.raises(ValueError, match="`mesh` must be a `jax.sharding.Mesh`, got list"):
            inspect.unwrap(fpflow.sample)(sampler, model, OU, 10, mesh=jax.devices(), key=jr.key(1))


def test_a_mesh_over_some_of_the_processes_is_refused(monkeypatch):
    """Three processes of which the mesh has this one and another, as jax would tell it."""

    class Device:
        def __init__(self, process):
            self.process_index = process

    class Devices:
        flat = (Device(0), Device(1))

    class Some(jax.sharding.Mesh):
        devices = Devices()

        def __new__(cls):
            return object.__new__(cls)

        def __init__(self):
            pass

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    words = "must have devices of this process alone or of all 3 processes, got those of .0, 1."
    with pytest.raises(ValueError, match=words):
        _devices.check_mesh.__wrapped__(Some())


def test_a_lost_process_has_a_name():
    error = fpflow.HostLost("process 1 lost another process while training; start all again")
    assert isinstance(error, ConnectionError) and " lost another process while " in str(error)
