"""Sixty-four dimensions: scikit-learn's digits, by a network that trains for a minute."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

import fpflow

SCRIPT = pathlib.Path(__file__).parent.parent / "scripts" / "digits.py"


@pytest.mark.slow
def test_two_runs_at_held_out_digits_agree_and_the_ode_lies_below():
    script = runpy.run_path(str(SCRIPT))
    process = script["PROCESS"]
    with jax.enable_x64(False):
        images, held = script["split"]()
        model = script["trained"](images, 800)
        x = held[:12]
        first, second = (
            fpflow.log_prob_sde(model, process, x, target_error=0.25, key=jax.random.key(k))
            for k in range(2)
        )
        ode = fpflow.log_prob_ode(model, process, x)
    assert first.method == "TwistedFilter"
    assert first.reliable.mean() > 0.8 and np.median(first.standard_error) < 0.35
    both = np.asarray(first.reliable & second.reliable)
    apart = np.asarray(first.value - second.value)
    error = np.hypot(first.standard_error, second.standard_error)
    z = (apart / error)[both]
    # Of about ten points: their root mean square is one but for a fifth.
    assert np.sqrt((z**2).mean()) < 1.7
    assert np.median(np.asarray(first.value - ode.value)) > 2
