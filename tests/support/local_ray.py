"""A Ray cluster of this machine alone, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from otoscope.cluster.ray_token import make_token


@contextmanager
def local_ray(num_cpus: int = 2, num_gpus: int = 0) -> Iterator[None]:
    """Started, and ended with the block."""
    make_token()
    ray.init(
        address="local", num_cpus=num_cpus, num_gpus=num_gpus, object_store_memory=100 * 2**20,
        include_dashboard=False, log_to_driver=False, logging_level="CRITICAL",
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
