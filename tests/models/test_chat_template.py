"""What a template writes and reads is found in its syntax, and its defaults hold for every engine."""

from __future__ import annotations

import jinja2.ext
import pytest
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ftkit.errors import RecipeError
from ftkit.models.chat_template import control_tokens, set_defaults, split_defaults, template_variables
from tests.models.bare import bare_tokenizer

CHAT = [{"role": "user", "content": "hi"}]
# As Qwen3 does: thinking unless it is switched off.
THINKING = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}"
)
ASKED = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
UNTHINKING = ASKED + "<think>\n\n</think>\n\n"
# As Llama 3.1 does: the template sets what nobody set.
DATED = "{%- if not date is defined %}\n{%- set date = '26 Jul 2024' %}\n{%- endif %}\nToday: {{ date }}"


def engine() -> ImmutableSandboxedEnvironment:
    """Jinja as vLLM and other servers run it, which do not use transformers' tokenizers for it."""
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])


def rendered(template, **values) -> str:
    """One text, which transformers and a plain engine must agree on."""
    tokenizer = bare_tokenizer(template=template)
    ours = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True, **values)
    theirs = engine().from_string(template).render(messages=CHAT, add_generation_prompt=True, **values)
    assert ours == theirs
    return ours


# Control tokens


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<|user|>{{ messages[0].content }}<|end|>", ["<|user|>", "<|end|>"]),
        ("{{ '<|im_start|>' + messages[0].role }}", ["<|im_start|>"]),
        ("{{ '<|b|>' ~ x ~ '<|a|>' }}<|b|>", ["<|b|>", "<|a|>"]),
        ("{% set mark = '<|eot_id|>' %}{{ mark }}", ["<|eot_id|>"]),
        ("{{ '<|a|>' if x else '<|b|>' }}", ["<|a|>", "<|b|>"]),
        ("{% macro turn(end='<|end|>') %}{{ end }}{% endmacro %}", ["<|end|>"]),
        ("{% generation %}<|a|>{% endgeneration %}", ["<|a|>"]),
        ("{% raw %}<|a|>{% endraw %}", ["<|a|>"]),
        ("<start_of_turn>user\n<end_of_turn>", ["<start_of_turn>", "<end_of_turn>"]),
        ("<|turn>user\n<turn|>", ["<|turn>", "<turn|>"]),
        ("<｜User｜>{{ messages[0].content }}", ["<｜User｜>"]),
    ],
)
def test_control_tokens_that_a_template_writes_are_found_in_their_order(template, found):
    assert control_tokens(template) == found


@pytest.mark.parametrize(
    "template",
    [
        "{# <|comment|> #}",
        "{% if '<|image|>' in messages[0].content %}picture{% endif %}",
        "{% if mark == '<|x|>' %}y{% endif %}",
        "{{ 'a' if mark == '<|x|>' else 'b' }}",
        "{% set plain = '<|x|>' not in messages[0].content %}{{ plain }}",
        "{{ mark is eq('<|x|>') }}",
        "{{ messages[0].content.split('<|channel|>')[0] }}",
        "{{ messages[0].content | replace('<|x|>', '') }}",
        "{{ raise_exception('write <|x|> yourself') }}",
        "<tool_call>{{ x }}</tool_call><think></think>",
        "{{ eos_token }}",
        "a <| b |> c",
    ],
)
def test_what_a_template_only_mentions_is_no_control_token(template):
    assert control_tokens(template) == []


def test_role_marks_of_a_template_that_puts_them_together_stay_plain_text():
    phi = "{{ '<|' + messages[0].role + '|>\n' + messages[0].content + '<|end|>' }}{{ '<|assistant|>\n' }}"

    assert control_tokens(phi) == ["<|end|>"]


def test_every_named_template_is_searched():
    assert control_tokens({"default": "<|a|>", "tool_use": "<|b|><|a|>"}) == ["<|a|>", "<|b|>"]


# Defaults


def test_a_default_holds_where_nobody_sets_the_variable_and_a_request_still_wins():
    template = set_defaults(THINKING, {"enable_thinking": False})

    assert rendered(THINKING) == ASKED
    assert rendered(template) == UNTHINKING
    assert rendered(template, enable_thinking=False) == UNTHINKING
    assert rendered(template, enable_thinking=True) == ASKED


def test_a_default_comes_before_the_templates_own():
    template = set_defaults(DATED, {"date": "1 May 2026"})

    assert [rendered(DATED), rendered(template)] == ["Today: 26 Jul 2024", "Today: 1 May 2026"]
    assert rendered(template, date="now") == "Today: now"


