"""Engines are started with the export's own tokenizer, template and stop tokens, watched, and ended with us."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from ftkit.errors import MissingPartError, UsageError
from ftkit.serve import engines
from ftkit.serve.child import run_engine
from ftkit.serve.engines import Command, choose_engine, engine_command
from ftkit.serve.listen import Address, at_port, bind, url_of
from tests.export.small_exports import ADAPTER, write_exports, write_paper_export
from tests.tiny import tiny_model_folder, tiny_tokenizer

HERE = Address(host="127.0.0.1", port=8123)
LISTEN = ("--host", "127.0.0.1", "--port", "8123")
SERVER = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "engine"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """The base, and two LoRA adapters of it."""
    folder = tmp_path_factory.mktemp("engines")
    base = tiny_model_folder(folder / "base")
    places = [write_exports(folder / name, base, tiny_tokenizer(), exports=ADAPTER) / "adapter" for name in "ab"]
    return base, *places


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    return write_paper_export(tmp_path_factory.mktemp("paper") / "merged", tiny_tokenizer())


def test_ftkits_own_server_is_the_choice_but_for_gguf(merged, tmp_path):
    assert choose_engine("auto", {"m": str(merged)}) == "ftkit"
    assert choose_engine("auto", {"m": str(tmp_path / "m.gguf")}) == "llama-cpp"
    assert choose_engine("vllm", {"m": str(merged)}) == "vllm"
    with pytest.raises(UsageError, match="llama-cpp"):
        choose_engine("lama-cpp", {"m": str(merged)})


def test_vllm_serves_a_merged_export_under_its_name_and_hides_the_key(merged, program):
    address = Address(host="127.0.0.1", port=8123, key="sesame")

    command = engine_command("vllm", {"m": str(merged)}, address, program=program)

    assert command.argv == (program, "serve", str(merged), "--served-model-name", "m", *LISTEN)
    assert command.env == {"VLLM_API_KEY": "sesame"}


def test_vllm_serves_adapters_on_their_base_with_their_own_tokenizer_template_and_stops(adapters, program):
    base, first, second = adapters

    command = engine_command("vllm", {"x": str(first), "y": str(second)}, HERE, program=program)

    # The default rank is 16, which vLLM has kernels for.
    assert command.argv == (
        program, "serve", str(base), "--tokenizer", str(first), "--generation-config", str(first),
        "--chat-template", str(first / "chat_template.jinja"), "--enable-lora", "--max-loras", "2",
        "--max-lora-rank", "16", "--lora-modules", f"x={first}", f"y={second}", *LISTEN,
    )  # fmt: skip
    assert command.names == ("x", "y")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "not PREFIX_TUNING"),
        ({"use_dora": True}, "no DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules of its own"),
        ({"rank_pattern": {"q_proj": 600}}, "rank 600"),
    ],
)
def test_vllm_is_not_given_what_it_cannot_serve(adapters, program, tmp_path, changes, reason):
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("manifest.json", "adapter_config.json"):
        (folder / name).write_text((adapters[1] / name).read_text())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))

    with pytest.raises(UsageError, match=reason):
        engine_command("vllm", {"m": str(folder)}, HERE, program=program)


def test_llama_cpp_takes_the_file_and_its_whole_template(tmp_path, program):
    file = tmp_path / "m.gguf"
    file.touch()

    command = engine_command("llama-cpp", {"m": str(file)}, HERE, program=program)

    assert command.argv == (program, "--model", str(file), "--alias", "m", "--jinja", *LISTEN)


def test_transformers_own_server_takes_one_model_folder_without_a_key(merged, adapters, program):
    place = str(merged)
    argv = engine_command("transformers", {place: place}, HERE, program=program).argv
    assert argv == (program, "serve", place, *LISTEN)

    keyed = Address(host="127.0.0.1", port=8123, key="sesame")
    for names, address, reason in (
        ({place: place}, keyed, "knows no keys"),
        ({"m": place}, HERE, "by its folder only"),
        ({"a": place, "b": place}, HERE, "serves one model"),
        ({"m": str(adapters[1])}, HERE, "no adapter exports"),
    ):
        with pytest.raises(UsageError, match=reason):
            engine_command("transformers", names, address, program=program)


def test_an_engine_that_is_not_there_is_named_with_the_way_to_it(merged, monkeypatch):
    monkeypatch.setattr(engines.shutil, "which", lambda _: None)

    with pytest.raises(MissingPartError, match="--program"):
        engine_command("vllm", {"m": str(merged)}, HERE)


def _engine(code, *words):
    return Command(argv=(sys.executable, "-c", code, *words))


def _free_port():
    return at_port(Address(host="127.0.0.1", port=0), bind(Address(host="127.0.0.1", port=0))).port


def test_an_engine_is_waited_for_and_a_signal_reaches_it(capfd):
    port = _free_port()
    told = []

    def ready():
        told.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    code = run_engine(_engine(SERVER, str(port)), url_of("127.0.0.1", port), ready=ready)

    assert (code, told) == (5, [True])
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_engine_that_ends_by_itself_gives_its_exit_code():
    url, told = url_of("127.0.0.1", _free_port()), []

    assert run_engine(_engine("raise SystemExit(7)"), url, ready=lambda: told.append(True)) == 7
    assert run_engine(_engine("import os; os.kill(os.getpid(), 9)"), url, ready=lambda: told.append(True)) == 137
    assert told == []


def test_what_an_engine_prints_leaves_stdout_alone(capfd):
    run_engine(_engine("print('loading')"), url_of("127.0.0.1", _free_port()), ready=lambda: None)

    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "loading\n")
