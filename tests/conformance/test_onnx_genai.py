"""SmolLM2-135M, tuned and exported: onnxruntime-genai's own search gives the text that the live model gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ftkit.export.verify import verify_export
from ftkit.export.write import write_export
from tests.export.real_exports import shop_trained

og = pytest.importorskip("onnxruntime_genai", reason="the engine that is compared with")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]
NEW_TOKENS = 24  # as many as the probes' greedy answers have


@pytest.fixture(scope="module")
def trained(smollm2):
    return shop_trained(smollm2)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "onnx"
    write_export(trained, "onnx", "auto", folder)
    return folder


def test_the_export_passes_its_own_verification(folder):
    assert verify_export(folder).failures == []


def test_the_engines_own_greedy_search_gives_the_live_models_text(trained, folder):
    model = og.Model(str(folder))
    stops = json.loads((folder / "genai_config.json").read_text())["model"]["eos_token_id"]
    stops = [stops] if isinstance(stops, int) else stops

    for prompt, wanted in zip(trained.probes.prompts, trained.probes.greedy, strict=True):
        settings = og.GeneratorParams(model)
        settings.set_search_options(max_length=len(prompt) + NEW_TOKENS, do_sample=False)
        generator = og.Generator(model, settings)
        generator.append_tokens(np.array([prompt], dtype=np.int32))
        answer = []
        while not generator.is_done():
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
        end = next((index + 1 for index, token in enumerate(wanted) if token in stops), len(wanted))
        # The live model is not stopped; the engine's search is, and may or may not hand out the stop itself.
        text = trained.tokenizer.decode(answer, skip_special_tokens=True)
        assert text == trained.tokenizer.decode(wanted[:end], skip_special_tokens=True)
        assert len(answer) >= end - 1 > 0
