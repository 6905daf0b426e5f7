"""A running server held to an export's token contract: each kind of server, each fault, servers that misbehave."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest

from ftkit.errors import MissingPartError, UsageError, VerificationError
from ftkit.export.token_contract import CONTRACT, make_contract
from ftkit.pipeline import endpoint as endpoint_module
from ftkit.pipeline.endpoint import moments, verify_endpoint
from ftkit.pipeline.http_server import HttpServer, is_loopback
from ftkit.pipeline.served_tokens import Counts, Tokenize, as_sent
from tests.export.small_exports import DATED, TOOLED, change_manifest, write_paper_export
from tests.pipeline.stand_ins import Engine, completions, llama_cpp, models, serving, tgi, vllm
from tests.tiny import tiny_tokenizer

# A template that writes BOS itself, as a tokenizer that adds it to plain texts needs.
WITH_BOS = "{{ bos_token }}" + TOOLED
KINDS = {
    "vllm": vllm,
    "llama.cpp": llama_cpp,
    "tgi": tgi,
    "ids beside choices": lambda engine: completions(engine, tells_ids="answer"),
    "ids in choices": lambda engine: completions(engine, tells_ids="choice"),
    "counts": completions,
    "strict counts": lambda engine: completions(engine, strict=True),
}
TITLES = {
    "vllm": "POST /tokenize (vLLM, SGLang)",
    "llama.cpp": "POST /apply-template and /tokenize (llama.cpp)",
    "tgi": "POST /chat_tokenize (text-generation-inference)",
    "ids beside choices": "the prompt's token ids in a completion of one token (vLLM, SGLang)",
    "ids in choices": "the prompt's token ids in a completion of one token (vLLM, SGLang)",
    "counts": "counts only; this server shows no tokens",
    "strict counts": "counts only; this server shows no tokens",
}
SHOW_TOKENS = [kind for kind in KINDS if "counts" not in kind]


def _tokenizer():
    return tiny_tokenizer(template=WITH_BOS, bos=True)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_paper_export(tmp_path_factory.mktemp("endpoint") / "export", _tokenizer())


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("FTKIT_OFFLINE", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def _verify(export, routes, **options):
    with serving(routes) as server:
        return verify_endpoint(export, server.url, **options)


def _one(outcome, name):
    return next(one for one in (*outcome.conversations, *outcome.texts) if one.name == name)


# Servers that do it right.


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_with_the_exports_own_template_passes(export, kind):
    outcome = _verify(export, KINDS[kind](Engine(_tokenizer())))

    assert [one.first_difference for one in outcome.failures] == []
    assert outcome.passed
    assert outcome.method == TITLES[kind]
    assert len(outcome.conversations) == len(make_contract(_tokenizer()).conversations)
    assert len(outcome.texts) == 7
    assert {one.compared for one in outcome.texts} == {"count" if "counts" in kind else "tokens"}
    # The template refuses this one, and so does the server.
    assert _one(outcome, "consecutive user turns").compared == "refusal"


def test_the_result_is_plain_json_with_the_promised_keys(export):
    outcome = _verify(export, vllm(Engine(_tokenizer(), asks=False)))
    plain = json.loads(json.dumps(outcome.to_dict()))

    assert {"passed", "endpoint", "method", "conversations"} <= set(plain)
    first = plain["conversations"][0]
    assert (first["name"], first["passed"], first["compared"]) == ("user only", False, "tokens")
    assert {"position", "expected", "served", "text", "likely"} == set(first["first_difference"])


def test_the_model_that_the_server_lists_is_asked_for(export):
    with serving(vllm(Engine(_tokenizer()), "my/model")) as server:
        outcome = verify_endpoint(export, server.url)
        bodies = [body for path, body, _ in server.asked if path == "/tokenize"]

    assert outcome.model == "my/model"
    assert {body["model"] for body in bodies} == {"my/model"}


def test_of_several_models_one_must_be_chosen(export):
    routes = vllm(Engine(_tokenizer()), "base", "tuned")
    with pytest.raises(UsageError, match="serves several models") as caught:
        _verify(export, routes)

    assert "base, tuned" in str(caught.value)
    assert _verify(export, routes, model="tuned").model == "tuned"


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_url_may_be_that_of_an_openai_client(export, ending):
    with serving(vllm(Engine(_tokenizer()))) as server:
        outcome = verify_endpoint(export, server.url + ending)

    assert outcome.passed
    assert outcome.endpoint == server.url


def test_a_path_in_front_of_the_servers_own_is_kept(export):
    routes = {f"/llm{path}": route for path, route in vllm(Engine(_tokenizer())).items()}
    with serving(routes) as server:
        assert verify_endpoint(export, f"{server.url}/llm/v1").passed


def test_without_plain_completions_texts_are_left_out_and_that_is_said(export):
    outcome = _verify(export, completions(Engine(_tokenizer()), plain=False))

    assert outcome.passed
    assert outcome.texts == ()
    assert outcome.lines()[-1] == "Plain texts were not compared: HTTP 404: Not Found"


def test_an_export_without_a_template_is_compared_by_its_texts(tmp_path):
    tokenizer = tiny_tokenizer(template=None)
    folder = write_paper_export(tmp_path / "export", tokenizer)
    outcome = _verify(folder, llama_cpp(Engine(tokenizer)))

    assert outcome.passed
    assert (len(outcome.conversations), len(outcome.texts)) == (0, 7)


# Faults, one at a time.


@pytest.mark.parametrize("kind", SHOW_TOKENS)
def test_a_missing_generation_prompt_is_named(export, kind):
    outcome = _verify(export, KINDS[kind](Engine(_tokenizer(), asks=False)))
    difference = _one(outcome, "user only").first_difference

    # <|im_start|>, ass-istan-t, and the line break
    assert difference["likely"] == "5 tokens at the end are missing, as without add_generation_prompt"
    assert difference["text"].split(": ", 1)[1] == (
        "expected … '?' <|im_end|> '\\n' <|im_start|> 'ass' 'istan' … | served … '?' <|im_end|> '\\n' (end)"
    )
    assert difference["expected"]["count"] - difference["served"]["count"] == 5


@pytest.mark.parametrize("kind", SHOW_TOKENS)
def test_a_double_bos_is_named(export, kind):
    outcome = _verify(export, KINDS[kind](Engine(_tokenizer(), adds_special=True)))
    difference = _one(outcome, "user only").first_difference

    assert difference["position"] == 1
    assert difference["text"] == (
        "token 1: expected <s> <|im_start|> 'user' '\\n' … | served <s> <s> <|im_start|> 'user' …"
    )
    assert "stands there twice" in difference["likely"]
    assert all(text.passed for text in outcome.texts)


def test_a_missing_bos_is_named(export):
    outcome = _verify(export, vllm(Engine(tiny_tokenizer(template=TOOLED, bos=True))))

    assert "the first token is missing" in _one(outcome, "user only").first_difference["likely"]


@pytest.mark.parametrize("kind", SHOW_TOKENS)
def test_forgotten_tools_are_named_and_nothing_else_differs(export, kind):
    outcome = _verify(export, KINDS[kind](Engine(_tokenizer(), takes_tools=False)))

    assert {one.name for one in outcome.failures} == {
        "tools offered", "tool call and result", "turns after a tool result"
    }  # fmt: skip
    assert _one(outcome, "tools offered").first_difference["likely"] == "the server leaves the tools out"


@pytest.mark.parametrize("kind", SHOW_TOKENS)
def test_another_template_differs_where_its_text_does(export, kind):
    other = tiny_tokenizer(template=WITH_BOS.replace("assistant\n", "assistant\n\n"), bos=True)
    difference = _one(_verify(export, KINDS[kind](Engine(other))), "user only").first_difference

    assert difference["text"].split(": ", 1)[1] == (
        "expected … 'istan' 't' '\\n' (end) | served … 'istan' 't' '\\n' '\\n' (end)"
    )
    assert difference["likely"] == "1 more tokens follow than training had"
    assert difference["position"] == difference["expected"]["count"] == difference["served"]["count"] - 1


def test_another_tokenizer_differs_in_texts_too(export):
    other = _tokenizer()
    other.add_tokens(["Hello"])
    outcome = _verify(export, vllm(Engine(other)))
    difference = _one(outcome, "Hello world").first_difference

    # The new token has the first id that the vocabulary does not have.
    assert difference["served"]["tokens"][1] == f"#{len(_tokenizer())} (not in the vocabulary)"


def test_a_template_that_lost_its_guard_differs_in_what_it_should_refuse(export):
    other = tiny_tokenizer(template=WITH_BOS.replace("raise_exception('Turns must alternate.')", "''"), bos=True)
    outcome = _verify(export, vllm(Engine(other)))

    assert [one.name for one in outcome.failures] == ["consecutive user turns"]
    text = outcome.failures[0].first_difference["text"]
    assert text.startswith("expected a refusal (Turns must alternate.) | served ")
    assert text.endswith("tokens: <s> <|im_start|> 'user' …")


def test_a_server_that_refuses_what_training_rendered_differs(export):
    strict = WITH_BOS.replace("{%- if tools %}", "{%- if tools %}{{ raise_exception('No tools here.') }}")
    outcome = _verify(export, vllm(Engine(tiny_tokenizer(template=strict, bos=True))))

    text = _one(outcome, "tools offered").first_difference["text"]
    assert text.endswith("tokens | served HTTP 400: No tools here.")
    assert len(outcome.failures) == 3


def test_counts_that_differ_are_told_as_counts(export):
    outcome = _verify(export, completions(Engine(_tokenizer(), asks=False)))
    one = _one(outcome, "user only")
    expected = next(p for p in make_contract(_tokenizer()).conversations if p.name == "user only")

    assert one.compared == "count"
    assert one.first_difference["text"] == (
        f"expected {len(expected.ids)} tokens | served {len(expected.ids) - 5} tokens"
    )


def test_people_see_the_first_difference_of_each_prompt(export):
    lines = _verify(export, vllm(Engine(_tokenizer(), takes_tools=False))).lines()

    assert lines[0].endswith(", model tuned: POST /tokenize (vLLM, SGLang)")
    assert any(line.startswith("✓ user only  ") and line.endswith(" tokens") for line in lines)
    row = next(index for index, line in enumerate(lines) if line.startswith("✗ tools offered "))
    assert ": expected " in lines[row]
    assert lines[row + 1].strip() == "the server leaves the tools out"


# Templates that write the date.


def test_a_dated_template_is_compared_at_the_servers_own_date(tmp_path):
    folder = write_paper_export(tmp_path / "export", tiny_tokenizer(template=DATED))
    outcome = _verify(folder, vllm(Engine(tiny_tokenizer(template=DATED))))

    assert outcome.passed, outcome.lines()
    assert outcome.clock.startswith("20") and not outcome.clock.startswith("2001")


def test_a_date_that_stands_nowhere_on_earth_differs(tmp_path, monkeypatch):
    folder = write_paper_export(tmp_path / "export", tiny_tokenizer(template=DATED))
    monkeypatch.setattr(endpoint_module, "moments", lambda now: [now.replace(year=now.year - 2)])
    outcome = _verify(folder, vllm(Engine(tiny_tokenizer(template=DATED))))

    assert not any(one.passed for one in outcome.conversations)
    assert all(one.passed for one in outcome.texts)


@pytest.mark.parametrize(
    ("zone", "now", "dates"),
    [
        # At 09:00 in UTC it is 21:00 the day before at the western end, 23:00 of the same day at the eastern one.
        ("UTC", datetime(2026, 3, 10, 9, tzinfo=UTC), ["2026-03-10", "2026-03-09"]),
        # At 11:30 both ends have other dates: 23:30 of the day before, 01:30 of the day after.
        ("UTC", datetime(2026, 3, 10, 11, 30, tzinfo=UTC), ["2026-03-10", "2026-03-09", "2026-03-11"]),
        # Twelve hours east it is already the next day, and that comes first.
        ("XXX-12", datetime(2026, 3, 10, 13, tzinfo=UTC), ["2026-03-11", "2026-03-10"]),
    ],
)
def test_every_date_that_stands_somewhere_on_earth_is_accepted_ours_first(monkeypatch, zone, now, dates):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert [moment.date().isoformat() for moment in moments(now)] == dates
    finally:
        monkeypatch.undo()
        time.tzset()


# Servers that are no such servers, or none at all.


def test_a_server_that_shows_nothing_is_said_to_with_every_way_that_was_tried(export):
    with pytest.raises(MissingPartError, match="shows neither the tokens") as caught:
        _verify(export, models("x"))

    for title in dict.fromkeys(TITLES.values()):
        assert f"{title}: HTTP 404: Not Found" in str(caught.value)


RUBBISH = {
    "no JSON": lambda _: (200, b"<html>hello</html>"),
    "nothing": lambda _: (200, b""),
    "another shape": lambda _: ["a", "list"],
    "texts for ids": lambda _: {"tokens": ["a"], "usage": {"prompt_tokens": "3"}},
    "truths for ids": lambda _: {"tokens": [True], "usage": {"prompt_tokens": True}},
    "negative ids": lambda _: {"tokens": [-1], "usage": {"prompt_tokens": -1}},
    "lists of lists": lambda _: {"tokens": [[1, 2]], "usage": {"prompt_tokens": [3]}},
    "no tokens": lambda _: {"tokens": [], "prompt": 5, "tokenize_response": [1], "usage": {"prompt_tokens": 0}},
    "an inner fault": lambda _: (500, {"error": "boom"}),
    "deep nesting": lambda _: (200, b"[" * 100_000),
}
PATHS = ("/tokenize", "/apply-template", "/chat_tokenize", "/v1/chat/completions", "/v1/completions", "/v1/models")


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_is_never_taken_for_tokens(export, kind):
    with pytest.raises(MissingPartError, match="shows neither the tokens"):
        _verify(export, dict.fromkeys(PATHS, RUBBISH[kind]))


def test_rubbish_in_one_way_leads_to_the_next(export):
    routes = {
        **completions(Engine(_tokenizer())),
        "/tokenize": RUBBISH["no JSON"],
        "/chat_tokenize": RUBBISH["nothing"],
    }

    assert _verify(export, routes).method == Counts.title


def test_rubbish_after_a_good_beginning_is_a_difference(export):
    routes = vllm(Engine(_tokenizer()))
    good = routes["/tokenize"]
    routes["/tokenize"] = lambda body: good(body) if "Hello!" in json.dumps(body) else {"tokens": None}
    outcome = _verify(export, routes)

    assert _one(outcome, "user only").passed
    assert _one(outcome, "digits").first_difference["text"].endswith("| served its answer has no list of token ids")


def test_nobody_there_is_told_at_once(export):
    with serving({}) as gone:
        pass
    with pytest.raises(MissingPartError, match=r"no server answers there: .*refused"):
        verify_endpoint(export, gone.url)


def test_a_server_that_hangs_is_given_up(export):
    def hang(handler, path):
        time.sleep(1.5)
        return False

    started = time.monotonic()
    with serving({}, write=hang) as server, pytest.raises(MissingPartError, match=r"no answer within 0\.3 s"):
        verify_endpoint(export, server.url, timeout_s=0.3)
    assert time.monotonic() - started < 4


def test_a_host_that_never_takes_the_connection_is_given_up(export, monkeypatch):
    def never(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr("socket.create_connection", never)
    with pytest.raises(MissingPartError, match=r"no answer within 2 s"):
        verify_endpoint(export, "http://127.0.0.1:9", timeout_s=2)


def test_a_server_that_drips_is_given_up_too(export):
    def drip(handler, path):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
        return True

    started = time.monotonic()
    with serving({}, write=drip) as server, pytest.raises(MissingPartError, match=r"no answer within 0\.5 s"):
        verify_endpoint(export, server.url, timeout_s=0.5)
    assert time.monotonic() - started < 3


def test_a_server_that_hangs_up_is_no_server(export):
    def hang_up(handler, path):
        handler.wfile.close()
        return True

    with serving({}, write=hang_up) as server, pytest.raises(MissingPartError, match="no server answers there"):
        verify_endpoint(export, server.url)


def test_an_endless_answer_is_cut(export, monkeypatch):
    monkeypatch.setattr("ftkit.pipeline.http_server.MAX_ANSWER_BYTES", 100_000)
    with pytest.raises(MissingPartError, match="more than 100000 bytes"):
        _verify(export, dict.fromkeys(PATHS, lambda _: (200, b" " * 300_000)))


def test_a_server_that_is_still_loading_is_not_judged(export):
    routes = {"/v1/models": lambda _: (503, {"error": {"message": "Loading model"}})}
    with pytest.raises(MissingPartError, match="is not ready: HTTP 503: Loading model"):
        _verify(export, routes)


def test_redirects_are_shown_and_not_followed(export):
    with serving(vllm(Engine(_tokenizer()))) as elsewhere:

        def redirect(handler, path):
            handler.send_response(307)
            handler.send_header("Location", elsewhere.url + path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        with serving({}, write=redirect) as server, pytest.raises(MissingPartError, match="HTTP 307, a redirect to"):
            verify_endpoint(export, server.url)
        assert elsewhere.asked == []


# Keys, addresses, and what is forbidden.


def test_the_key_is_sent_and_never_shown(export, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    with serving(vllm(Engine(_tokenizer()))) as server:
        outcome = verify_endpoint(export, server.url, api_key_env="MY_KEY")

    assert {headers["Authorization"] for _, _, headers in server.asked} == {"Bearer s3cret"}
    assert "s3cret" not in json.dumps(outcome.to_dict())


def test_without_a_key_none_is_sent(export):
    with serving(vllm(Engine(_tokenizer()))) as server:
        verify_endpoint(export, server.url)

    assert not any("Authorization" in headers for _, _, headers in server.asked)


def test_a_server_that_wants_a_key_says_how_to_give_one(export):
    with pytest.raises(UsageError, match="--api-key-env"):
        _verify(export, {"/v1/models": lambda _: (401, {"error": "Unauthorized"})})


def test_a_closed_list_of_models_does_not_end_it(export):
    routes = {**vllm(Engine(_tokenizer())), "/v1/models": lambda _: (403, {"error": "Forbidden"})}
    outcome = _verify(export, routes)

    assert outcome.passed
    assert outcome.model is None


@pytest.mark.parametrize("value", [None, "", "two\nlines", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused(monkeypatch, value):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UsageError, match="--api-key-env MY_KEY"):
        HttpServer("http://127.0.0.1:1", api_key_env="MY_KEY")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000", "is not the URL of an HTTP server"),
        ("127.0.0.1:8000", "is not the URL of an HTTP server"),
        ("ftp://127.0.0.1", "is not the URL of an HTTP server"),
        ("http://", "is not the URL of an HTTP server"),
        ("", "is not the URL of an HTTP server"),
        ("http://127.0.0.1:99999", "Port out of range"),
        ("http://127.0.0.1:x", "Port could not be cast"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://host/?a=b", "more than a host, a port and a path"),
        ("http://host/ a", "white space"),
    ],
)
def test_a_bad_url_is_a_mistake_of_the_call(export, url, words):
    with pytest.raises(UsageError, match=words) as caught:
        verify_endpoint(export, url)
    assert "http://127.0.0.1:8000" in str(caught.value)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="--api-key-env") as caught:
        HttpServer("http://me:s3cret@host:8000")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_must_be_a_time(timeout_s):
    with pytest.raises(UsageError, match="--timeout"):
        HttpServer("http://127.0.0.1:1", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("10.0.0.1", False),
        ("example.org", False), ("localhost.example.org", False), ("127.0.0.1.example.org", False),
        ("0.0.0.0", False),
    ],
)  # fmt: skip
def test_this_machine_is_told_from_others_by_name(host, here):
    assert is_loopback(host) is here


def test_offline_only_this_machine_may_be_asked(export, monkeypatch):
    monkeypatch.setenv("FTKIT_OFFLINE", "1")

    with pytest.raises(UsageError, match=r"FTKIT_OFFLINE is set, and example\.org is not this machine"):
        verify_endpoint(export, "http://example.org:8000")
    assert _verify(export, vllm(Engine(_tokenizer()))).passed


def test_a_server_on_this_machine_is_asked_without_the_proxy(export, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert _verify(export, vllm(Engine(_tokenizer()))).passed


# The export's side.


def test_an_export_without_a_contract_cannot_be_compared(tmp_path):
    folder = write_paper_export(tmp_path / "export", tiny_tokenizer())
    (folder / CONTRACT).unlink()
    change_manifest(folder, token_contract_digest=None)

    with pytest.raises(VerificationError, match="exported without a token contract"):
        verify_endpoint(folder, "http://127.0.0.1:9")


def test_a_folder_that_is_no_export_is_refused_before_anybody_is_asked(tmp_path):
    with pytest.raises(VerificationError, match=r"has no manifest\.json"):
        verify_endpoint(tmp_path, "http://127.0.0.1:9")


def test_arguments_of_tool_calls_are_sent_as_text_and_the_contract_keeps_its_own():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, "é"]}}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]

    (sent,) = as_sent(messages)

    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"a": [1, "é"]}
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == {"a": [1, "é"]}


def test_special_tokens_are_left_to_the_template_in_chats_and_to_the_tokenizer_in_texts(export):
    with serving(vllm(Engine(_tokenizer()))) as server:
        assert verify_endpoint(export, server.url).method == Tokenize.title
        bodies = [body for path, body, _ in server.asked if path == "/tokenize"]

    assert {(body["add_generation_prompt"], body["add_special_tokens"]) for body in bodies if "messages" in body} == {
        (True, False)
    }
    assert {body["add_special_tokens"] for body in bodies if "prompt" in body} == {True}
