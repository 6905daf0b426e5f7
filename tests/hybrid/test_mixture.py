"""A mixture is both of its halves at its ends, and in between what can be worked out by hand."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

from ftkit.errors import ModelError, UsageError
from ftkit.evaluate.generation import answer_of
from ftkit.hybrid import mixture
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.pipeline.target import Target, open_target
from ftkit.rag.answering import RagSystem
from ftkit.rag.evaluation import evaluate_rag
from ftkit.rag.questions import AskedQuestion
from tests.hybrid.targets import QUESTION, hits, next_probs, random_target
from tests.tiny import tiny_tokenizer

GOLD = "Ada Berg"
SHARES = [math.exp(score) for score in (0.9, 0.1, 0.4)]
SHARES = [share / sum(SHARES) for share in SHARES]


@pytest.fixture
def system(parts, tuned, reader):
    return MixtureSystem(**parts, generator=reader, tuned=tuned, weight=0.5)


def said(answer):
    return answer.text, answer.abstained, answer.tokens, answer.finish_reason


def by_hand(system, ids_so_far, weight):
    """The next token's probabilities: each prompt read by itself, and summed as the formula has it."""
    alone = system.tuned_prompts.prompt(QUESTION, []).ids
    found = (1 - weight) * next_probs(system.tuned, alone + ids_so_far)
    for hit, share in zip(hits(0.9, 0.1, 0.4), SHARES, strict=True):
        ids = system.prompts.prompt(QUESTION, [hit.passage.content]).ids
        found = found + weight * share * next_probs(system.generator, ids + ids_so_far)
    return found


def nll_by_hand(system, weight):
    tail = [*system.generator.tokenizer(GOLD, add_special_tokens=False)["input_ids"], 2]
    each = [by_hand(system, tail[:place], weight)[token].log().item() for place, token in enumerate(tail)]
    return -sum(each) / len(each), len(tail)


@pytest.mark.parametrize("found", [[], hits(0.9, 0.1, 0.4)])
def test_without_weight_on_the_reader_it_is_the_tuned_model_alone(parts, system, tuned, reader, found):
    arm = RagSystem(**parts, generator=tuned, measures_confidence=True)
    mix = replace(system, weight=0.0, measures_confidence=True)

    answer, alone = mix.read(QUESTION, found), arm.read(QUESTION, [])

    assert said(answer) == said(alone) != said(RagSystem(**parts, generator=reader).read(QUESTION, found))
    assert answer.confidence == pytest.approx(alone.confidence, abs=1e-6)
    assert answer.citations == ()
    loss, expected = mix.answer_nll(QUESTION, found, GOLD), arm.answer_nll(QUESTION, [], GOLD)
    assert (loss.mean, loss.tokens) == (pytest.approx(expected.mean, abs=1e-6), expected.tokens)


@pytest.mark.parametrize("found", [[], hits(0.9)])
def test_with_all_weight_on_the_reader_of_one_passage_it_is_the_reader(parts, system, reader, found):
    arm = RagSystem(**parts, generator=reader, measures_confidence=True)
    mix = replace(system, weight=1.0, measures_confidence=True)

    answer, alone = mix.read(QUESTION, found), arm.read(QUESTION, found)

    assert said(answer) == said(alone)
    assert answer.confidence == pytest.approx(alone.confidence, abs=1e-6)
    assert answer.citations == alone.citations
    assert answer.prompt_tokens == alone.prompt_tokens
    loss, expected = mix.answer_nll(QUESTION, found, GOLD), arm.answer_nll(QUESTION, found, GOLD)
    assert (loss.mean, loss.tokens) == (pytest.approx(expected.mean, abs=1e-6), expected.tokens)


@pytest.mark.parametrize("weight", [0.3, 0.7, 1.0])
def test_every_token_is_the_likeliest_of_the_mixture_worked_out_by_hand(system, weight):
    ids: list[int] = []
    while len(ids) < system.max_new_tokens and 2 not in ids:
        ids.append(int(by_hand(system, ids, weight).argmax()))
    expected = answer_of(ids, system.generator.tokenizer, [2], 0.0)

    answer = replace(system, weight=weight).read(QUESTION, hits(0.9, 0.1, 0.4))

    assert (answer.text, answer.tokens, answer.finish_reason) == (
        expected.text, expected.tokens, expected.finish_reason
    )  # fmt: skip
    assert [one.document for one in answer.citations] == ["oum.md", "vek.md", "lir.md"]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_likelihoods_are_those_worked_out_by_hand(system, weight):
    loss = replace(system, weight=weight).answer_nll(QUESTION, hits(0.9, 0.1, 0.4), GOLD)

    # Logits of float32, some tens large, each read with others' padding: five digits are certain.
    assert (loss.mean, loss.tokens) == (
        pytest.approx(nll_by_hand(system, weight)[0], abs=2e-5),
        nll_by_hand(system, 0)[1],
    )


