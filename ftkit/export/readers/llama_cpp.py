# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""Runs in a process of its own, with nothing of ftkit: load a GGUF in llama.cpp, and report what it does.

    python -P -E llama_cpp.py JOB.json OUT_FOLDER

JOB names the ``folder`` with model.gguf, or with adapter.gguf and then the base's ``base_gguf``; ``probes`` to
measure; and ``tokenise``: texts to cut, ``plain`` as they are and ``rendered`` by a chat template. A job with
``vocabulary_only`` names the GGUF itself in ``base_gguf``.
The arithmetic is as exact as llama.cpp's is on a CPU: float32 keys and values, no flash attention.
No network: any attempt to connect ends the process.
"""

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path


def _no_network(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"verification needs no network, but {event} was called with {args[1:]}")


sys.addaudithook(_no_network)

import llama_cpp as llama  # noqa: E402
import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

FLOAT32, ERROR = 0, 4  # GGML_TYPE_F32, GGML_LOG_LEVEL_ERROR
# llama.cpp's threads wait for each other in a busy loop: where a person has given it fewer, more are far slower.
THREADS = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
SPOKEN: list[str] = []


@llama.llama_log_callback
def _listen(level, text, _):
    """Errors are kept for the message; the rest is of no interest."""
    if level == ERROR:
        SPOKEN.append(text.decode(errors="replace").strip())


def fail(what):
    """End the process with what llama.cpp said of it."""
    raise SystemExit(": ".join([what, *SPOKEN[:1]]))


@contextlib.contextmanager
def opened(path, *, vocabulary_only):
    """A GGUF in memory."""
    options = llama.llama_model_default_params()
    options.n_gpu_layers, options.vocab_only = 0, vocabulary_only
    model = llama.llama_model_load_from_file(str(path).encode(), options)
    if not model:
        fail(f"llama.cpp cannot load {Path(path).name}")
    try:
        yield model
    finally:
        llama.llama_model_free(model)


def tokenise(vocabulary, text, *, add_special):
    """Token ids; control tokens that the text spells are those tokens, as in transformers."""
    raw = text.encode()
    room = len(raw) + 16
    ids = (llama.llama_token * room)()
    count = llama.llama_tokenize(vocabulary, raw, len(raw), ids, room, add_special, True)
    return list(ids[:count])


def spell(vocabulary, ids):
    """The text of tokens, control tokens included."""
    pieces, buffer = [], ctypes.create_string_buffer(1024)
    for token in ids:
        length = llama.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, True)
        pieces.append(buffer.raw[: max(0, length)])
    return b"".join(pieces).decode(errors="replace")


class Context:
    """A model that reads tokens and gives logits."""

    def __init__(self, model, room, adapter=None):
        options = llama.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = options.n_outputs_max = room
        options.type_k = options.type_v = FLOAT32
        options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.swa_full = True  # a model with sliding windows then keeps what lies before them, and masks it
        options.n_threads = options.n_threads_batch = THREADS
        self.width = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self.context = llama.llama_init_from_model(model, options)
        if not self.context:
            fail("llama.cpp cannot run this model")
        if adapter is not None:
            self._put_on(model, adapter)

    def _put_on(self, model, path):
        adapter = llama.llama_adapter_lora_init(model, str(path).encode())
        if not adapter:
            fail(f"llama.cpp cannot put {path.name} on this base")
        one, scale = (llama.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if llama.llama_set_adapters_lora(self.context, one, 1, scale):
            fail(f"llama.cpp cannot use {path.name}")

    def read(self, ids, start=0):
        """Logits after each token, (tokens, vocabulary); ``start`` is the first one's position, 0 to begin anew."""
        if start == 0:
            llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        batch = llama.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for index, token in enumerate(ids):
                batch.token[index], batch.pos[index] = token, start + index
                batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, True
            if llama.llama_decode(self.context, batch):
                fail("llama.cpp cannot read these tokens")
            rows = np.ctypeslib.as_array(llama.llama_get_logits(self.context), shape=(len(ids), self.width))
            return rows.copy()
        finally:
            llama.llama_batch_free(batch)


def measure(context, probes, count):
    """Logits at the probes' positions, top tokens everywhere, greedy continuations."""
    tensors, greedy = {}, []
    for index, (ids, positions) in enumerate(zip(probes["ids"], probes["positions"], strict=True)):
        logits = context.read(ids)
        tensors[f"logits.{index}"] = logits[positions]
        tensors[f"top.{index}"] = logits.argmax(-1).astype(np.int32)
    for prompt in probes["prompts"]:
        answer = [int(context.read(prompt)[-1].argmax())]
        while len(answer) < count:
            answer.append(int(context.read(answer[-1:], len(prompt) + len(answer) - 1)[0].argmax()))
        greedy.append(answer)
    return tensors, greedy


def read_vocabulary(model, wanted):
    """What llama.cpp makes of texts, which tokens end an answer, and the chat template in the GGUF."""
    vocabulary = llama.llama_model_get_vocab(model)
    template = llama.llama_model_chat_template(model, None)
    return {
        "tokenised": {
            "plain": [tokenise(vocabulary, text, add_special=True) for text in wanted["plain"]],
            "rendered": [tokenise(vocabulary, text, add_special=False) for text in wanted["rendered"]],
        },
        "template": None if template is None else template.decode(),
        "ends": [
            token
            for token in range(llama.llama_vocab_n_tokens(vocabulary))
            if llama.llama_vocab_is_eog(vocabulary, token)
        ],
    }


def main():
    """Read the job, write the findings."""
    job, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    llama.llama_log_set(_listen, ctypes.c_void_p())
    llama.llama_backend_init()
    on_base = job.get("base_gguf") is not None
    path = job["base_gguf"] if on_base else Path(job["folder"]) / "model.gguf"
    found: dict[str, object] = {}
    with opened(path, vocabulary_only=job.get("vocabulary_only", False)) as model:
        if job.get("tokenise") is not None:
            found["engine"] = read_vocabulary(model, job["tokenise"])
        if "probes" in job:
            probes, count = job["probes"], job["greedy_tokens"]
            room = max(*map(len, probes["ids"]), *(len(prompt) + count for prompt in probes["prompts"]))
            context = Context(model, room, Path(job["folder"]) / "adapter.gguf" if on_base else None)
            tensors, greedy = measure(context, probes, count)
            vocabulary = llama.llama_model_get_vocab(model)
            found |= {"greedy": greedy, "greedy_text": [spell(vocabulary, row) for row in greedy]}
            save_file(tensors, out / "logits.safetensors")
            llama.llama_free(context.context)
    (out / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
