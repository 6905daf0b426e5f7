"""Text encoders: the one place where sentence-transformers is called.

Why that library and not forty lines of pooling: an encoder's folder says how it pools, normalises, projects and what
it wants in front of a query, and each of these, ignored, gives vectors that look right and rank wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ftkit.errors import DataError, MissingPartError, ModelError
from ftkit.files import sha256_json
from ftkit.models.find_encoder import EncoderFolder, encoder_prompts, find_encoder
from ftkit.models.load import UNLOADABLE, quiet_transformers
from ftkit.models.precision import default_device
from ftkit.models.weights import stored_tensors

Role = Literal["query", "document"]
Vectors = NDArray[np.float32]
TOKENS_PER_BATCH = 8192
SIMILARITIES = ("cosine", "dot")
_WRAPPERS = 2  # of a parameter's name: the module's number, and what sentence-transformers calls the model in it
AGAIN = "Fetch it again."


class Encoder:
    """A text encoder in memory, in float32, without dropout.

    Args:
        found: Its folder, checked.
        device: Where it computes; None for this machine's default.

    Raises:
        MissingPartError: sentence-transformers is not installed.
        ModelError: The folder cannot be loaded, or its vectors are not meant for cosine or dot product.
    """

    def __init__(self, found: EncoderFolder, device: torch.device | None = None) -> None:
        self.found = found
        self.module = _load(found.folder, device or default_device())
        self.tokenizer: Any = self.module.tokenizer
        self.prompts = encoder_prompts(found.folder)
        self.max_tokens = int(self.module.max_seq_length or self.tokenizer.model_max_length)
        self.similarity = str(self.module.similarity_fn_name or "cosine")
        if self.similarity not in SIMILARITIES:
            raise ModelError(
                f"{found.folder}: compares vectors by {self.similarity}; ftkit searches by cosine or dot product",
                fix="Use another encoder.",
            )
        self.width = int(self.embed(["width"], "document").shape[1])
        require_complete(found.folder, self.module, lambda: self.embed(["which weights matter"], "document"))

    def count(self, text: str, role: Role = "document") -> int:
        """Tokens of a text as the encoder reads it, its prompt and special tokens included."""
        prompted = self.prompts[role] + text
        return len(self.tokenizer(prompted, truncation=False, add_special_tokens=True, verbose=False)["input_ids"])

    def features(self, texts: Sequence[str], role: Role) -> dict[str, Tensor]:
        """Token ids and mask of some texts, (texts, longest), on the CPU.

        Raises:
            DataError: A text is longer than the encoder reads. Cut in silence, its end could never be found.
        """
        prompted = [self.prompts[role] + text for text in texts]
        found = self.tokenizer(
            prompted, padding=True, truncation=False, add_special_tokens=True, return_tensors="pt", verbose=False
        )
        longest = int(found["attention_mask"].sum(dim=1).max())
        if longest > self.max_tokens:
            raise DataError(
                f"a {role} of {longest} tokens; {self.found.portable_name} reads {self.max_tokens}",
                fix="Ask in fewer words." if role == "query" else "Index with smaller passages.",
            )
        return dict(found)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Vectors with gradient where gradients are on.

        Args:
            features: As from `features`.

        Returns:
            (texts, width), float32 (of a float64 module, float64), of unit length where the similarity is cosine.
        """
        device = next(self.module.parameters()).device
        output = self.module({name: value.to(device) for name, value in features.items()} | {"modality": "text"})
        vectors: Tensor = output["sentence_embedding"]
        vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
        return nn.functional.normalize(vectors, dim=1) if self.similarity == "cosine" else vectors

    def embed(self, texts: Sequence[str], role: Role) -> Tensor:
        """`forward` of `features`."""
        return self.forward(self.features(texts, role))

    @torch.no_grad()
    def vectors(
        self, texts: Sequence[str], role: Role, *, progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        """Vectors of many texts, embedded in batches of similar length.

        Args:
            texts: None longer than ``max_tokens``.
            role: Which prompt stands in front.
            progress: Called with texts done and texts in all.

        Returns:
            (texts, width), float32.
        """
        was_training = self.module.training
        self.module.eval()
        lengths = [self.count(text, role) for text in texts]
        result = np.zeros((len(texts), self.width if texts else 0), dtype=np.float32)
        done = 0
        try:
            for group in by_length(lengths):
                result[group] = self.embed([texts[index] for index in group], role).cpu().numpy()
                done += len(group)
                if progress is not None:
                    progress(done, len(texts))
        finally:
            self.module.train(was_training)
        return result

    def trainable_copy(self) -> Encoder:
        """Another encoder with weights of its own, equal for now: query and document sides may part in training.

        It has no dropout: a score that is drawn anew each time says less about which passage is better. What the
        vectors do not depend on, such as BERT's pooler, is frozen.
        """
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module)
        for layer in twin.module.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        twin.embed(["which weights matter"], "query").sum().backward()
        for value in twin.module.parameters():
            value.requires_grad_(value.grad is not None)
            value.grad = None
        return twin

    def save(self, folder: Path) -> None:
        """Write a sentence-transformers folder that any of its users can load."""
        with quiet_transformers():
            self.module.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


