"""The table of methods and engines, printed when its tests have run."""

from __future__ import annotations

import pytest

CELLS: dict[tuple[str, str], str] = {}


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter) -> None:
    if not CELLS:
        return
    methods = list(dict.fromkeys(method for method, _ in CELLS))
    engines = list(dict.fromkeys(engine for _, engine in CELLS))
    terminalreporter.section("methods and engines")
    terminalreporter.write_line("| method | " + " | ".join(engines) + " |")
    terminalreporter.write_line("|---" * (len(engines) + 1) + "|")
    for method in methods:
        row = [CELLS.get((method, engine), "not run") for engine in engines]
        terminalreporter.write_line(f"| {method} | " + " | ".join(row) + " |")
