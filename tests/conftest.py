"""Tests that are ended by SIGTERM tear down what they set up, as when they are ended by Ctrl-C."""

import signal


def pytest_configure() -> None:
    """Take SIGTERM as an interrupt."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