class EncoderPair:
    """The encoder of queries and the encoder of documents; one and the same unless training parted them.

    Args:
        query: Embeds questions.
        document: Embeds passages.
    """

    def __init__(self, query: Encoder, document: Encoder | None = None) -> None:
        self.query, self.document = query, document or query
        if self.query.width != self.document.width:
            raise ModelError(
                f"the query encoder gives {self.query.width} numbers a text and the document encoder "
                f"{self.document.width}",
                fix="Use two encoders of one width, trained together.",
            )

    @property
    def sha256(self) -> str:
        """Of both, in their roles: an index answers only queries of the pair that made it."""
        return sha256_json({"query": self.query.found.sha256, "document": self.document.found.sha256})

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.document.width


def load_encoder(name: str, *, device: torch.device | None = None) -> Encoder:
    """Find and load an encoder by known name, hub id or folder."""
    return Encoder(find_encoder(name), device)


def _load(folder: Path, device: torch.device) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingPartError(
            "text encoders need sentence-transformers", fix="Run: pip install 'ftkit[rag]'"
        ) from None
    # What no file holds and no vector needs, such as BERT's pooler, is drawn at random: the same each time, so that a
    # saved encoder has the same bytes.
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            module = SentenceTransformer(
                str(folder),
                device=str(device),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
        except UNLOADABLE as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be loaded as a text encoder: {first}", fix=AGAIN) from None
    return module.eval()


def require_complete(folder: Path, module: nn.Module, computed: Callable[[], Tensor]) -> None:
    """Refuse an encoder of whose weights some that decide what it computes are not in its files.

    The library fills gaps with random numbers and goes on.

    Args:
        folder: Of its files.
        module: As it was loaded.
        computed: Vectors or scores by it, with gradient.

    Raises:
        ModelError: Naming some of them.
    """
    stored = {name for file in folder.rglob("*.safetensors") for name in stored_tensors(file)}
    missing = {name: value for name, value in module.named_parameters() if not _is_stored(name.split("."), stored)}
    if not missing:
        return
    asked = {name: value.requires_grad_(True) for name, value in missing.items()}
    computed().sum().backward()
    lost = sorted(name for name, value in asked.items() if value.grad is not None)
    module.zero_grad()
    if lost:
        raise ModelError(
            f"{folder}: {len(lost)} weights that decide its numbers are in none of its files ({', '.join(lost[:3])})",
            fix=AGAIN,
        )


def _is_stored(name: Sequence[str], stored: set[str]) -> bool:
    """Whether a parameter of the loaded encoder is in its files, which lack the wrappers' names or have others."""
    if any(".".join(name[cut:]) in stored for cut in range(len(name))):
        return True
    inner = "." + ".".join(name[_WRAPPERS:])
    return len(name) > _WRAPPERS + 1 and any(one.endswith(inner) for one in stored)


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in groups of similar length, each within the token budget."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= TOKENS_PER_BATCH:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
