"""Ctrl-C and SIGTERM while a run is being written."""

import contextlib
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop, and saved its progress.

    **Attributes:**

    - `step`: number of steps done.
    - `checkpoint`: the file that contains them.
    - `signal`: the number of the signal.
    """

    def __init__(self, step: int, checkpoint: pathlib.Path, number: int):
        name = signal.Signals(number).name
        super().__init__(
            f"stopped by {name} after step {step}, saved in {checkpoint}; continue with `resume=True`."
        )
        self.step, self.checkpoint, self.signal = step, checkpoint, number


@contextlib.contextmanager
def caught_signals() -> Iterator[Callable[[], int | None]]:
    """Holds SIGINT and SIGTERM back: calling the result gives the number of one that came, or `None`.

    A second one acts at once. Outside the main thread, where Python takes no signals, nothing changes.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number, frame):
        del frame
        came.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else None
    finally:
        restore()
