"""Errors as a user meets them: one line on standard error and an exit status."""

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..messages import one_line, visible

RESUMED = ("quickstart", "extract", "sae train", "sae encode")
"""Commands that commit blocks, or go on from what they wrote."""
COMMAND = "otoscope.command"  # in a context's `meta`: the whole name of a group's command


class OneLine(click.ClickException):
    """An error that is shown as one line without control characters."""

    def format_message(self) -> str:
        """The line."""
        return visible(self.message)


class Mistake(OneLine):
    """Something that the user can mend."""

    exit_code = 2


class Interrupted(OneLine):
    """Control-C, or a scheduler's SIGTERM."""

    exit_code = 128 + signal.SIGINT


@contextmanager
def as_one_line(debug: bool) -> Iterator[None]:
    """Turn the errors that our functions raise for users into one line each; debug: only interrupts."""
    try:
        yield
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        context = click.get_current_context()
        if context.meta.get(COMMAND, context.invoked_subcommand) in RESUMED:
            kept = "whatever is committed is kept: run the same command again to go on"
        else:
            kept = "no file is left half written"
        raise Interrupted(f"interrupted; {kept}") from stop
    except MemoryError as error:
        if debug:
            raise
        raise Mistake(f"there is not enough memory ({one_line(error)}); expected more: ask for less at once") from error
    except (ValueError, LookupError, OSError, ImportError) as error:
        if debug:
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC  # as a system says it, without a remedy
        more = "; expected free space: make room there, and run the same command again" if full else ""
        raise Mistake(one_line(error, whole=True) + more) from error
