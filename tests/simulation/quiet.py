"""The simulation's operator says only what a person must see: warnings of a thousand injected faults are not."""

import logging

import structlog


def hush(level: int = logging.CRITICAL) -> None:
    """Print what the operator logs only from this level on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
