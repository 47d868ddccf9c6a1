"""Options of the test suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files of tests/golden anew, instead of comparing with them; then read the diff",
    )
    parser.addoption("--examples", type=int, default=None, help="random networks to try (tests/test_random_graphs.py)")
