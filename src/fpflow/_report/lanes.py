"""Two sections at a time: what one of them compiles, another's computation does not wait for."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

# What JAX is told for one thread alone, such as by `with jax.enable_x64(True)`.
_OF_A_THREAD = (
    "enable_x64",
    "default_device",
    "default_matmul_precision",
    "default_prng_impl",
    "threefry_partitionable",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "debug_nans",
    "debug_infs",
    "disable_jit",
)


@contextlib.contextmanager
def second_lane() -> Iterator[Callable[..., Future]]:
    """`aside(function, *arguments)` within the block: a call in a second thread, one after the other,
    under the caller's settings of JAX. The block ends when all of them have, or at the first error."""
    told = {name: getattr(jax.config, f"jax_{name}") for name in _OF_A_THREAD}

    def inherited(function: Callable[..., Any], *arguments: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for name, value in told.items():
                stack.enter_context(getattr(jax, name)(value))
            return function(*arguments)

    with ThreadPoolExecutor(1, "fpflow-report") as pool:
        try:
            yield lambda function, *arguments: pool.submit(inherited, function, *arguments)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