def test_it_is_the_logarithm_of_a_mixture_and_not_a_mixture_of_logarithms(system):
    ends = [nll_by_hand(system, weight)[0] for weight in (0.0, 1.0)]
    loss = system.answer_nll(QUESTION, hits(0.9, 0.1, 0.4), GOLD)

    assert loss.mean < sum(ends) / 2 - 0.05


def test_its_probabilities_sum_to_one_at_every_token(system, monkeypatch):
    seen, mixed = [], mixture.mixed

    def spy(log_probs, log_weights):
        seen.append(mixed(log_probs, log_weights))
        return seen[-1]

    monkeypatch.setattr(mixture, "mixed", spy)
    answer = system.read(QUESTION, hits(0.9, 0.1, 0.4))

    assert len(seen) == answer.tokens
    assert [one.exp().sum().item() for one in seen] == pytest.approx([1.0] * len(seen), abs=1e-12)


def test_the_order_of_the_passages_does_not_matter(system):
    found = hits(0.9, 0.1, 0.4)
    answer, other = system.read(QUESTION, found), system.read(QUESTION, found[::-1])

    assert said(answer) == said(other)
    losses = [system.answer_nll(QUESTION, some, GOLD).mean for some in (found, found[::-1])]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


def test_a_temperature_says_how_much_the_best_passage_counts(system):
    found = hits(0.9, 0.1, 0.4)
    sure, best = replace(system, temperature=1e-3), replace(system, passages=1)
    alike, equal = replace(system, temperature=1e6), hits(0.5, 0.5, 0.5)

    assert sure.answer_nll(QUESTION, found, GOLD).mean == pytest.approx(
        best.answer_nll(QUESTION, found[:1], GOLD).mean, abs=1e-5
    )
    assert alike.answer_nll(QUESTION, found, GOLD).mean == pytest.approx(
        system.answer_nll(QUESTION, equal, GOLD).mean, abs=1e-5
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mistral", "qwen3"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_prompts_read_together_are_answered_as_alone(parts, family, weight):
    tuned, reader = random_target(5, family), random_target(6, family)
    system = MixtureSystem(**parts, generator=reader, tuned=tuned, weight=weight)
    found = [("Who?", []), (QUESTION, hits(0.9, 0.1, 0.4)), ("What is made in Lir?", hits(0.2, 0.3))]

    together = system.read_together(found)
    one_by_one = [system.read(question, some) for question, some in found]

    assert list(map(said, together)) == list(map(said, one_by_one))
    assert len({answer.text for answer in together}) == 3
    arms = {0.0: (tuned, False), 1.0: (reader, True)}
    if weight in arms:
        target, passages = arms[weight]
        arm = RagSystem(**parts, generator=target)
        single = [(question, some[:1] if passages else []) for question, some in found]
        assert list(map(said, system.read_together(single))) == list(map(said, arm.read_together(single)))


@pytest.mark.parametrize("config", [PrefixTuningConfig, PromptTuningConfig])
def test_a_soft_prompt_in_front_of_the_text_is_read_once(parts, reader, config):
    base = random_target(5)
    model = get_peft_model(base.model, config(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.normal_(std=2.0)
    soft = replace(base, model=model, pads_prompts=False)
    system = MixtureSystem(**parts, generator=soft, tuned=soft, weight=0.0)
    found = [("Who?", hits(0.9)), (QUESTION, hits(0.9))]

    for weight, given in ((0.0, 0), (1.0, 1)):
        mix, arm = replace(system, weight=weight), RagSystem(**parts, generator=soft)
        same = [arm.read(question, some[:given]) for question, some in found]
        assert list(map(said, mix.read_together(found))) == list(map(said, same))
        assert mix.answer_nll(QUESTION, found[1][1], GOLD).mean == pytest.approx(
            arm.answer_nll(QUESTION, found[1][1][:given], GOLD).mean, abs=1e-6
        )


def test_two_adapters_on_one_model_are_mixed_as_two_models(parts):
    def adapted(model, name, seed):
        torch.manual_seed(seed)
        for key, weight in model.named_parameters():
            if f".{name}." in key:
                with torch.no_grad():
                    weight.normal_(std=0.3)

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    base = random_target(6)
    shared = get_peft_model(base.model, config, "default")
    shared.add_adapter("adapter1", config)
    adapted(shared, "default", 1)
    adapted(shared, "adapter1", 2)
    targets = [
        replace(base, model=shared.eval(), choose=functools.partial(shared.set_adapter, name))
        for name in ("default", "adapter1")
    ]
    apart = []
    for seed in (1, 2):
        model = get_peft_model(random_target(6).model, config, "default")
        adapted(model, "default", seed)
        apart.append(replace(base, model=model.eval()))
    one, two = (MixtureSystem(**parts, generator=pair[0], tuned=pair[1], weight=0.5) for pair in (targets, apart))

    assert said(one.read(QUESTION, hits(0.9, 0.1, 0.4))) == said(two.read(QUESTION, hits(0.9, 0.1, 0.4)))
    assert one.answer_nll(QUESTION, hits(0.9), GOLD).mean == two.answer_nll(QUESTION, hits(0.9), GOLD).mean
    assert one.identity == two.identity
    assert replace(one, generator=targets[1], tuned=targets[0]).identity != one.identity


def test_a_passage_that_there_is_no_room_for_is_left_out_and_not_cited(parts):
    target = random_target(7, max_position_embeddings=150)
    system = MixtureSystem(**parts, generator=target, tuned=target, weight=0.5)
    short, long, last = hits(0.9, 0.1, 0.4)
    text = "word " * 200
    long = replace(long, passage=replace(long.passage, text=text, end=len(text)))

    answer = system.read("Who?", [short, long, last])

    assert [one.document for one in answer.citations] == ["oum.md"]
    assert said(answer) == said(system.read("Who?", [short]))
    nothing = system.read("Who?", [long])
    assert (nothing.citations, said(nothing)) == ((), said(system.read("Who?", [])))


def test_explaining_asks_the_mixture_without_passages(system):
    answer, why = system.explain("mayor bridge paper")

    assert why.without == system.read("mayor bridge paper", []).text
    assert why.given == len(answer.citations) == 3


def test_models_of_different_tokens_are_refused(parts, tuned, reader):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zyzzyva"])
    with pytest.raises(ModelError, match=r"different vocabularies.* 1 tokens have another number or none"):
        MixtureSystem(**parts, generator=reader, tuned=replace(tuned, tokenizer=tokenizer), weight=0.5)
    with pytest.raises(ModelError, match=r"ends answers with the tokens \[2\], the reader with \[0, 2\]"):
        MixtureSystem(**parts, generator=replace(reader, stop_token_ids=[0, 2]), tuned=tuned, weight=0.5)


@pytest.mark.parametrize("values", [{"weight": 1.5}, {"weight": 0.5, "temperature": 0.0}])
def test_a_weight_is_a_share_and_a_temperature_above_zero(parts, tuned, reader, values):
    with pytest.raises(UsageError, match=r"weight 1\.5|temperature 0"):
        MixtureSystem(**parts, generator=reader, tuned=tuned, **values)


def test_it_is_evaluated_like_any_other_and_its_answers_are_kept_under_its_own_name(system, tmp_path):
    questions = [
        AskedQuestion(question=QUESTION, answers=(GOLD,), documents=("oum.md",)),
        AskedQuestion(question="What does Lir make?", answers=("paper",), documents=("lir.md",)),
    ]
    cache = tmp_path / "cache.jsonl"
    found = evaluate_rag(system, questions, cache=cache)

    losses = [system.answer_nll(one.question, system.retrieve(one.question), one.answers[0]) for one in questions]
    expected = sum(loss.mean * loss.tokens for loss in losses) / sum(loss.tokens for loss in losses)
    assert found.values["nll"] == pytest.approx(expected, rel=1e-9)
    assert all(outcome.measured.confidence is not None for outcome in found.outcomes if outcome.measured.said)
    assert found.settings["generator_sha256"] == system.identity
    others = [
        system,
        replace(system, weight=0.4),
        replace(system, temperature=2.0),
        replace(system, tuned=system.generator),
        RagSystem(**{name: getattr(system, name) for name in ("index", "encoders", "generator", "mode")}),
    ]
    assert len({one.identity for one in others}) == len(others)
    evaluate_rag(system, questions, cache=cache)
    assert len(cache.read_text().splitlines()) == 2
    evaluate_rag(others[1], questions, cache=cache, together=2)
    assert len(cache.read_text().splitlines()) == 4


@pytest.mark.real
def test_on_a_real_model_the_ends_are_the_halves(parts, smollm2):
    target: Target = open_target(str(smollm2.folder))
    system = MixtureSystem(**parts, generator=target, tuned=target, weight=0.0)
    arm = RagSystem(**parts, generator=target)
    for question in ("Who is mayor of Oum?", "What is the bridge of Vek made of?", "What does Lir make?"):
        found = arm.retrieve(question)[:1]
        for weight, given in ((0.0, []), (1.0, found)):
            mix = replace(system, weight=weight)
            assert said(mix.read(question, found)) == said(arm.read(question, given))
            assert mix.answer_nll(question, found, GOLD).mean == pytest.approx(
                arm.answer_nll(question, given, GOLD).mean, abs=1e-6
            )
