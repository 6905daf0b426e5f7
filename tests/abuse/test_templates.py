"""Hostile templates: none reaches Python's insides, and none takes endless time or memory, wherever it comes from."""

from __future__ import annotations

import datetime
import resource
import time

import pytest

from ftkit.data.chat import ChatTemplate, RenderFault
from ftkit.data.column_template import ColumnTemplate, TemplateFault
from ftkit.data.render import render_chat
from ftkit.data.sample import Turn
from ftkit.errors import FtkitError
from ftkit.models.tokenizer import load_tokenizer
from tests.cli.running import ftkit, write_recipe
from tests.tiny import tiny_tokenizer, write_rows

TURNS = (Turn(role="user", content="hi"), Turn(role="assistant", content="yo"))
GROW = "{% set n = namespace(x='ab') %}{% for i in range(60) %}"
BOMBS = {
    "a list without end": "{{ range(10**12)|list }}",
    "a text of ten gigabytes": "{{ 'a' * 10**10 }}",
    "a constant text of ten gigabytes": "{{ 'a' * 10000000000 }}",
    "a list of ten billion": "{{ [1] * 10**10 }}",
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "a macro that calls itself for ever": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop in itself": "{% for x in [1, 1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
    "doubling with ~": GROW + "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling with +": GROW + "{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling a list": GROW.replace("'ab'", "[1]") + "{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling in a block": GROW + "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "squaring": GROW.replace("'ab'", "3") + "{% set n.x = n.x * n.x %}{% endfor %}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "a list of long texts": (
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = n.x + ['a' * 99999] %}{% endfor %}"
    ),
    "its own text again and again": "{% for i in range(99999) %}" + "x" * 9000 + "{% endfor %}",
    "center, the filter": "{{ 'a'|center(1000000000) }}",
    "center, the method": "{{ 'a'.center(1000000000) }}",
    "center through map": "{{ ['a']|map('center', 1000000000)|list }}",
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a wide field": "{{ '{:>1000000000}'.format(1) }}",
    "a field as wide as told": "{{ '{:>{w}}'.format(1, w=1000000000) }}",
    "a number as wide as told": "{{ '%*d'|format(1000000000, 1) }}",
    "join, the method": "{{ ('a' * 999999).join(range(99999)|map('string')) }}",
    "join, the filter": "{{ range(99999)|map('string')|join('a' * 999999) }}",
    "replace, the method": "{{ ('a' * 999999).replace('a', 'b' * 99999) }}",
    "replace, the filter": "{{ ('a' * 999999)|replace('a', 'b' * 99999) }}",
    "indent": "{{ ('\n' * 9999999)|indent(1000) }}",
    "indent by a text": "{{ ('\n' * 999999)|indent(' ' * 999999) }}",
    "indented JSON": "{{ [[1]]|tojson(indent=1000000000) }}",
    "slices": "{{ [1]|slice(10000000000)|list }}",
    "rounding": "{{ 1.5|round(1000000000) }}",
    "bytes": "{{ (1).to_bytes(10000000000, 'big') }}",
    "chatter": "{{ lipsum(n=1000000) }}",
}
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ messages|map(attribute='__class__')|map(attribute='__base__')|list }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '%s'|format(''.__class__) }}",
    "{{ cycler.__init__.__globals__.os.mkdir('made') }}",
    "{{ cycler('a').__init__.__globals__['os'].mkdir('made') }}",
    "{{ joiner.__init__.__globals__.os.mkdir('made') }}",
    "{{ namespace.__init__.__globals__.os.mkdir('made') }}",
    "{{ namespace(__class__=1) }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ lipsum.__globals__.os.mkdir('made') }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ strftime_now.__self__.__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ (messages|list).append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{% import 'os' as os %}{{ os.mkdir('made') }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'os' import mkdir %}{{ mkdir('made') }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
    "{{ ''['__class__'] }}",
]
LEAKS = ("<class", "class '", "module", "builtin", "root:", "subclasses")


def by_ftkit(text: str) -> str:
    return ChatTemplate(text, {}, datetime.date(2026, 1, 1)).render(TURNS, ask=True)[0]


