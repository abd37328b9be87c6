"""One process at a time in a run's folder."""

import os
import pathlib

try:
    import fcntl
except ImportError:  # there are none on Windows
    fcntl = None


def locked(folder: pathlib.Path) -> int:
    """Locks a folder until the descriptor that is returned is closed, or the process ends in any way.

    **Raises:** `ValueError` where another process, or another run of this one, holds it.
    """
    if fcntl is None:
        return os.open(os.devnull, os.O_RDONLY)
    # The folder itself: a file for the lock would stay behind and look like one that is held.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"another process is training in `run_dir` = {folder}; wait for it, or choose another "
            "folder."
        ) from error
    except OSError:
        pass  # a file system without locks, as some networks have, is no reason not to train
    return descriptor
