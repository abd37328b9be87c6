"""Double precision and checked annotations for every test."""

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
install_import_hook("fpflow", "checker.typechecker")
