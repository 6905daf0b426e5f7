"""Runs in a process of its own, with nothing of ftkit: onnxruntime-genai's model builder, with the network closed.

python -P -E onnx_process.py ARGUMENTS OF THE BUILDER
"""

import os
import runpy
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def _no_network(event, args):  # type: ignore[no-untyped-def]
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"building needs no network, but {event} was called with {args[1:]}")


sys.addaudithook(_no_network)

if __name__ == "__main__":
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
