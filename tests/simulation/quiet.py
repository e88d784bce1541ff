"""Thousands of injected faults make thousands of warnings, which nobody wants to read."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def quiet(level: int = logging.CRITICAL) -> Iterator[None]:
    """Print what the operator logs only from this level on."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    try:
        yield
    finally:
        structlog.configure(**before)
