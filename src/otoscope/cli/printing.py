"""What commands print: names, labels and reasons of anybody's stores reach a terminal without control characters."""

import logging
import sys
from typing import Any

import click

from ..messages import printable


def echo(text: Any = "", err: bool = False) -> None:
    """Print text, or what `str` makes of a value, on standard output or standard error."""
    click.echo(printable(str(text)), err=err)


class PrintableFormatter(logging.Formatter):
    """Log lines, tracebacks among them, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text."""
        return printable(super().format(record))


def log_progress() -> None:
    """Log to standard error, as plain lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
