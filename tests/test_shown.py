"""What is shown while something runs."""

import sys
import types

import jax.random as jr

import fpflow
from fpflow._shown import in_notebook


def test_a_notebook_gets_bars(monkeypatch, capsys):
    """IPython tells of a kernel where there is a notebook; a shell of it in a terminal has none."""
    model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
    drawn = lambda: fpflow.sample_ode(
        model, fpflow.OrnsteinUhlenbeck(), 8, num_steps=2, key=jr.key(1)
    )
    for shell, bar in ((types.SimpleNamespace(), False), (types.SimpleNamespace(kernel=1), True)):
        fake = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", fake)
        assert in_notebook() is bar
        drawn()
        assert ("sample" in capsys.readouterr().err) is bar
