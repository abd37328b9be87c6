"""Several processes, on one host or on many, that work as one: `jax.distributed` connects them.

They act together where a mesh spans them all. Without such a mesh every function here does nothing,
and a process is alone, whoever else there is.
"""

import contextlib
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ._devices import automatic
from ._shown import in_notebook


class HostLost(ConnectionError):
    """Another process of the same computation ended, so this one cannot continue."""


def together(mesh: Mesh | None) -> bool:
    """Whether a mesh spans several processes."""
    return mesh is not None and mesh.is_multi_process


def is_first(mesh: Mesh | None) -> bool:
    """Whether this process writes and draws for all that share the mesh."""
    return not together(mesh) or jax.process_index() == 0


def no_bar(progress: bool | None) -> bool | None:
    """What tqdm's `disable` is: the first process alone has a bar, by default on a terminal or in a
    notebook."""
    if jax.process_index() > 0:
        return True
    if progress is None:
        return False if in_notebook() else None
    return not progress


def replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays that each process has, as whole ones on every device of the mesh."""
    if mesh is None or not together(mesh):
        return tree
    whole = NamedSharding(automatic(mesh), PartitionSpec())

    def everywhere(a):
        if not isinstance(a, jax.Array):
            return a
        parts = [jax.device_put(a, device) for device in mesh.local_devices]
        return jax.make_array_from_single_device_arrays(a.shape, whole, parts)

    return jax.tree.map(everywhere, tree)


def gathered(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays cut among the devices of the mesh, as whole ones of each process; values that a
    transformation traces stay as they are."""
    if not together(mesh):
        return tree

    def here(a):
        if isinstance(a, Tracer) or not isinstance(a, jax.Array) or a.is_fully_addressable:
            return a
        if not a.is_fully_replicated:
            return jnp.asarray(multihost_utils.process_allgather(a, tiled=True))
        return jnp.asarray(np.asarray(a))

    return jax.tree.map(here, tree)


def agreed(signal: int | None, mesh: Mesh | None) -> int | None:
    """A signal that any of the processes has seen; all must ask at the same point."""
    if not together(mesh):
        return signal
    return int(multihost_utils.process_allgather(np.int32(signal or 0)).max()) or None


def first_does(function: Callable[[], Any], mesh: Mesh | None) -> Any:
    """What `function` returns on the first process, on all of them; all raise its error, too.

    What it returns travels by pickle, from a process of the same computation.
    """
    if not together(mesh):
        return function()
    value = error = None
    if is_first(mesh):
        try:
            value = function()
        except Exception as raised:
            error = raised
    content = _from_first(_pickled(value, error))
    if error is not None:
        raise error
    value, error = pickle.loads(content)
    if error is not None:
        raise error
    return value


def _pickled(value: Any, error: Exception | None) -> bytes:
    try:
        content = pickle.dumps((value, error))
        pickle.loads(content)  # some errors are written and cannot be read
    except Exception:
        content = pickle.dumps((None, RuntimeError(f"the first process failed: {error!r}")))
    return content


def _from_first(content: bytes) -> bytes:
    """The first process's bytes, which may be as many as they like."""
    length = np.frombuffer(len(content).to_bytes(8, "little"), np.uint8)
    length = np.asarray(multihost_utils.broadcast_one_to_all(length)).tobytes()
    mine = np.zeros(int.from_bytes(length, "little"), np.uint8)
    if jax.process_index() == 0:
        mine = np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes()


def check_agreement(digests: dict[str, str], mesh: Mesh | None) -> None:
    """Refuses arguments, given by name with their SHA-256, that are not the same on all processes."""
    if not together(mesh):
        return
    mine = np.frombuffer(b"".join(bytes.fromhex(digest) for digest in digests.values()), np.uint8)
    every = multihost_utils.process_allgather(mine).reshape(-1, len(digests), 32)
    differs = (every != every[0]).any(-1)
    if differs.any():
        names = [f"`{name}`" for name, row in zip(digests, differs.T, strict=True) if row.any()]
        process = int(np.flatnonzero(differs.any(1))[0])
        raise ValueError(
            f"processes 0 and {process} have different {', '.join(names)}: with a mesh of several "
            "processes every argument must be the same on all of them."
        )


# What errors of collectives say when a process at the other end is gone.
_GONE = re.compile(r"gloo|nccl|UNAVAILABLE|coordination service|connection (closed|reset)", re.I)

# A process of its own, so that something is said even when jax aborts this one.
_WITNESS = """
import sys
last = ""
for last in sys.stdin:
    pass
sys.stderr.write(last.lstrip())
"""


@contextlib.contextmanager
def watched(mesh: Mesh | None, doing: str) -> Iterator[Callable[[str], None]]:
    """Names the loss of a process, inside: as `HostLost` where Python hears of it, and on the standard
    error where the process ends without Python, killed or aborted by jax.

    Calling what it yields says what is saved and how to go on, the end of the message.
    """
    if not together(mesh):
        yield lambda saved: None
        return
    me, advice = f"process {jax.process_index()} of {jax.process_count()}", []
    witness = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WITNESS],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pipe = witness.stdin
    assert pipe is not None

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):
            pipe.write(line + "\n")
            pipe.flush()

    def say(saved: str) -> None:
        advice[:] = [saved]
        tell(
            f"fpflow.HostLost: {me} ended while {doing}: it was killed, or jax stopped it because "
            f"another process was lost; {saved}"
        )

    say("start all processes again.")
    try:
        yield say
    except (RuntimeError, ValueError) as error:
        if not _GONE.search(str(error)):
            raise
        raise HostLost(f"{me} lost another process while {doing}; {advice[0]}") from error
    finally:
        tell("")
        with contextlib.suppress(OSError):
            pipe.close()
        witness.wait()
