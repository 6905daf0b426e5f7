"""``data.columns``: other names for a format's keys, small templates over a row, and the bounds that these keep."""

from __future__ import annotations

import time

import pytest

from ftkit.data.column_template import MAX_TEXT, MAX_TURNS
from ftkit.data.columns import Columns
from ftkit.data.formats import RowFault
from ftkit.errors import RecipeError

ROW = {
    "title": "Bern",
    "question": "a <b> & 'c'?",
    "count": 3,
    "tags": ["x", "y"],
    "empty": None,
    "Full name": "Ada",
    "turns": [{"who": "A", "says": "hi"}, {"who": "B", "says": "yo"}],
}


def made(template: str, row: dict | None = None) -> str:
    return Columns({"prompt": template}).apply(ROW if row is None else row)["prompt"]


def fault(mapping: dict[str, str], row: dict | None = None) -> str:
    """The fault as ``field: what``, then its remedy."""
    with pytest.raises(RowFault) as caught:
        Columns(mapping).apply(ROW if row is None else row)
    return "\n".join([f"{caught.value.field}: {caught.value.what}", *caught.value.fix.splitlines()])


# Names.


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_a_mapping_a_row_stays_as_it_is(nothing):
    assert Columns(nothing).apply(ROW) == ROW


def test_mapped_columns_get_the_formats_names_and_others_are_kept():
    # The file's own column "completion" is something else and must not be taken.
    row = {"question": "hi", "reply": "yo", "completion": "99 %", "id": 7}

    applied = Columns({"prompt": "question", "completion": "reply"}).apply(row)
    assert applied == {"prompt": "hi", "completion": "yo", "id": 7}


def test_two_keys_may_swap_their_columns():
    row = {"prompt": "yo", "completion": "hi"}

    assert Columns({"prompt": "completion", "completion": "prompt"}).apply(row) == {
        "prompt": "hi",
        "completion": "yo",
    }


def test_where_a_named_column_is_missing_nothing_stands_in_and_the_nearest_is_named():
    assert fault(
        {"prompt": "question", "completion": "reply"}, {"question": "hi", "replies": 3, "completion": "x"}
    ) == ("completion: comes from the column 'reply', which this row lacks\nDid you mean 'replies'?")
    assert fault({"completion": "reply"}, {"a": 1, "b": 2}) == (
        "completion: comes from the column 'reply', which this row lacks\nIts columns: a, b."
    )


def test_every_key_that_no_format_knows_is_refused_in_one_pass():
    with pytest.raises(RecipeError) as caught:
        Columns({"promt": "question", "prompt": "question", "zzz": "q"})

    assert [str(problem) for problem in caught.value.problems] == [
        "data.columns.promt: is a field of no format\n  Did you mean 'prompt'?",
        "data.columns.zzz: is a field of no format\n  Fields of the formats: messages, tools, conversations, system, "
        "instruction, output, input, history, prompt, completion, text, chosen, rejected.",
    ]


# Templates.


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ title }}: {{ question }}", "Bern: a <b> & 'c'?"),
        ("{{ title|upper }} {{ title.lower() }}", "BERN bern"),
        ("{{ count }} {{ count / 2 }} {{ 2 ** 3 }} {{ count * 2 }}", "3 1.5 8 6"),
        ("{{ tags | join(', ') }}", "x, y"),
        ("{{ tags | tojson }}", '["x", "y"]'),
        ("{{ {'q': question} | tojson }}", '{"q": "a <b> & \'c\'?"}'),
        ("{{ ['é'] | tojson }}", '["é"]'),
        ("{{ row['Full name'] }}", "Ada"),
        ("{{ empty or '-' }}{{ missing | default('none') }}", "-none"),
        ("{% if missing is defined %}{{ missing }}{% else %}no{% endif %}", "no"),
        ("{% for turn in turns %}{{ turn.who }}: {{ turn.says }}\n{% endfor %}", "A: hi\nB: yo\n"),
        ("{% for n in range(3) %}{{ loop.index ~ '.' ~ n }} {% endfor %}", "1.0 2.1 3.2 "),
        ("{{ title | replace('er', 'ER') }}{{ '-' * 3 }}", "BERn---"),
        ("{{ turns | map(attribute='who') | join }}{{ turns | join('/', attribute='says') }}", "ABhi/yo"),
    ],
)
def test_a_template_is_rendered_over_the_rows_columns(template, text):
    assert made(template) == text


def test_columns_that_a_template_reads_are_used_up_so_that_they_fit_no_other_format():
    row = {"text": "hi", "answer": "yo", "id": 7}

    applied = Columns({"prompt": "Q: {{ text }}", "completion": "answer"}).apply(row)
    assert applied == {"prompt": "Q: hi", "completion": "yo", "id": 7}


def test_a_template_may_read_the_column_that_it_replaces():
    assert Columns({"text": "<{{ text }}>"}).apply({"text": "hi"}) == {"text": "<hi>"}


def test_a_rendering_leaves_nothing_behind_for_the_next_row():
    columns = Columns({"prompt": "{% for n in range(9000) %}{{ '' }}{% endfor %}{{ 'ab' * 1900000 }}{{ title }}"})

    assert columns.apply({"title": "1"})["prompt"][-2:] == "b1"
    assert columns.apply({"title": "2"})["prompt"][-2:] == "b2"


