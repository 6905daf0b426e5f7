"""AdaLoRA's ranks end where the recipe says, its penalty is the paper's, and its memory survives a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel

from ftkit.errors import RecipeError
from ftkit.methods import AdaLoRAMethod
from ftkit.models.load import load_model
from tests.contract.cases import CPU, logits_of, train_steps

LAYERS = 14  # seven in each of the two blocks
SETTINGS = {
    "target_rank": 2, "initial_rank": 4, "alpha": 8.0, "dropout": 0.0, "warmup_share": 0.1, "final_share": 0.3,
    "allocation_every": 1, "orthogonality_weight": 0.5,
}  # fmt: skip


def attached(folder, steps=10, **changes):
    method = AdaLoRAMethod(**{**SETTINGS, **changes})
    torch.manual_seed(0)
    model = method.attach(load_model(folder, dtype=torch.float32, device=CPU))
    return method, model, method.training_hooks(model, steps)


def singular_values(model):
    return {name: value.detach().flatten() for name, value in model.named_parameters() if ".lora_E." in name}


def kept(model):
    return sum(int(value.count_nonzero()) for value in singular_values(model).values())


# Ranks


def test_after_the_last_step_as_many_triplets_are_left_as_target_rank_times_layers(tiny_llama):
    _, model, hooks = attached(tiny_llama)
    assert len(singular_values(model)) == LAYERS

    train_steps(model, 10, hooks=hooks)

    assert kept(model) == 2 * LAYERS
    ranks = [int(value.count_nonzero()) for value in singular_values(model).values()]
    assert len(set(ranks)) > 1  # shared out by importance, not evenly
    assert max(ranks) <= 4


def test_ranks_stand_still_in_the_warm_up_fall_between_and_stand_still_at_the_end(tiny_llama):
    _, model, hooks = attached(tiny_llama)
    counts = []
    after = hooks.after_update

    def watched(model, step, total):
        after(model, step, total)
        counts.append(kept(model))

    hooks.after_update = watched
    train_steps(model, 10, hooks=hooks)

    # 10 % of 10 steps are the first, 30 % the last three. Between them the budget falls with the cube of the rest:
    # 28 + 28 * (1 - (step - 1) / (10 - 3 - 1)) ** 3, cut to a whole number.
    budget = [28 + int(28 * (1 - (step - 1) / 6) ** 3) for step in range(2, 8)]
    assert counts == [56, *budget, 28, 28, 28]


def test_what_is_saved_gives_the_trained_logits_wherever_peft_loads_it(tiny_llama, tmp_path):
    method, model, hooks = attached(tiny_llama)
    train_steps(model, 10, hooks=hooks)
    method.save(model, tmp_path)

    loaded = PeftModel.from_pretrained(load_model(tiny_llama, dtype=torch.float32, device=CPU), tmp_path)

    torch.testing.assert_close(logits_of(loaded), logits_of(model), atol=2e-5, rtol=0)
    pattern = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    assert sum(sum(mask) for mask in pattern.values()) == 2 * LAYERS


@pytest.mark.parametrize(("steps", "warmup", "final"), [(3, 0.4, 0.3), (2, 0.1, 0.3), (1, 0.0, 0.0)])
def test_too_few_steps_for_ranks_to_fall_in_are_refused(tiny_llama, steps, warmup, final):
    with pytest.raises(RecipeError) as caught:
        attached(tiny_llama, steps, warmup_share=warmup, final_share=final)

    assert str(caught.value) == (
        f"method: {steps} steps are too few for ranks to fall in: {round(warmup * steps)} go to the warm-up and "
        f"{round(final * steps)} to the end\n"
        "  Train longer, or lower method.warmup_share and method.final_share."
    )


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_the_fewest_steps_that_are_accepted_end_at_the_target_too(tiny_llama, steps):
    _, model, hooks = attached(tiny_llama, steps, warmup_share=0.0, final_share=0.0)

    train_steps(model, steps, hooks=hooks, total=steps)

    assert kept(model) == 2 * LAYERS


def test_cuts_that_do_not_come_every_step_end_at_the_target_too(tiny_llama):
    _, model, hooks = attached(tiny_llama, allocation_every=4)

    train_steps(model, 10, hooks=hooks)

    assert kept(model) == 2 * LAYERS


# Penalty


def test_the_penalty_is_the_mean_distance_of_the_matrices_from_orthogonal_ones(tiny_llama):
    _, model, hooks = attached(tiny_llama)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                value.zero_()  # A A' and B' B are then zero, at the distance sqrt(4) = 2 from the identity of rank 4
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        layer.lora_A["default"][0, 0] = 2.0  # A A' = diag(4, 0, 0, 0): sqrt(9 + 1 + 1 + 1)
        layer.lora_B["default"][:4] = torch.eye(4)  # B' B is the identity: 0

    # Of 28 matrices 26 are at 2, one at sqrt(12) and one at 0.
    assert hooks.penalty(model).item() == pytest.approx(0.5 * (26 * 2 + 12**0.5) / 28, rel=1e-6)


def test_the_penalty_pulls_a_towards_rows_of_length_one(tiny_llama):
    _, model, hooks = attached(tiny_llama)
    first = model.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"]
    with torch.no_grad():
        first.zero_()[:, :4] = 2 * torch.eye(4)

    hooks.penalty(model).backward()

    # Distance sqrt(4 * (4 - 1)^2) = 6; its gradient at an entry of 2: 4 * 2 * (4 - 1) / (2 * 6) = 2 * 2 * 3 / 6 = 2.
    expected = torch.zeros(4, 32)
    expected[:, :4] = 0.5 * 2 / 28 * torch.eye(4)
    torch.testing.assert_close(first.grad, expected, atol=1e-6, rtol=0)


# Memory


def test_what_it_remembers_goes_into_a_fresh_model_and_decides_the_same_cuts(tiny_llama):
    _, straight, hooks = attached(tiny_llama)
    train_steps(straight, 4, hooks=hooks)
    state = {name: value.clone() for name, value in hooks.state().items()}
    weights = {name: value.detach().clone() for name, value in straight.named_parameters()}
    _, fresh, new_hooks = attached(tiny_llama)
    fresh.load_state_dict(weights, strict=False)

    new_hooks.load_state(state)

    again = new_hooks.state()
    assert again.keys() == state.keys()
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    assert {name.partition("/")[0] for name in state} == {"exp_avg_ipt", "exp_avg_unc", "kept"}
    for model, memory in ((straight, hooks), (fresh, new_hooks)):
        one_more_step(model, memory, 5)
    ours, theirs = singular_values(straight), singular_values(fresh)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def one_more_step(model, hooks, step):
    from ftkit.evaluate.loss import summed_loss
    from tests.contract.cases import BATCH

    model.train()
    summed_loss(model, BATCH).backward()
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value -= 1e-2 * value.grad
        hooks.after_update(model, step, 10)
