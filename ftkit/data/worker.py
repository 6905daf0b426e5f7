"""``python -m ftkit.data.worker``: one process that tokenises blocks for `ftkit.data.pool`.

A program of its own rather than a child of `multiprocessing`: it imports neither torch nor transformers and so takes
a fraction of their memory, a caller needs no ``if __name__ == "__main__"``, and nothing is pickled. It ends when its
input does, so it cannot outlive its caller.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import struct
import sys
import traceback
from typing import BinaryIO

from ftkit.data.block import BlockReader, BlockSettings
from ftkit.data.encode import Encoder, EncoderSettings

LENGTH = struct.Struct("<Q")


def send(stream: BinaryIO, *parts: bytes) -> None:
    """Write one message: its length, then its parts."""
    stream.write(LENGTH.pack(sum(map(len, parts))))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """Read one message; None at the end of the stream, also where it ends in the middle of one."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def main() -> None:
    """Answer messages until there are no more.

    A message is a line of JSON and, below it, the block. A line with ``settings`` says how the next blocks are read.
    The answer is what `TokenArrays.to_bytes` gives, or nothing but the text of an unexpected error after a zero byte.
    """
    # Rows leave no circles behind, and looking for some among all the remembered words costs a tenth of the time.
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller decides what ends
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not stand between answers
    sys.stdout = io.TextIOWrapper(sys.stderr.buffer)
    reader: BlockReader | None = None
    encoder: Encoder | None = None
    while (message := receive(sys.stdin.buffer)) is not None:
        head, _, lines = message.partition(b"\n")
        order = json.loads(head)
        try:
            if "encoder" in order:
                encoder = Encoder(EncoderSettings(**order["encoder"]))
            elif "settings" in order:
                assert encoder is not None, "the encoder comes first"
                reader = BlockReader(BlockSettings(encoder=encoder.settings, **order["settings"]), encoder)
            else:
                assert reader is not None, "settings come first"
                found = reader.read(lines, order["numbers"], order["name"], order["style"])
                send(answers, found.to_bytes())
                continue
            send(answers, b"{}\n")
        except Exception:  # noqa: BLE001 - told to the caller, who raises it there
            send(answers, b"\0", traceback.format_exc().encode())


if __name__ == "__main__":
    main()
