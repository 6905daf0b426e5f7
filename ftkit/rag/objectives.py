"""What joint training minimises, as functions of scores and likelihoods; the trap is in which of the two is detached.

For a question x, its answer y and candidate passages z_1..z_k: s_k is the score of z_k, computed now by both encoders
with gradient (never read from the index), p = softmax(s / temperature), and l_k = log p(y | x, z_k) by the generator,
summed over the answer's tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def rag_sequence_loss(scores: Tensor, likelihoods: Tensor, temperature: Tensor | float) -> Tensor:
    """Negative log-likelihood of the answers, the passage being a hidden variable: ``-log sum_k p_k exp(l_k)``.

    With the posterior r (see `posterior`) its gradients are ``(p - r) / temperature`` in the scores and ``-r`` in the
    likelihoods: passages that explain the answer better than the retriever expected are raised, and the generator
    learns most from those.

    Args:
        scores: (questions, candidates); ``-inf`` where a question has fewer candidates.
        likelihoods: Of the same shape, natural logarithms; any finite number at such places.
        temperature: Of the retriever's distribution.

    Returns:
        (questions,), nats.

    Source:
        RAG-Sequence (Lewis et al. 2020, arXiv:2005.11401, section 2.1).
    """
    return -torch.logsumexp(log_softmax(scores / temperature, dim=1) + likelihoods, dim=1)


def posterior(scores: Tensor, likelihoods: Tensor, temperature: Tensor | float) -> Tensor:
    """How likely each candidate is to be where the answer came from: ``softmax(log p + l)``, without gradient.

    Args:
        scores: (questions, candidates).
        likelihoods: Of the same shape.
        temperature: Of the retriever's distribution.

    Returns:
        (questions, candidates), rows summing to 1.
    """
    return (log_softmax(scores.detach() / temperature, dim=1) + likelihoods.detach()).softmax(dim=1)


def distillation_loss(
    scores: Tensor,
    likelihoods: Tensor,
    lengths: Tensor,
    temperature: Tensor | float,
    *,
    reader_temperature: float,
) -> Tensor:
    """Divergence of the retriever's distribution from what the reader found useful: ``KL(q || p)``.

    ``q = softmax(l / (|y| * reader_temperature))`` has no gradient; the gradient in the scores is
    ``(p - q) / temperature``.

    Args:
        scores: (questions, candidates); ``-inf`` where a question has fewer candidates.
        likelihoods: Of the same shape; only their values count.
        lengths: (questions,), tokens of the answers.
        temperature: Of the retriever's distribution.
        reader_temperature: Lower trusts the best passage more.

    Returns:
        (questions,), nats.

    Source:
        Perplexity distillation (Izacard et al. 2022, arXiv:2208.03299), LSR (Shi et al. 2023, arXiv:2301.12652).
    """
    target = usefulness(scores, likelihoods, lengths, reader_temperature=reader_temperature)
    log_p = log_softmax(scores / temperature, dim=1)
    # kl_div takes 0 log 0 for 0, but would still multiply a target of 0 by the -inf of a place without candidate.
    there = scores.isfinite()
    return kl_div(log_p.masked_fill(~there, 0.0), target, reduction="none").sum(dim=1)


def usefulness(scores: Tensor, likelihoods: Tensor, lengths: Tensor, *, reader_temperature: float) -> Tensor:
    """What the reader says of the candidates: ``softmax(l / (|y| * reader_temperature))``, without gradient.

    Args:
        scores: (questions, candidates); only where they are ``-inf`` counts.
        likelihoods: Of the same shape.
        lengths: (questions,), tokens of the answers.
        reader_temperature: Lower trusts the best passage more.

    Returns:
        (questions, candidates), rows summing to 1.
    """
    a_token = likelihoods.detach() / (lengths.unsqueeze(1) * reader_temperature)
    return a_token.masked_fill(~scores.isfinite(), -math.inf).softmax(dim=1)


def emdr2_loss(scores: Tensor, likelihoods: Tensor, together: Tensor, temperature: Tensor | float) -> Tensor:
    """The generator learns from all passages together, the retriever from each by itself.

    ``-log p(y | x, Z) - log sum_k p_k stopgrad(exp l_k)``.

    Args:
        scores: (questions, candidates).
        likelihoods: Of the same shape; only their values count.
        together: (questions,), log-likelihoods of the answers given all passages, with gradient.
        temperature: Of the retriever's distribution.

    Returns:
        (questions,), nats.

    Source:
        EMDR2 (Singh et al. 2021, arXiv:2106.05346, equation 4).
    """
    return rag_sequence_loss(scores, likelihoods.detach(), temperature) - together


def relative_entropy_of(weights: Tensor) -> Tensor:
    """Entropy over its maximum: 0 where one candidate has all the weight, 1 where all have the same.

    Of the posterior it should stay within 0.2 to 0.9: below, the retriever hears of one passage only; above, nothing
    tells passages apart.

    Args:
        weights: (questions, candidates), rows summing to 1; candidates that are not there have 0.

    Returns:
        (questions,).
    """
    entropy = torch.special.entr(weights).sum(dim=1)
    return entropy / math.log(max(2, weights.shape[1]))
