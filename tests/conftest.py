"""Double precision and checked annotations for every test."""

import contextlib

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
install_import_hook("fpflow", "checker.typechecker")

_compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: _compiled.append(seconds) if "backend_compile" in event else None
)


@pytest.fixture
def compilations():
    """A context that counts what the compiler was asked for inside it."""

    @contextlib.contextmanager
    def counting():
        before = len(_compiled)
        yield lambda: len(_compiled) - before

    return counting
