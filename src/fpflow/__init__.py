"""Differential equations for diffusion models: both sampling distributions, densities, and the gap."""

import ast
import pathlib

import lazy_loader

# The door stands in __init__.pyi, for type checkers and for Python alike. A name loads its room when it
# is first used, so that the command line answers --help without jax.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

_door = ast.parse(pathlib.Path(__file__).with_suffix(".pyi").read_text())
(_star,) = (node.value for node in _door.body if isinstance(node, ast.Assign))
__all__ = ast.literal_eval(_star)  # pyright: ignore[reportUnsupportedDunderAll]
