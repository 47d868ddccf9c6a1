"""Options of the test suite, and what tests of processes share: how golden files are written anew, how many random
networks are tried, whether Ctrl-C is heeded."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# `pytest --hypothesis-profile=long tests/passes/test_random_networks.py` looks for what the fast suite does not meet.
settings.register_profile("fast", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("long", max_examples=5000, deadline=None)
settings.load_profile("fast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files of tests/golden anew, instead of comparing with them; then read the diff",
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started heeds Ctrl-C, even where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
