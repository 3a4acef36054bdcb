"""A serial run in the course of which something happens."""

from typing import Any

from otoscope.cluster.executor import SerialExecutor


class After(SerialExecutor):
    """The serial executor with something happening after so many blocks, and before any other begins."""

    def __init__(self, n: int, happening: Any) -> None:
        self.n, self.happening = n, happening

    def run(self, make_worker: Any, pieces: Any) -> Any:
        pieces = list(pieces)
        yield from super().run(make_worker, pieces[: self.n])
        self.happening()
        yield from super().run(make_worker, pieces[self.n :])


def interrupt() -> None:
    raise KeyboardInterrupt
