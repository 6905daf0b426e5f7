"""A reader that fails for want of the machine says nothing about the export."""

from __future__ import annotations

import pytest

from ftkit.errors import ModelError, ResourceError
from ftkit.export.process import read_alone


@pytest.mark.parametrize(
    ("script", "kind", "says"),
    [
        (
            "raise OSError(28, 'No space left on device')",
            ResourceError,
            "disk is full while an export is verif",
        ),
        ("raise MemoryError", ResourceError, "memory did not suffice"),
        ("import os; os.kill(os.getpid(), 9)", ResourceError, "memory did not suffice"),
        ("raise ValueError('wrong shape')", ModelError, "wrong shape"),
    ],
)
def test_a_reader_that_lacks_disk_or_memory_is_told_from_an_export_that_fails(script, kind, says, tmp_path):
    reader = tmp_path / "reader.py"
    reader.write_text(script)

    with pytest.raises(kind, match=says), read_alone({}, reader):
        pass
