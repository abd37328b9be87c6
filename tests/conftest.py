"""Double precision and checked annotations for every test."""

import contextlib
import pathlib

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


_looked = [0]


@pytest.fixture(autouse=True)
def few_programs():
    """Forgets compiled programs before the kernel's limit of 65,530 maps a process ends a worker: each
    program takes several, and hundreds of tests compile thousands, those of one module among them."""
    yield
    if len(_compiled) - _looked[0] > 200:  # to count maps takes time
        _looked[0] = len(_compiled)
        maps = pathlib.Path("/proc/self/maps")
        if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
            jax.clear_caches()
