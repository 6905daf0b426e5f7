"""One server and one folder of uninterrupted runs for all tests of faults."""

from __future__ import annotations

import pytest

from tests.faults.line import Line
from tests.faults.runs import Ground


@pytest.fixture(scope="session")
def line(tmp_path_factory):
    return Line(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="session")
def ground(tmp_path_factory, line):
    return Ground(tmp_path_factory.mktemp("ground"), line)