@pytest.mark.parametrize("start", ["", "\n", "\n\n", "  ", "  {% if true %}", "\t{#- c #}", "{%- if true %}\n"])
def test_a_default_changes_no_white_space_at_the_start_of_a_template(start):
    end = "{% endif %}" if "if" in start else ""
    template = f"{start}a{{{{ x }}}}{end}"

    assert rendered(set_defaults(template, {"x": "!"})) == rendered(template, x="!")


@pytest.mark.parametrize(
    "value",
    [
        'say "hi"', "it's", "back\\slash", "\\n", "two\nlines\r\n", "tab\t", "\x07\x1b", "é 漢 🙂", "{{ x }}", "%}",
        "-%}{% endif %}", "{# c #}", "{% raw %}", " %}{%- endif %}\n", "", "none", "\u2028\x85",
    ],
)  # fmt: skip
def test_any_text_reaches_the_template_as_it_is(value):
    template = set_defaults("<{{ x }}>", {"x": value})

    assert rendered(template) == f"<{value}>"
    assert split_defaults(template)[1] == "<{{ x }}>"


@pytest.mark.parametrize("value", [True, False, None, 0, 3, -7, 1.5, -0.25, 1e-05, 1e22])
def test_any_plain_value_reaches_the_template_with_its_type(value):
    template = set_defaults(
        "{{ x is boolean }} {{ x is integer }} {{ x is float }} {{ x is none }} {{ x }}", {"x": value}
    )

    kind = type(value)
    assert rendered(template) == f"{kind is bool} {kind is int} {kind is float} {value is None} {value}"


def test_defaults_that_stand_there_already_are_not_written_again():
    once = set_defaults(THINKING + "{{ x }}", {"enable_thinking": False, "x": "a\nb"})

    assert set_defaults(once, {"enable_thinking": False, "x": "a\nb"}) == once


def test_a_new_default_replaces_the_old_one_of_its_name_and_keeps_the_others():
    first = set_defaults("{{ x }} {{ y }}", {"x": 1, "y": 2})

    again = set_defaults(first, {"x": 3})

    assert rendered(again) == "3 2"
    assert again == set_defaults("{{ x }} {{ y }}", {"x": 3, "y": 2})


def test_servers_that_ask_jinja_what_a_template_reads_still_pass_the_variable_on():
    template = set_defaults(THINKING, {"enable_thinking": False})

    assert "enable_thinking" in meta.find_undeclared_variables(engine().parse(template))
    assert template_variables(template) == {"enable_thinking"}


def test_each_named_template_gets_the_defaults_that_it_reads():
    named = set_defaults({"default": "{{ x }}", "tool_use": "{{ y }}{{ x }}", "rag": "r"}, {"x": 1, "y": 2})

    assert [split_defaults(text)[1] for text in named.values()] == ["{{ x }}", "{{ y }}{{ x }}", "r"]
    assert [rendered(text) for text in named.values()] == ["1", "21", "r"]
    assert "y" not in split_defaults(named["default"])[0]


def test_variables_that_every_engine_sets_are_not_the_templates_own():
    template = (
        "{{ bos_token }}{{ tools }}{{ documents }}{{ strftime_now('%d') }}{% set ns = namespace(a=1) %}{{ ns.a }}"
        "{% for m in messages %}{{ loop.index }}{{ raise_exception(m) }}{% endfor %}{{ add_generation_prompt }}"
        "{{ custom }}"
    )

    assert template_variables(template) == {"custom"}


def test_every_name_that_a_template_never_reads_is_refused_with_those_that_it_reads():
    with pytest.raises(RecipeError) as caught:
        set_defaults("{{ enable_thinking }}{{ date }}", {"enable_thinkin": False, "date": "x", "colour": 1})

    assert str(caught.value) == (
        "model.chat_template_kwargs.enable_thinkin: the chat template never reads this variable\n"
        "  Did you mean 'enable_thinking'? It reads date, enable_thinking.\n"
        "model.chat_template_kwargs.colour: the chat template never reads this variable\n"
        "  It reads date, enable_thinking."
    )


def test_a_template_without_variables_says_so():
    with pytest.raises(RecipeError, match=r"It reads no variables of its own\."):
        set_defaults("{{ messages[0].content }}", {"x": 1})


@pytest.mark.parametrize("broken", ["{% for %}", "{{ x | no_such_filter }}"])
def test_a_template_that_jinja_cannot_read_is_refused(broken):
    with pytest.raises(RecipeError, match=r"is not valid Jinja: .* \(line 1\)"):
        set_defaults(broken, {"x": 1})
