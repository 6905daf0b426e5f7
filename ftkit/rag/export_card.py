"""README.md of an exported system: what it is, how to ask it, and what it is held to."""

from __future__ import annotations

from ftkit.export.manifest import ExportManifest


def export_card(manifest: ExportManifest) -> str:
    """Write the card."""
    notes = manifest.notes
    index, encoder, generator, answering = (notes[key] for key in ("index", "encoder", "generator", "answering"))
    threshold = answering["threshold"]
    abstains = "every answer is given" if threshold is None else f"it abstains below a confidence of {threshold:.4f}"
    tuned = f", tuned with {generator['recipe']} ({generator['kind']})" if generator["recipe"] else ""
    licence = manifest.base.get("licence") or "not stated"
    own = ", and one of its own for questions" if encoder["own_query_encoder"] else ""
    reranker = notes["reranker"]
    reranking = f", the first {reranker['reranked']} hits ordered anew by `reranker/`" if reranker else ""
    return f"""# Answers with sources from {index["documents"]} documents

A retrieval-augmented system, exported by ftkit: generator, encoder, index and documents in one folder. Nothing
outside of it is needed, and no network.

```sh
pip install 'ftkit[rag,serve]'
ftkit verify DIR
ftkit rag ask DIR --question 'What is this about?'
ftkit serve DIR
```

| part | what it is |
|---|---|
| `generator/` | {manifest.base["name"]}{tuned}, {manifest.dtype}; terms of the base: {licence} |
| `encoder/` | {encoder["name"]}{own} |
| `index/` | {index["documents"]} documents in {index["passages"]} passages, version {index["version"]} |
| answers | {answering["mode"]} search{reranking}, at most {answering["passages"]} passages and \
{answering["max_new_tokens"]} tokens; {abstains} |

The documents' text stands in `index/` and goes wherever this folder goes. The index is one version: what was removed
or replaced before is not in it, and it cannot be changed here. To change it, change the index that it was exported
from and export again.

`verify.json` says what was checked in a fresh process: every byte (`manifest.json`), the encoder that made the index,
every passage, and that answers and citations are those that the live system gave before (`verification/`).
"""
