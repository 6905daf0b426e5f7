"""ftkit's own server answers what the target answers, refuses what it cannot follow, and keeps strangers out."""

from __future__ import annotations

import pytest

from ftkit.evaluate.speaking import Speech
from ftkit.pipeline.adapters import open_targets
from ftkit.pipeline.endpoint import verify_endpoint
from ftkit.pipeline.prompting import text_ids
from ftkit.serve.app import build_app
from tests.export.small_exports import MERGED, TOOLED, write_exports
from tests.serve.running import ask, ask_raw, events, running, said
from tests.tiny import tiny_model_folder, tiny_tokenizer

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTIONS = ["hello there", "What colour is the sky?"]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A merged export; its tokenizer puts BOS itself, and its template offers tools and insists on turns."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = tiny_tokenizer(template="{{ bos_token }}" + TOOLED, bos=True)
    base = tiny_model_folder(folder / "base", tokenizer=tokenizer)
    return write_exports(folder, base, tokenizer, exports=MERGED) / "merged"


@pytest.fixture(scope="module")
def target(export):
    return open_targets({"tuned": str(export)})["tuned"]


@pytest.fixture(scope="module")
def server(target):
    with running(build_app({"tuned": target})) as url:
        yield url


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_greedy_chat_is_what_the_target_generates(server, target, question):
    expected = target.generate([question], max_new_tokens=12)[0]

    status, document = ask(server, CHAT, said(question, max_tokens=12, model="tuned"))

    assert status == 200
    choice = document["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == expected.finish_reason
    assert document["usage"]["completion_tokens"] == expected.tokens
    assert document["model"] == "tuned"


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.5, "seed": 3, "top_p": 0.9}, {"stop": ["l", "e"]}])
def test_a_stream_is_the_answer_in_pieces(server, fields):
    body = said(QUESTIONS[1], max_tokens=16, **fields)
    whole = ask(server, CHAT, body)[1]

    chunks = events(server, CHAT, {**body, "stream_options": {"include_usage": True}})

    deltas = [choice for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content", "") for choice in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert deltas[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_completion_goes_on_with_the_text_and_keeps_its_white_space(server, target):
    ids = text_ids(target.tokenizer, "What colour")
    expected = target.speak(ids, Speech(max_new_tokens=16, strip=False))

    document = ask(server, TEXT, {"prompt": "What colour"})[1]

    assert document["choices"][0]["text"] == expected.text
    assert document["usage"] == {
        "prompt_tokens": len(ids), "completion_tokens": expected.tokens, "total_tokens": len(ids) + expected.tokens,
    }  # fmt: skip
    streamed = events(server, TEXT, {"prompt": "What colour"})
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == expected.text


def test_a_temperature_draws_and_a_seed_repeats_the_draw(server):
    def draw(**fields):
        body = said("hello there", max_tokens=12, temperature=2.0, **fields)
        return ask(server, CHAT, body)[1]["choices"][0]["message"]["content"]

    assert draw(seed=1) == draw(seed=1)
    assert len({draw() for _ in range(4)}) > 1


def test_the_token_contract_holds(server, export):
    outcome = verify_endpoint(export, server)

    assert outcome.passed, outcome.lines()
    assert outcome.method == "POST /tokenize (vLLM, SGLang)"
    assert {one.compared for one in (*outcome.conversations, *outcome.texts)} == {"tokens", "refusal"}


def test_what_is_answered_has_the_tokens_that_are_shown(server):
    body = said([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}])

    shown = ask(server, "/tokenize", body)[1]

    assert shown["count"] == len(shown["tokens"])
    assert ask(server, CHAT, {**body, "max_tokens": 1})[1]["usage"]["prompt_tokens"] == shown["count"]


def test_parts_of_text_are_one_text(server):
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]

    assert (
        ask(server, "/tokenize", said([{"role": "user", "content": parts}]))
        == ask(server, "/tokenize", said("hello there"))
    )  # fmt: skip