def by_transformers(text: str) -> str:
    return render_chat(tiny_tokenizer(template=text), TURNS, ask=True)


@pytest.mark.parametrize("render", [by_ftkit, by_transformers])
@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_bursts(text, render):
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(RenderFault):
        render(text)
    assert time.process_time() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 20, "KiB: two GiB"


@pytest.mark.parametrize("render", [by_ftkit, by_transformers])
@pytest.mark.parametrize("text", ESCAPES)
def test_an_escape_gets_nowhere(text, render, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        written = render(text)
    except RenderFault:
        written = ""

    assert not any(leak in written for leak in LEAKS), written
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("render", [by_ftkit, by_transformers])
def test_what_templates_do_all_the_time_is_left_to_them(render):
    text = (
        "{% set n = namespace(x='') %}{% for m in messages %}{% set n.x = n.x + m.role ~ ':' %}"
        "{{ loop.index }}/{{ loop.length }}{{ '.' if loop.last }}{% endfor %} {{ n.x }}"
        " {{ messages|map(attribute='role')|join(', ') }} {{ 'a-b'.replace('-', '+')|upper }}"
        " {% set kept %}<{{ messages|length }}>{% endset %}{{ kept }} {{ '%s-%03d'|format('a', 7) }}"
        " {{ '{:>4}'.format('b') }} {{ 'x\ny'|indent(2) }} {{ {'a': 1}|tojson(indent=2) }}"
    )

    assert render(text) == ('1/22/2. user:assistant: user, assistant A+B <2> a-007    b x\n  y {\n  "a": 1\n}')


def test_ten_thousand_messages_are_within_the_limits():
    text = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content|trim + '\n' }}{% endfor %}"
    many = [turn for _ in range(5000) for turn in TURNS]

    written, _ = ChatTemplate(text, {}, datetime.date(2026, 1, 1)).render(many, ask=False)

    assert written.count("<|user|>hi\n") == 5000


@pytest.mark.parametrize("name", ["a text of ten gigabytes", "loops in loops", "doubling with ~"])
def test_a_bomb_in_a_model_folder_is_an_error_of_the_model_and_not_a_hang(name, base):
    (base / "chat_template.jinja").write_text(BOMBS[name])

    with pytest.raises(FtkitError, match="a chat template"):
        load_tokenizer(base)


def test_a_bomb_that_waits_for_a_longer_conversation_is_found_where_it_bursts(base, tmp_path):
    (base / "chat_template.jinja").write_text("{% if messages|length > 2 %}{{ 'a' * 10**10 }}{% endif %}x")
    write_rows(tmp_path / "rows.jsonl", 4)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("[", '[{"role": "system", "content": "s"}, '))

    outcome = ftkit("check", write_recipe(tmp_path, base))

    assert outcome.code == 3, outcome.err
    assert "rows.jsonl:1" in outcome.err
    assert "million letters" in outcome.err


def test_a_bomb_named_by_a_recipe_is_refused_with_its_exit_code(base, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 4)
    (tmp_path / "bomb.jinja").write_text(BOMBS["a text of ten gigabytes"])

    outcome = ftkit("check", write_recipe(tmp_path, base), f"model.chat_template={tmp_path / 'bomb.jinja'}")

    assert outcome.code == 3, outcome.err
    assert "million letters" in outcome.err


@pytest.mark.parametrize(
    "text", ["{{ 'a' * 10**10 }}", "{{ range(10**12)|list }}", "{{ 'a'|center(10**9) }}", "{{ ''.__class__ }}",
             "{{ ''|attr('__class__') }}", "{% set x = 1 %}", "{% macro f() %}{% endmacro %}", "{% include 'x' %}",
             "{% import 'os' as x %}", "{{ cycler }}", "{{ lipsum() }}", "{{ '{:>1000000000}'.format(1) }}",
             "{{ 9 ** (9 ** 9) }}", "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"]
)  # fmt: skip
def test_a_template_of_columns_has_a_smaller_language_still(text):
    started = time.process_time()

    with pytest.raises(TemplateFault):
        ColumnTemplate(text).render({"a": "b"})
    assert time.process_time() - started < 10
