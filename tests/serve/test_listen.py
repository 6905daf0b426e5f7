"""No server stands open by accident."""

from __future__ import annotations

import pytest

from ftkit.errors import UsageError
from ftkit.serve.listen import Address, at_port, bind, choose_address, url_of
from ftkit.serve.names import served_names


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_key(host):
    assert choose_address(host, 8000, api_key_env=None, no_api_key=False).is_private


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.3", "server.example", ""])
def test_others_do_unless_it_is_said(host):
    with pytest.raises(UsageError, match="--no-api-key"):
        choose_address(host, 8000, api_key_env=None, no_api_key=False)

    assert not choose_address(host, 8000, api_key_env=None, no_api_key=True).is_private


@pytest.mark.parametrize("value", [None, "", "two\nlines", "schlüssel", " key "])
def test_a_variable_without_a_usable_key_is_refused(monkeypatch, value):
    monkeypatch.delenv("SERVE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SERVE_KEY", value)

    with pytest.raises(UsageError, match="SERVE_KEY"):
        choose_address("0.0.0.0", 8000, api_key_env="SERVE_KEY", no_api_key=False)


def test_a_key_opens_the_way(monkeypatch):
    monkeypatch.setenv("SERVE_KEY", "sesame")

    assert choose_address("0.0.0.0", 8000, api_key_env="SERVE_KEY", no_api_key=False).key == "sesame"


def test_a_taken_port_is_said_at_once():
    first = bind(Address(host="127.0.0.1", port=0))
    first.listen()
    try:
        with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1"):
            bind(Address(host="127.0.0.1", port=first.getsockname()[1]))
    finally:
        first.close()


def test_a_free_port_is_given_to_the_engine():
    bound = bind(Address(host="127.0.0.1", port=0))
    port = bound.getsockname()[1]

    assert at_port(Address(host="127.0.0.1", port=0), bound).port == port > 0


def test_urls_are_those_of_this_machine():
    assert [url_of(host, 1) for host in ("0.0.0.0", "::", "localhost", "::1")] == [
        "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "http://[::1]:1",
    ]  # fmt: skip


def test_models_are_named_by_their_place_or_as_told(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()

    assert served_names(["runs/x/", "short=runs/y", str(odd)]) == {
        "runs/x": "runs/x/", "short": "runs/y", str(odd): str(odd),
    }  # fmt: skip


@pytest.mark.parametrize("words", [["a", "a"], ["a=x", "a=y"], ["=x"], ["a="]])
def test_a_name_stands_for_one_place(words):
    with pytest.raises(UsageError):
        served_names(words)
