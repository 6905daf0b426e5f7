"""How far an export may be from the model that was trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far an export may be from the trained model.

    Both compute in float32; what differs is the rounding of the stored weights. Measured on SmolLM2-135M (max
    |Δlogit|, mean KL): float32 2e-4 and below 1e-7; bfloat16 0.34 and 2e-4; the limits leave room for deeper models.
    nf4 and int4, on the 87 positions of tests/export/real_exports.py (max |Δlogit|, mean KL, top-1, distance to the
    trained model over that between trained model and base): nf4 21, 0.081, 0.69 and 0.33; int4 16, 0.048, 0.69 and
    0.39; one small model. Their share may be up to 1: where rounding moves the logits further than training did, the
    export is refused.
    int8: the arithmetic itself rounds every layer's activations: 3.9 and 0.045 between the live model and its own
    weights.

    In llama.cpp, measured by ``pytest -m slow tests/conformance/test_llama_cpp.py`` on SmolLM2-135M (max |Δlogit|,
    mean KL, top-1 agreement): float32 6e-5, 1e-11, 1; float16 0.043, 2e-6, 1; bfloat16 0.39, 3e-4, 0.997; q8_0 1.5,
    0.0015, 0.945; q6_k 1.6, 0.0018, 0.945; q4_k_m 4.7, 0.0087, 0.80. The limits of quantised ones are about six times
    that divergence; a tensor that is lost or stored in another's place costs whole nats. q5_k_m: 10.8, 0.136, 0.705;
    it fails. Rows of 576 are no multiple of the k-quants' 256, and what llama.cpp takes in their place (Q5_1) costs
    this model more than Q5_0 does in q4_k_m, even computed in float32 (0.106 and 0.0068).

    Attributes:
        max_abs_diff: Largest difference of one logit.
        kl_mean: Mean divergence of the next token's distribution, in nats.
        top1_agreement: Share of positions with the same most likely token.
        to_trained: The mean difference of logits to the trained model may be this share of the distance between the
            trained model and its base. 0.5: closer to the trained model than to the base by two to one. 1.0 where
            weights are quantised: that error has nothing to do with the training, and training may have been short.
    """

    max_abs_diff: float
    kl_mean: float
    top1_agreement: float
    to_trained: float = 0.5


LIMITS = {
    "float32": Limits(max_abs_diff=5e-3, kl_mean=1e-6, top1_agreement=0.995),
    "float16": Limits(max_abs_diff=0.3, kl_mean=3e-4, top1_agreement=0.98),
    "bfloat16": Limits(max_abs_diff=2.0, kl_mean=5e-3, top1_agreement=0.95),
    "int4": Limits(max_abs_diff=40.0, kl_mean=0.3, top1_agreement=0.5, to_trained=1.0),
    "nf4": Limits(max_abs_diff=40.0, kl_mean=0.3, top1_agreement=0.5, to_trained=1.0),
    "q8_0": Limits(max_abs_diff=6.0, kl_mean=0.01, top1_agreement=0.85, to_trained=1.0),
    "q6_k": Limits(max_abs_diff=6.0, kl_mean=0.01, top1_agreement=0.85, to_trained=1.0),
    "q5_k_m": Limits(max_abs_diff=15.0, kl_mean=0.05, top1_agreement=0.7, to_trained=1.0),
    "q4_k_m": Limits(max_abs_diff=15.0, kl_mean=0.05, top1_agreement=0.7, to_trained=1.0),
    "int8": Limits(max_abs_diff=15.0, kl_mean=0.2, top1_agreement=0.8),
}