def test_models_are_listed_and_described(server):
    listed = ask(server, "/v1/models")[1]

    assert [(one["id"], one["max_model_len"]) for one in listed["data"]] == [("tuned", 512)]
    assert ask(server, "/v1/models/tuned")[1] == listed["data"][0]
    assert ask(server, "/health") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "words"),
    [
        (CHAT, said("a", model="other"), 404, "model", "'other' is not served here; there is tuned"),
        (CHAT, said("a", n=2, logprobs=True), 400, "n", "cannot follow n=2, logprobs=true"),
        (CHAT, said("a", presence_penalty=0.5), 400, "presence_penalty", "presence_penalty=0.5"),
        (CHAT, said("a", nonsense=1), 400, "nonsense", "nonsense=1"),
        (CHAT, said("a", prompt="b"), 400, "prompt", "prompt"),
        (TEXT, {"prompt": "a", "logprobs": 0}, 400, "logprobs", "logprobs=0"),
        (TEXT, {"prompt": ["a", "b"]}, 400, "prompt", "one text"),
        (CHAT, said("a", temperature=-1), 400, "temperature", "from 0 to 2"),
        (CHAT, said("a", temperature=True), 400, "temperature", "from 0 to 2"),
        (CHAT, said("a", top_p=0.5), 400, "top_p", "greedy without a temperature"),
        (CHAT, said("a", max_tokens=0), 400, "max_tokens", "from 1"),
        (CHAT, said("a", stop=[""]), 400, "stop", "none empty"),
        (CHAT, said("a", stream="yes"), 400, "stream", "true or false"),
        (CHAT, said("a", stream_options={"include_usage": True}), 400, "stream_options", "only with stream"),
        (CHAT, said([]), 400, "messages", "at least one"),
        (CHAT, said([{"content": "a"}]), 400, "messages[0]", "a role"),
        (CHAT, said([{"role": "user", "content": [{"type": "image_url"}]}]), 400, "messages[0].content", "type text"),
        (CHAT, said([{"role": "user", "content": "a"}] * 2), 400, "messages", "Turns must alternate."),
        (CHAT, said("a", max_tokens=512), 400, "messages", "takes 512 together"),
        (CHAT, said("a " * 600), 400, "messages", "takes 512 together"),
        ("/tokenize", {"prompt": "a", "return_token_strs": True}, 400, "return_token_strs", "cannot follow"),
        ("/tokenize", said("a", add_generation_prompt=False), 400, "add_generation_prompt", "always asked for"),
        (CHAT, [1], 400, None, "not a JSON object"),
        (CHAT, b"{", 400, None, "not JSON"),
        ("/v1/embeddings", {}, 404, None, "Not Found"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_with_the_field(server, path, body, status, param, words):
    found, document = ask(server, path, body)

    assert (found, document["error"]["param"]) == (status, param)
    assert words in document["error"]["message"]


def test_values_that_ask_for_nothing_are_taken(server):
    neutral = {"n": 1, "presence_penalty": 0.0, "logprobs": False, "response_format": {"type": "text"}, "seed": None}

    assert ask(server, CHAT, said("hello", max_tokens=2, **neutral))[0] == 200


def test_web_pages_get_nothing(server):
    assert ask(server, "/v1/models", Host="evil.example")[0] == 403
    assert ask(server, CHAT, said("hello"), Content_Type="text/plain")[0] == 415
    assert ask(server, "/v1/models", Host="localhost:8000")[0] == 200


def test_a_key_is_asked_for_everywhere_but_for_health(target):
    with running(build_app({"tuned": target}, key="right", is_private=False)) as url:
        assert [ask(url, "/v1/models", **headers)[0] for headers in (
            {}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}, {"Authorization": "Bearer right"},
        )] == [401, 401, 401, 200]  # fmt: skip
        assert ask(url, CHAT, said("hello"))[1]["error"]["code"] == "invalid_api_key"
        assert ask_raw(url, "/health")[0] == 200
