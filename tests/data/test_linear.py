"""Templates that write one message after the other: told by their text, and rendered once for all beginnings."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.chat import MARKS, Beginnings, ChatTemplate, RenderFault
from ftkit.data.linear import message_loop
from ftkit.data.sample import Turn
from ftkit.data.template_language import environment
from tests.data.encoding import TODAY
from tests.data.template_zoo import FAMILIES, conversations

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
LOOP = "{% for m in messages %}{{ m.role + ':' + m.content + ';' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}assistant:{% endif %}"
ROLES = ("system", "user", "assistant", "user", "assistant")
TURNS = tuple(Turn(role=role, content=f" {role} says x{number}x ") for number, role in enumerate(ROLES))


def is_linear(text: str) -> bool:
    tree = environment(datetime.datetime.combine(TODAY, datetime.time())).parse(text)
    return message_loop(tree, MARKS) is not None


def as_rendered_apart(chat: ChatTemplate, turns, tools=()) -> bool:
    """Whether one rendering holds what each beginning is rendered as by itself."""
    found, apart = chat.beginnings(turns, tools), Beginnings(chat, turns, tools)
    assert type(found) is not Beginnings
    return all(
        found.asked(count) == apart.asked(count)
        and found.written(count, follow_marks=follow) == apart.written(count, follow_marks=follow)
        for count in range(1, len(turns) + 1)
        for follow in (True, False)
    )


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "phi3", "phi4", "marked"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_one_rendering_holds_what_each_beginning_is_rendered_as(name, data):
    sample = data.draw(conversations(FAMILIES[name]))
    chat = ChatTemplate(FAMILIES[name].template, SPECIAL, TODAY)

    assert as_rendered_apart(chat, sample.turns, sample.content.tools)


@pytest.mark.parametrize(
    "text",
    [
        LOOP + ASK,
        LOOP,
        "{{ bos_token }}" + LOOP + ASK + "{{ eos_token }}",
        "{% set all = messages %}" + LOOP.replace("messages", "all") + ASK,
        "{% if messages[0].role != 'user' %}{{ messages[0].content }}{% endif %}" + LOOP + ASK,
        LOOP.replace("{{", "{% if loop.first and m.role == 'system' %}{% continue %}{% endif %}{{", 1) + ASK,
        LOOP.replace("{{", "{% set said = m.content | trim %}{{ said ~ strftime_now('%Y') }}{{", 1) + ASK,
        LOOP.replace("m.content", "m['content'].strip().split('x')[-1]") + ASK,
        LOOP.replace("{{", "{% for c in m.calls or ['x'] %}{{ c | tojson }}{% endfor %}{{", 1) + ASK,
        LOOP.replace("{{", "{% generation %}{{", 1).replace("{% endfor", "{% endgeneration %}{% endfor") + ASK,
    ],
)
def test_a_template_that_looks_only_at_what_came_before_is_linear(text):
    assert is_linear(text)
    assert as_rendered_apart(ChatTemplate(text, SPECIAL, TODAY), TURNS)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LOOP.replace("';'", "('!' if loop.last else ';')") + ASK, id="loop.last"),
        pytest.param(LOOP.replace("';'", "(';' if loop.nextitem else '!')") + ASK, id="loop.nextitem"),
        pytest.param(LOOP.replace("';'", "loop['length'] | string") + ASK, id="loop by key"),
        pytest.param(LOOP.replace("';'", "loop | string") + ASK, id="loop itself"),
        pytest.param(LOOP.replace("';'", "loop.cycle('a', 'b')") + ASK, id="loop.cycle"),
        pytest.param(LOOP.replace("';'", "messages[-1].role") + ASK, id="last message"),
        pytest.param(LOOP.replace("';'", "messages[loop.index].role") + ASK, id="next message"),
        pytest.param(LOOP.replace("';'", "messages | length | string") + ASK, id="how many"),
        pytest.param("{{ messages[1].content }}" + LOOP + ASK, id="second message"),
        pytest.param("{% set n = messages %}{{ n[-1].role }}" + LOOP + ASK, id="another name"),
        pytest.param("{% set m2 = messages[1:] %}{% for m in m2 %}{{ m.content }}{% endfor %}" + ASK, id="slice"),
        pytest.param("{% for m in messages %}{{ m.role }}{% endfor %}" + LOOP + ASK, id="two loops"),
        pytest.param(LOOP.replace("in messages", "in messages if m.role != 'x'") + ASK, id="filtered"),
        pytest.param(LOOP.replace("in messages", "in messages | reverse") + ASK, id="reversed"),
        pytest.param(LOOP.replace("{% endfor", "{% else %}none{% endfor") + ASK, id="else"),
        pytest.param(LOOP.replace("{{", "{% break %}{{") + ASK, id="break"),
        pytest.param(LOOP.replace("';'", "(';' if add_generation_prompt else '!')") + ASK, id="asks inside"),
        pytest.param("{% if add_generation_prompt %}A{% endif %}" + LOOP, id="asks before"),
        pytest.param("{% set add_generation_prompt = true %}" + LOOP + ASK, id="asks by itself"),
        pytest.param(LOOP + ASK + "{{ messages[0].content }}", id="first message behind"),
        pytest.param(LOOP + ASK + "{{ messages | length }}", id="count behind"),
        pytest.param("{% set s = messages[0].content %}" + LOOP + "{{ s }}" + ASK, id="kept from before"),
        pytest.param(LOOP + ASK + "{{ tools | tojson }}", id="tools behind"),
        pytest.param(
            "{% set ns = namespace(n=0) %}" + LOOP.replace("{{", "{% set ns.n = ns.n + 1 %}{{") + "{{ ns.n }}" + ASK,
            id="namespace",
        ),
        pytest.param("{% set j = joiner('|') %}" + LOOP.replace("{{", "{{ j() }}{{") + ASK, id="joiner"),
        pytest.param(LOOP.replace("m.content", "m.content | random") + ASK, id="random"),
        pytest.param("{% macro w(m) %}{{ m }}{% endmacro %}" + LOOP.replace("m.content", "w(m)") + ASK, id="macro"),
        pytest.param("{% if true %}" + LOOP + "{% endif %}" + ASK, id="loop within"),
        pytest.param("{% set x %}" + LOOP + "{% endset %}{{ x }}" + ASK, id="kept text"),
        pytest.param("{% filter upper %}" + LOOP + "{% endfilter %}" + ASK, id="filter block"),
        pytest.param("{{ messages[0].content }}" + ASK, id="no loop"),
    ],
)  # fmt: skip
def test_a_template_that_is_not_proven_to_be_linear_is_rendered_beginning_by_beginning(text):
    assert not is_linear(text)
    assert type(ChatTemplate(text, SPECIAL, TODAY).beginnings(TURNS)) is Beginnings


def test_a_linear_template_that_refuses_a_lone_question_is_rendered_beginning_by_beginning():
    text = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + LOOP + ASK
    assert is_linear(text)

    chat = ChatTemplate(text, SPECIAL, TODAY)

    assert type(chat.beginnings(TURNS)) is Beginnings
    assert chat.beginnings(TURNS).asked(2) == "system: system says x0x ;user: user says x1x ;assistant:"


def test_before_the_first_message_nothing_is_known_of_it():
    text = "{% if messages[0].role == 'assistant' %}hello {% endif %}" + LOOP + ASK
    assert is_linear(text)
    chat = ChatTemplate(text, SPECIAL, TODAY)
    turns = (Turn(role="assistant", content="yo"), *TURNS[1:])

    with pytest.raises(RenderFault):  # as a server would: there is no first message to ask for the role of
        chat.render((), ask=True)
    with pytest.raises(RenderFault):
        chat.beginnings(turns).asked(0)


def test_marks_that_are_not_followed_are_not_remembered():
    odd = "{% generation %}{{ messages | length }}{% endgeneration %}"
    chat = ChatTemplate(odd, SPECIAL, TODAY)
    assert not is_linear(odd)
    assert chat.render(TURNS, ask=False) == ("5", [(0, 1)])

    for _ in range(3):
        chat.render(TURNS, ask=False, follow_marks=False)

    (tracker,) = [one for one in chat._environment.extensions.values() if hasattr(one, "_marked")]
    assert len(tracker._marked) == 1


def test_a_row_that_spells_a_sign_of_another_process_is_text_like_any_other():
    chat = ChatTemplate(FAMILIES["marked"].template, SPECIAL, TODAY)
    turns = (Turn(role="user", content="f" * 32), Turn(role="assistant", content="0" * 32))

    assert as_rendered_apart(chat, turns)
    assert "f" * 32 in chat.beginnings(turns).written(2, follow_marks=True)[0]
