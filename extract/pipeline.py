"""What joins the stages of a worker: threads that run ahead of each other through queues that never drop.

Goal: clips are decoded, computed, packed and written at the same time, the memory that takes is bounded, an error
ends its own block and nothing else, and no thread outlives its work.
Conventions: whoever fills a queue waits while it is full; seconds are wall time of the thread that works.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import closing, contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STAGES = ("decode", "forward", "copy", "pack", "write")


class Stopped(RuntimeError):
    """A worker was told to stop while it was at work; nothing of the piece was written."""


class Queue(Generic[Item]):
    """Hands items from one thread to one other, which lies at most `depth` items behind.

    The reader iterates; it sees the writer's exception after the items before it.
    """

    def __init__(self, depth: int):
        self._depth, self._items, self._changed = depth, deque[Item](), threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> bool:
        """Add an item, once there is room. False where nobody will read it any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._closed)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def fill(self, produce: Callable[[], Iterator[Item]]) -> None:
        """Put all that an iterator gives; it is made, and closed, in the thread that calls this."""
        error: BaseException | None = None
        try:
            with closing(produce()) as items:  # type: ignore[type-var]
                for item in items:
                    if not self.put(item):
                        break
        except BaseException as raised:  # handed to the reader, whatever it is
            error = raised
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of what waits, and of whoever waits: a reader gets `Stopped`, a writer learns that it may end."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended or self._closed)
                if self._closed:
                    raise Stopped("stopped before the block was complete; it stays pending")
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


@contextmanager
def ahead(pool: Executor, produce: Callable[[], Iterator[Item]], depth: int) -> Iterator[Queue[Item]]:
    """Run an iterator in a thread of the pool, at most `depth` items ahead of the `with` block that reads it.

    When the block ends, by whatever way, the iterator is closed in its thread, and that is waited for.
    """
    queue = Queue[Item](depth)
    job = pool.submit(queue.fill, produce)
    try:
        yield queue
    finally:
        queue.close()
        if not job.cancel():
            wait([job])


class InOrder(Generic[Item, Result]):
    """Results of a function over items in their order, computed in the threads of a pool, some items ahead.

    Begins at once, not with the first result asked for. An exception of the function is raised in its place.
    """

    def __init__(
        self, pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], depth: Callable[[], int]
    ):
        """depth: how many items may be under way or waiting; asked for each time anew."""
        self._pool, self._function, self._left, self._depth = pool, function, iter(items), depth
        self._ahead: deque[Future[Result]] = deque()
        self._fill()

    def _fill(self) -> None:
        while len(self._ahead) < max(1, self._depth()):
            try:
                item = next(self._left)
            except StopIteration:
                return
            self._ahead.append(self._pool.submit(self._function, item))

    def __iter__(self) -> Iterator[Result]:
        try:
            while self._ahead:
                result = self._ahead.popleft().result()
                self._fill()
                yield result
        finally:
            self.close()

    def close(self) -> None:
        """Forget the items that no thread has begun."""
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()


class Stopwatch:
    """Seconds of work by stage; any thread may add to them."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        with self._lock:
            self.seconds[stage] += seconds

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Add the wall time of the `with` block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)
