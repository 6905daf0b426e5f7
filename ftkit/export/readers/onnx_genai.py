# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""Runs in a process of its own, with nothing of ftkit: measure an artefact in onnxruntime-genai.

    python -P -E onnx_genai.py JOB.json OUT_FOLDER

Reads the job that ``verify_process.py`` describes and writes what that one writes, measured in the engine. With
``fixtures`` in the job, also what the engine's own tokenizer and template make of them: ``engine_texts`` and
``engine_chats``. No network: any attempt to connect ends the process.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"


def _no_network(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"verification needs no network, but {event} was called with {args[1:]}")


sys.addaudithook(_no_network)

import numpy as np  # noqa: E402
import onnxruntime_genai as og  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402


class Session:
    """One sequence in the engine.

    Args:
        model: Loaded by the engine.
        ids: Tokens to begin with.
        room: For how many more there is to be room.
    """

    def __init__(self, model, ids, room=0):
        settings = og.GeneratorParams(model)
        # The export's own search settings play no part: tokens are only appended, never searched for.
        settings.set_search_options(max_length=len(ids) + room, batch_size=1)
        self._generator = og.Generator(model, settings)
        self.append(ids)

    def append(self, ids):
        """Go on with these tokens."""
        self._generator.append_tokens(np.array([ids], dtype=np.int32))

    def logits(self):
        """Of the tokens appended last, (tokens, vocabulary), float32."""
        return np.array(self._generator.get_output("logits"), dtype=np.float32)[0]


def measure(model, job):
    """Logits at the probes' positions, top tokens everywhere, greedy continuations."""
    probes = job["probes"]
    tensors, greedy = {}, []
    for index, (ids, positions) in enumerate(zip(probes["ids"], probes["positions"], strict=True)):
        logits = Session(model, ids).logits()
        tensors[f"logits.{index}"] = np.ascontiguousarray(logits[positions])
        tensors[f"top.{index}"] = logits.argmax(axis=-1).astype(np.int32)
    for prompt in probes["prompts"]:
        session = Session(model, prompt, room=job["greedy_tokens"])
        answer: list[int] = []
        # No token stops it, as none stopped the trained model; generate_next_token would end at the first stop.
        while len(answer) < job["greedy_tokens"]:
            if answer:
                session.append(answer[-1:])
            answer.append(int(session.logits()[-1].argmax()))
        greedy.append(answer)
    return tensors, greedy


def read_texts(tokenizer, fixtures):
    """What the engine's own tokenizer and template make of the fixed texts."""
    chats = []
    for chat in fixtures["chats"]:
        try:
            chats.append(tokenizer.apply_chat_template(json.dumps(chat["messages"]), add_generation_prompt=True))
        except Exception as error:  # noqa: BLE001 - a template that the engine cannot render is a finding
            chats.append(None if chat["text"] is None else f"{type(error).__name__}: {error}")
    texts = [[int(token) for token in tokenizer.encode(entry["text"])] for entry in fixtures["texts"]]
    return {"engine_texts": texts, "engine_chats": chats}


def main():
    """Read the job, write the findings."""
    job, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    model = og.Model(job["folder"])
    tokenizer = og.Tokenizer(model)
    tensors, greedy = measure(model, job)
    settings = json.loads((Path(job["folder"]) / "genai_config.json").read_text(encoding="utf-8"))
    found = {
        "greedy": greedy,
        "greedy_text": [tokenizer.decode(np.array(row, dtype=np.int32)) for row in greedy],
        "eos_token_id": settings["model"]["eos_token_id"],
    }
    if "fixtures" in job:
        found |= read_texts(tokenizer, job["fixtures"])
    save_file(tensors, out / "logits.safetensors")
    (out / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
