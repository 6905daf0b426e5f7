"""The losses of joint training: their values by hand, and the identities that their gradients must keep."""

from __future__ import annotations

import math

import pytest
import torch

from ftkit.rag.objectives import (
    distillation_loss,
    emdr2_loss,
    posterior,
    rag_sequence_loss,
    relative_entropy_of,
    usefulness,
)

T = 0.05


@pytest.fixture
def scores():
    torch.manual_seed(0)
    return (torch.rand(5, 4, dtype=torch.float64) * 0.2).requires_grad_()


@pytest.fixture
def likelihoods():
    torch.manual_seed(1)
    return (-3 * torch.rand(5, 4, dtype=torch.float64)).requires_grad_()


LENGTHS = torch.tensor([1, 2, 3, 4, 5])


def test_the_loss_is_the_sum_over_passages_worked_out_by_hand():
    # p = (0.8, 0.2), likelihoods exp(l) = (0.1, 0.6): 0.8 * 0.1 + 0.2 * 0.6 = 0.2.
    scores = T * torch.tensor([[0.8, 0.2]]).log()
    likelihoods = torch.tensor([[0.1, 0.6]]).log()

    assert rag_sequence_loss(scores, likelihoods, T).item() == pytest.approx(-math.log(0.2))
    # The answer came from the first by 0.08 / 0.2, from the second by 0.12 / 0.2.
    assert posterior(scores, likelihoods, T)[0].tolist() == pytest.approx([0.4, 0.6])


def test_the_gradient_in_the_scores_is_prior_minus_posterior(scores, likelihoods):
    rag_sequence_loss(scores, likelihoods, T).sum().backward()

    prior = (scores.detach() / T).softmax(dim=1)
    expected = (prior - posterior(scores, likelihoods, T)) / T
    assert (scores.grad - expected).abs().max() < 1e-6
    assert expected.abs().max() > 1


def test_the_gradient_in_the_likelihoods_is_minus_the_posterior(scores, likelihoods):
    rag_sequence_loss(scores, likelihoods, T).sum().backward()

    assert (likelihoods.grad + posterior(scores, likelihoods, T)).abs().max() < 1e-6


def test_distillation_moves_the_retriever_towards_what_the_reader_found_useful(scores, likelihoods):
    distillation_loss(scores, likelihoods, LENGTHS, T, reader_temperature=0.5).sum().backward()

    prior = (scores.detach() / T).softmax(dim=1)
    useful = (likelihoods.detach() / (LENGTHS.unsqueeze(1) * 0.5)).softmax(dim=1)
    assert (scores.grad - (prior - useful) / T).abs().max() < 1e-6
    assert likelihoods.grad is None


def test_distillation_is_zero_where_both_agree():
    likelihoods = torch.tensor([[-1.0, -2.0, -4.0]])
    agreeing = T * likelihoods / (2 * 0.5)  # p = softmax(s / T) = softmax(l / (|y| * 0.5)) = q

    loss = distillation_loss(agreeing, likelihoods, torch.tensor([2]), T, reader_temperature=0.5)

    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_emdr2_teaches_the_generator_together_and_the_retriever_one_by_one(scores, likelihoods):
    together = torch.tensor([-0.5] * 5, dtype=torch.float64, requires_grad=True)
    emdr2_loss(scores, likelihoods, together, T).sum().backward()

    prior = (scores.detach() / T).softmax(dim=1)
    assert (scores.grad - (prior - posterior(scores, likelihoods, T)) / T).abs().max() < 1e-6
    assert together.grad.tolist() == [-1.0] * 5
    assert likelihoods.grad is None


@pytest.mark.parametrize("cut", ["scores", "likelihoods"])
def test_what_is_detached_learns_nothing(scores, likelihoods, cut):
    """The fault of published code: the loss still falls, by the other part alone."""
    given = {"scores": scores, "likelihoods": likelihoods}
    given[cut] = given[cut].detach()
    rag_sequence_loss(given["scores"], given["likelihoods"], T).sum().backward()

    assert ({"scores": scores, "likelihoods": likelihoods}[cut]).grad is None


def test_a_place_without_a_candidate_counts_for_nothing(scores, likelihoods):
    missing = scores.detach().clone()
    missing[:, 3] = -math.inf
    missing.requires_grad_()
    three = scores.detach()[:, :3].clone().requires_grad_()
    values = likelihoods.detach()
    losses = {
        "rag": lambda s, given: rag_sequence_loss(s, given, T),
        "distillation": lambda s, given: distillation_loss(s, given, LENGTHS, T, reader_temperature=1.0),
    }
    for loss in losses.values():
        missing.grad = three.grad = None
        with_gap, without = loss(missing, values), loss(three, values[:, :3])
        with_gap.sum().backward()
        without.sum().backward()

        assert with_gap.tolist() == pytest.approx(without.tolist())
        assert torch.allclose(missing.grad[:, :3], three.grad) and missing.grad[:, 3].tolist() == [0.0] * 5


def test_likelihoods_of_long_answers_do_not_underflow():
    scores, likelihoods = torch.tensor([[0.1, 0.2]]), torch.tensor([[-900.0, -1000.0]])

    loss = rag_sequence_loss(scores, likelihoods, T).item()

    assert loss == pytest.approx(900 - math.log(1 / (1 + math.exp(2))), rel=1e-5)  # p of the first: 1 / (1 + e^2)
    assert posterior(scores, likelihoods, T)[0].tolist() == pytest.approx([1.0, 0.0])


def test_entropy_is_relative_to_all_being_alike():
    weights = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])

    assert relative_entropy_of(weights).tolist() == pytest.approx([1.0, 0.0, 0.5])


def test_useful_is_what_explains_the_answer_a_token(scores):
    same_a_token = torch.tensor([[-1.0, -2.0], [-2.0, -4.0]])
    found = usefulness(torch.zeros(2, 2), same_a_token, torch.tensor([1, 2]), reader_temperature=1.0)

    assert found[0].tolist() == pytest.approx(found[1].tolist())
    assert found[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)))
