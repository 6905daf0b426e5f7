"""Chat templates rendered without transformers: equal to its own rendering, character by character."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from ftkit.data.chat import ChatTemplate, RenderFault
from ftkit.data.sample import Turn
from tests.data.encoding import TODAY
from tests.data.template_zoo import CALL, FAMILIES, FOLDER, TOOL, conversations, template, zoo_tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<|endoftext|>"}
HI, YO = Turn(role="user", content="hi"), Turn(role="assistant", content="yo")


class FrozenClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.combine(TODAY, datetime.time())


@pytest.fixture(autouse=True, scope="module")
def frozen_clock():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template_utils, "datetime", FrozenClock)
        yield


def chat(text, today=TODAY) -> ChatTemplate:
    return ChatTemplate(text, SPECIAL, today)


def by_transformers(text, turns, tools=(), *, ask) -> str:
    tokenizer = zoo_tokenizer(text, eos="</s>", bos="<s>")
    assert tokenizer.special_tokens_map == SPECIAL
    return tokenizer.apply_chat_template(
        [turn.message for turn in turns], tools=list(tools) or None, tokenize=False, add_generation_prompt=ask
    )


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_conversation_renders_as_transformers_renders_it(name, data):
    family = FAMILIES[name]
    sample = data.draw(conversations(family))
    length = data.draw(st.integers(1, len(sample.turns)))
    ask = data.draw(st.booleans())
    turns, tools = sample.turns[:length], sample.content.tools
    if not family.system and turns[0].role == "system":
        return

    text, _ = chat(family.template).render(turns, tools, ask=ask)

    assert text == by_transformers(family.template, turns, tools, ask=ask)


# Each of these reads something that a hand-made environment easily sets up in another way.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "<é \'q\'>"}]'),
        ("{{ {'b': 1, 'a': 2} | tojson }}", '{"b": 1, "a": 2}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ [1, 2] | tojson(indent=2) }}", "[\n  1,\n  2\n]"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", '{"a": 2, "b": 1}'),
        ("{{ bos_token }}{{ eos_token }}{{ unk_token }}", "<s></s>"),
        ("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}", "TrueTrueFalse"),
        ("{{ strftime_now('%d %B %Y, %H:%M') }}", "04 July 2031, 00:00"),
        ("{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "0234"),
        ("{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% set n = namespace(a=1) %}{% for i in range(3) %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}", "4"),
        ("{{ dict(a=1).get('a') }}{{ dict.fromkeys('ab', 0) }}", "1{'a': 0, 'b': 0}"),
        ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),
        ("{{ messages[0].nothing }}{{ messages[0].nothing is defined }}", "False"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{{ messages[0].content.upper() | length }}", "7"),
    ],
)  # fmt: skip
def test_the_environment_is_the_one_that_templates_are_written_for(text, expected):
    turns = [Turn(role="user", content="<é 'q'>")]

    assert by_transformers(text, turns, ask=False) == expected
    assert chat(text).render(turns, ask=False)[0] == expected


def test_a_tools_schema_and_a_calls_arguments_pass_as_they_are():
    text = "{{ tools | tojson }}{{ messages[1].tool_calls | tojson }}"
    turns = [HI, Turn(role="assistant", content="", fields=CALL)]

    rendered, _ = chat(text).render(turns, (TOOL,), ask=False)

    assert "Find an order <b>by number</b>." in rendered
    assert rendered == by_transformers(text, turns, (TOOL,), ask=False)


def test_a_key_named_like_a_method_of_dicts_is_the_method_as_in_jinja():
    text = (
        "{{ messages[0].get('name') }}{{ messages[0].keys is callable }}{{ messages[0]['keys'] }}{{ messages[0].x }}"
    )
    turns = [Turn(role="user", content="hi", fields={"name": "Ann", "keys": "k", "x": 1})]

    assert chat(text).render(turns, ask=False)[0] == by_transformers(text, turns, ask=False) == "AnnTruek1"


def test_keys_that_are_null_are_missing_as_transformers_has_them():
    text = "{{ messages[0].name is defined }}{{ messages[1].tool_calls is defined }}"
    turns = [Turn(role="user", content="hi", fields={"name": None}), Turn(role="assistant", content="", fields=CALL)]

    assert chat(text).render(turns, ask=False)[0] == by_transformers(text, turns, ask=False) == "FalseTrue"


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_reaches_the_template_under_every_name_that_transformers_gives_it(key):
    text = "{{ messages[1].reasoning_content }}|{{ messages[1].thinking }}|{{ messages[1].reasoning }}"
    turns = [HI, Turn(role="assistant", content="yo", fields={key: "hm"})]

    assert chat(text).render(turns, ask=False)[0] == by_transformers(text, turns, ask=False)
    assert chat(text).render(turns, ask=False)[0].startswith("hm|hm|")


def test_of_several_templates_the_one_for_tools_serves_conversations_with_tools():
    texts = {"default": "plain", "tool_use": "with tools", "rag": "{% broken"}
    template = chat(texts)

    assert template.render([HI], ask=False)[0] == by_transformers(texts, [HI], ask=False) == "plain"
    assert template.render([HI], (TOOL,), ask=False)[0] == "with tools"
    assert by_transformers(texts, [HI], (TOOL,), ask=False) == "with tools"


def test_several_templates_without_a_default_are_refused_by_name():
    with pytest.raises(RenderFault, match=r"several chat templates \(rag, tool_use\), and none is named default"):
        chat({"tool_use": "x", "rag": "y"}).render([HI], ask=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ raise_exception('no tools, please') }}", "no tools, please"),
        ("{{ messages[7].content }}", "list object has no element 7"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ messages.append(1) }}", "attribute 'append' of 'list' object is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "attribute '__class__' of 'str' object is unsafe"),
        ("{% set n = namespace(_a=1) %}", "cannot keep '_a' in a namespace"),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", "cannot keep '__class__' in a namespace"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_whatever_a_template_raises_is_a_fault_of_the_row_with_its_reason(text, reason):
    with pytest.raises(RenderFault, match=f"the chat template refuses this conversation: .*{reason}"):
        chat(text).render([HI], ask=False)


def test_what_is_unsafe_stays_so_however_often_and_beside_whatever_it_is_tried():
    attack = "{% if messages | length == 2 %}{{ messages[0].content.strip() }}{% else %}{{ ATTACK }}{% endif %}"
    for attempt in (
        "messages[0].content.__class__.a",
        "messages.append(1)",
        "messages[0].update(a=1)",
        "messages.clear()",
    ):
        template = chat(attack.replace("ATTACK", attempt))
        for _ in range(3):
            assert template.render([HI, YO], ask=False)[0] == "hi"
            with pytest.raises(RenderFault, match="is unsafe"):
                template.render([HI], ask=False)


def test_a_template_that_is_not_jinja_is_refused_with_the_line():
    with pytest.raises(RenderFault, match=r"is not valid Jinja: Encountered unknown tag 'fi'.* \(line 2\)"):
        chat("{% if true %}\n{% fi %}").render([HI], ask=False)


def test_the_date_is_the_one_that_was_given_so_that_a_resumed_run_renders_the_same():
    text = "{{ strftime_now('%Y-%m-%d') }}"

    assert chat(text, datetime.date(2024, 2, 29)).render([HI], ask=False)[0] == "2024-02-29"


@pytest.mark.parametrize("name", FAMILIES)
def test_whether_a_template_reads_the_date_is_seen_in_its_text(name):
    assert chat(FAMILIES[name].template).reads_today == (name in ("llama3", "harmony"))


@pytest.mark.parametrize("name", ["marked", "bad_marks_without_stop", "bad_marks_on_both"])
def test_generation_marks_stand_where_transformers_finds_them(name):
    tokenizer = zoo_tokenizer(template(name))
    turns = [HI, YO, Turn(role="user", content="us\n"), Turn(role="assistant", content="漢字 er")]

    text, marks = chat(template(name)).render(turns, ask=False)

    encoded = tokenizer.apply_chat_template(
        [turn.message for turn in turns], return_dict=True, return_assistant_tokens_mask=True
    )
    counted = [id_ for id_, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(counted) == "".join(text[start:end] for start, end in marks)
    assert marks
    assert chat(template(name)).has_marks()
    assert not chat(template("chatml")).has_marks()


def test_a_mark_whose_place_cannot_be_known_is_refused():
    with pytest.raises(RenderFault, match="stands inside a macro"):
        chat(template("bad_marks_in_macro")).render([HI, YO], ask=False)


def test_a_refused_conversation_leaves_no_marks_to_the_next_one():
    text = "{% generation %}{{ messages[0].content + '' }}{% endgeneration %}{{ messages[1].content }}"
    template = chat(text + "{% if messages | length == 3 %}{{ raise_exception('three') }}{% endif %}")

    with pytest.raises(RenderFault, match="three"):
        template.render([HI, YO, HI], ask=False)
    assert template.render([HI, YO], ask=False) == ("hiyo", [(0, 2)])


def test_rendering_imports_neither_torch_nor_transformers():
    root = Path(__file__).resolve().parents[2]
    code = "import sys, ftkit.data.encode, ftkit.data.settings; print(*{'torch', 'transformers'} & set(sys.modules))"

    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)

    assert found.stdout.strip() == ""


def test_every_template_of_the_zoo_is_used():
    bad = {path.stem for path in FOLDER.glob("*.jinja")} - {family.name for family in FAMILIES.values()}

    # test_masks.py and test_turn_by_turn.py say of each of these why it is refused
    assert bad == {
        "bad_asks_otherwise", "bad_cuts_thoughts", "bad_marks_in_macro", "bad_marks_on_both", "bad_marks_on_user",
        "bad_no_stop",
    }  # fmt: skip
