"""Runs in a process of its own: imports what exports' readers import, once, then lets each script begin from there.

    python -P -E fork_server.py

Each line that comes in is a script to run: its ``argv``, folder, environment, files for what it prints, and
``timeout_s``. It runs as ``__main__`` in a fork of this process, which has nothing of ftkit and no threads. The line
that goes out is its exit status, or null where it did not end in time.
"""

import gc
import json
import os
import runpy
import signal
import sys
import time
import traceback

# As the scripts set them before they import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
# Threads do not survive a fork; libraries that start them on import look here.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

# No gguf: the converter brings a release of its own.
import safetensors.torch  # noqa: F401
import torch
import transformers.generation.utils
import transformers.models.llama.modeling_llama  # noqa: F401
from peft import PeftModel  # noqa: F401
from transformers import (  # noqa: F401
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

POLL_S = 0.002


def run_script(asked):
    """Become the script; gives its exit status."""
    for stream, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(asked[stream], os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["argv"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - as Python itself does with what a script lets through
        traceback.print_exc()
        return 1
    return 0


def wait_for(child, timeout_s):
    """The exit status as subprocess gives it; None, and the child is killed, where it did not end."""
    ends = time.monotonic() + timeout_s
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(POLL_S)


def serve(asked_lines, answers):
    """Answer each line until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C ends the tests, and with them the lines
    torch.set_num_threads(1)
    gc.freeze()  # a collection in a child would write to, and so copy, all of the memory it shares
    for line in asked_lines:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = run_script(asked)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # not by way of what this process registered for its own end
        print(json.dumps(wait_for(child, asked["timeout_s"])), file=answers, flush=True)


if __name__ == "__main__":
    # Scripts print to 1; the answers go where it led.
    serve(sys.stdin, os.fdopen(os.dup(1), "w"))
