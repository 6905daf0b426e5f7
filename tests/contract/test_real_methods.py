"""The six main methods, with the settings that their recipes ship with, on SmolLM2-135M."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ftkit.evaluate.generation import greedy_config, without_own_settings
from ftkit.evaluate.loss import summed_loss
from ftkit.models.load import load_model
from ftkit.recipe import RECIPES
from tests.contract.cases import CPU, Case, merged_of
from tests.contract.reload_real import CASES, PROMPT, real_logits

pytestmark = pytest.mark.real
each = pytest.mark.parametrize("case", CASES, ids=[case.recipe for case in CASES])
TEXT = torch.tensor(
    [[1, 4093, 198, 2683, 314, 260, 3155, 47, 2, 198, 1, 520, 9531, 198, 504, 3155, 314, 4461, 30, 2]]
)
BATCH = {"input_ids": TEXT, "attention_mask": torch.ones_like(TEXT), "labels": TEXT.masked_fill(TEXT == 198, -100)}


@pytest.fixture(scope="module")
def trained(smollm2, tmp_path_factory):
    """For each case what three steps made of the model, and what a fresh process makes of what was saved."""
    folder = tmp_path_factory.mktemp("real")
    seen: dict[str, SimpleNamespace] = {}
    for case in CASES:
        seen[case.recipe] = _train(case, smollm2.folder, folder / case.recipe)
    command = [sys.executable, "-m", "tests.contract.reload_real", str(smollm2.folder), str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = load_file(folder / "reloaded.safetensors")
    for name, facts in seen.items():
        facts.fresh, facts.plain = logits[name], logits.get(f"plain/{name}")
    return seen


def _train(case: Case, base_folder: Path, folder: Path) -> SimpleNamespace:
    method, base = case.method(), case.base(base_folder)
    facts = SimpleNamespace(base=real_logits(base), merged=None)
    torch.manual_seed(0)
    model = method.attach(base).train()
    if method.has_own_start:
        method.start(model, TEXT.tolist(), lambda: load_model(base_folder, dtype=torch.float32, device=CPU))
    facts.at_init = real_logits(model)
    own = [value for value in model.parameters() if value.requires_grad]
    frozen = {name: value.detach().clone() for name, value in model.named_parameters() if not value.requires_grad}
    optimizer = torch.optim.AdamW(own, lr=case.as_recipe().resolved().train.learning_rate, weight_decay=0.0)
    facts.losses = []
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        loss = summed_loss(model, BATCH)
        loss.backward()
        optimizer.step()
        facts.losses.append(loss.item())
    facts.untouched = all(
        torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen
    )
    with method.float32_arithmetic(model):
        facts.logits = real_logits(model)
        facts.cached, facts.uncached = _greedy(model)
    method.save(model, folder)
    if case.merges:
        merged, in_front = merged_of(method, model, load_model(base_folder, dtype=torch.float32, device=CPU))
        facts.merged = real_logits(merged, in_front)[..., : facts.logits.shape[-1]]
    return facts


@torch.no_grad()
def _greedy(model) -> tuple[list[int], list[int]]:
    config = greedy_config([0], 6)
    config.eos_token_id = None
    with without_own_settings(model):
        ids = model.generate(input_ids=PROMPT, attention_mask=torch.ones_like(PROMPT), generation_config=config)
    plain = PROMPT.clone()
    for _ in range(6):
        best = model(input_ids=plain, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        plain = torch.cat([plain, best], dim=1)
    return ids[0].tolist(), plain[0].tolist()


def test_the_six_recipes_are_here():
    assert [case.recipe for case in CASES] == list(RECIPES)


@each
def test_its_loss_falls_and_nothing_else_moves(case, trained):
    assert trained[case.recipe].losses[-1] < 0.9 * trained[case.recipe].losses[0]
    assert trained[case.recipe].untouched


@each
def test_it_starts_from_the_base_exactly_where_it_says_so(case, trained):
    facts = trained[case.recipe]
    assert torch.equal(facts.at_init, facts.base) == case.method().exact_at_init


@each
def test_what_it_saves_gives_equal_logits_in_a_fresh_process(case, trained):
    facts = trained[case.recipe]
    torch.testing.assert_close(facts.fresh, facts.logits, atol=1e-4, rtol=0)
    assert (facts.logits - facts.base).abs().max() > 1e-2
    if case.is_peft and case.recipe != "qlora":
        torch.testing.assert_close(facts.plain, facts.logits, atol=1e-4, rtol=0)


@each
def test_a_merge_gives_the_trained_logits(case, trained):
    facts = trained[case.recipe]
    assert (facts.merged is not None) == case.merges
    if case.merges:
        torch.testing.assert_close(facts.merged, facts.logits, atol=5e-4, rtol=0)


@each
def test_generation_with_the_key_value_cache_equals_generation_without(case, trained):
    assert trained[case.recipe].cached == trained[case.recipe].uncached
