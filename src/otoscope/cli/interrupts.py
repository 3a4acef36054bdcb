"""SIGTERM and Control-C as a KeyboardInterrupt that is not lost.

Goal: a command that is told to stop stops. A scheduler sends its signal once, and Python drops an exception that is
raised in the callback of a weak reference or in a finaliser; some libraries swallow it.
Conventions: the interrupt is raised again every second until it is on its way out of the main thread.
"""

import signal
import sys
from types import FrameType

REPEAT_SECONDS = 1.0
HAS_TIMER = hasattr(signal, "setitimer")  # not on every system


def catch_signals() -> None:
    """Take SIGTERM for Control-C, as a scheduler means it that preempts; from the main thread only."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored, as after nohup
        signal.signal(signal.SIGINT, _interrupt)
    if HAS_TIMER:
        signal.signal(signal.SIGALRM, _interrupt_unless_under_way)


def stop_repeating() -> None:
    """Raise nothing again: the interrupt has arrived, or the command is over."""
    if HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    if HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, REPEAT_SECONDS, REPEAT_SECONDS)
    raise KeyboardInterrupt


def _interrupt_unless_under_way(_number: int, _frame: FrameType | None) -> None:
    error = sys.exc_info()[1]  # what is being handled where the main thread is now: `finally` blocks count
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt
