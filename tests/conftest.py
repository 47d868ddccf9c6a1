"""Options of the test suite: how golden files are written anew, and how many random networks are tried."""

from __future__ import annotations

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