ALL = "Its columns: title, question, count, tags, empty, Full name, turns."


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ titel }}", f"prompt: the template reads 'titel', which this row lacks\n{ALL}"),
        ("{{ titel ~ qestion }}", f"prompt: the template reads 'qestion', 'titel', which this row lacks\n{ALL}"),
        ("{{ turns[0].whom }}", f"prompt: the template fails: 'dict object' has no attribute 'whom'\n{ALL}"),
        ("{{ empty }}", "prompt: the template prints a column that is null in this row\n"
         "Write {{ column or '' }}, or remove the row."),
        ("{{ 'a' ~ empty }}", "prompt: the template prints a column that is null in this row\n"
         "Write {{ column or '' }}, or remove the row."),
        ("{{ tags }}", "prompt: the template prints a list as Python writes it\nWrite | join(', ') or | tojson."),
        ("{{ 'a' ~ tags }}", "prompt: the template prints a list as Python writes it\n"
         "Write | join(', ') or | tojson."),
        ("{{ title.upper }}", "prompt: the template prints a builtin_function_or_method, which is no text"),
        ("{{ 1 / 0 }}", "prompt: the template fails: ZeroDivisionError: division by zero"),
        ("{{ title + count }}",
         'prompt: the template fails: TypeError: can only concatenate str (not "int") to str'),
    ],
)  # fmt: skip
def test_a_template_that_fails_on_a_row_is_a_fault_of_that_row(template, expected):
    assert fault({"prompt": template}) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{{ title",
            "is not a valid template: unexpected end of template, expected 'end of print statement'. (line 1)",
        ),
        ("{{ title|nothing }}", "is not a valid template: No filter named 'nothing'. (line 1)"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "is not a valid template: "),
        ("{{ 1 }}" * 5000, "is a template of 35000 characters; 20000 are allowed"),
        ("{{ title|format }}", "is not a valid template: No filter named 'format'. (line 1)"),
        *(
            (template, f"uses a statement that templates of columns do not have ({name}, line 1)")
            for template, name in [
                ("{% set a = 'x' %}{{ a }}", "Assign"),
                ("{% macro a() %}{% endmacro %}{{ a() }}", "Macro"),
                ("{% include '/etc/passwd' %}", "Include"),
                ("{% import 'x' as y %}{{ y }}", "Import"),
                ("{% extends 'x' %}{{ 1 }}", "Extends"),
                ("{% for a in tags recursive %}{{ loop(tags) }}{% endfor %}", "For"),
                ("{% with %}{{ 1 }}{% endwith %}", "With"),
            ]
        ),
    ],
)
def test_what_is_no_small_template_is_a_fault_of_the_recipe(template, expected):
    with pytest.raises(RecipeError) as caught:
        Columns({"prompt": template})

    (problem,) = caught.value.problems
    assert problem.where == "data.columns.prompt"
    assert problem.what.startswith(expected)


TOO_LONG = f"the template makes more than {MAX_TEXT:,} characters"
TOO_FAR = f"the template counts to more than {MAX_TURNS:,}"
TOO_MANY = f"the template's loops take more than {MAX_TURNS:,} turns"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ 'a' * 10**10 }}", TOO_LONG),
        ("{{ 10**10 * 'a' }}", TOO_LONG),
        ("{{ ('a' * 3000000) ~ ('a' * 3000000) }}", TOO_LONG),
        ("{{ ['a' * 3000000, 'b'] | join('c' * 900000) | join('d' * 3000000) }}", TOO_LONG),
        ("{{ title | replace('', 'a' * 3000000) }}", TOO_LONG),
        ("{% for n in range(9999) %}{{ '" + "x" * 500 + "' }}{% endfor %}", TOO_LONG),
        ("{{ tags * 10**9 }}", "the template repeats a list with *"),
        ("{{ 10**(10**10) }}", "the template raises a number to a power that is too large"),
        ("{{ (2**2000) * (2**2000) * (2**2000) }}", "the template multiplies numbers that are too large"),
        ("{{ '%0999999999d' % 1 }}", "the template formats text with %"),
        ("{% for n in range(10**9) %}x{% endfor %}", TOO_FAR),
        ("{{ range(10**30) | list | tojson }}", TOO_FAR),
        ("{{ range(9000) | list | tojson }}{{ range(9000) | list | tojson }}", TOO_FAR),
        ("{% for a in range(5000) %}{% for b in question %}x{% endfor %}{% endfor %}", TOO_MANY),
        ("{% for a in question * 1000 %}{% for b in question * 1000 %}x{% endfor %}{% endfor %}", TOO_MANY),
        *(
            (template, "the template may not do this: access to attribute")
            for template in [
                "{{ ''.__class__.__mro__ }}",
                "{{ title.__init__.__globals__ }}",
                "{{ '{:>999999999}'.format(1) }}",
                "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
                "{{ title.center(10**9) }}",
                "{{ title.zfill(10**9) }}",
                "{{ title.replace('', 'x') }}",
                "{{ ('x' * 100000).join(tags) }}",
                "{{ tags.append(tags) }}",
                "{{ row.clear() }}",
            ]
        ),
        ("{{ lipsum(n=10**9) }}", "the template reads 'lipsum', which this row lacks"),
        ("{{ namespace(a=1) }}", "the template reads 'namespace', which this row lacks"),
    ],
)
def test_a_template_can_neither_leave_its_row_nor_exhaust_the_machine(template, expected):
    began = time.perf_counter()
    said = fault({"prompt": template})

    assert said.startswith(f"prompt: {expected}")
    assert time.perf_counter() - began < 5
    assert ROW["tags"] == ["x", "y"]
