"""Memory that the C library keeps instead of handing it back to the system at every step."""

from __future__ import annotations

import ctypes

# Options of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let glibc reuse the large blocks that each training step frees and asks for again.

    By default such a block is mapped, zeroed page by page and unmapped every time.

    Returns:
        Whether the C library took the settings; False elsewhere than on glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 64 << 20))
