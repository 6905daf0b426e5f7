"""What every plan keeps to, whatever the rows and the settings."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.mixture import SourceMix
from ftkit.data.plan import PlanSettings, make_plan
from tests.data.planning import make_rows, make_sequences, near_tokens

NAMES = [f"row {index}" for index in range(25)]

SOURCES = st.lists(
    st.builds(
        SourceMix,
        role=st.sampled_from(["train", "train", "validation", "evaluation", "replay"]),
        weight=st.sampled_from([0.1, 0.5, 1.0, 1.7, 3.0]),
        max_rows=st.none() | st.integers(1, 10),
    ),
    min_size=1,
    max_size=5,
)
SETTINGS = st.builds(
    PlanSettings,
    validation=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
    max_length=st.none() | st.integers(50, 60),
    dedup=st.sampled_from(["off", "exact", "near"]),
    near_duplicates=st.sampled_from(["auto", True, False]),
    replay_share=st.sampled_from([0.0, 0.1, 0.6]),
    seed=st.integers(0, 2**32 - 1),
)
DRAWN = st.lists(
    st.tuples(st.sampled_from(["a", "a'", "b", "b'", *NAMES]), st.integers(0, 4), st.sampled_from("pqrst")),
    max_size=60,
)


def rows_of(drawn, sources, *, grouped):
    names = [name for name, _, _ in drawn]
    return names, make_rows(
        names,
        sources=[source % len(sources) for _, source, _ in drawn],
        groups=[group for _, _, group in drawn] if grouped else None,
        lengths=[50 + len(name) for name in names],
    )


@settings(max_examples=60, deadline=None)
@given(drawn=DRAWN, sources=SOURCES, asked=SETTINGS, grouped=st.booleans())
def test_for_any_rows_and_settings_the_plan_keeps_its_promises(drawn, sources, asked, grouped):
    names, rows = rows_of(drawn, sources, grouped=grouped)
    sequences = make_sequences([near_tokens(name) for name in names])
    result = make_plan(rows, sources, asked, sequences)
    role = [sources[source].role for source in rows.source]
    train, held = set(result.train.tolist()), set(result.validation.tolist())
    judged = held | {index for index, name in enumerate(role) if name == "evaluation"}

    assert result.rows_in == len(result.train) + len(result.validation) + sum(result.dropped.values())
    assert all(count > 0 for count in result.dropped.values())
    assert result.rows_in == len(names) - role.count("evaluation")
    assert not train & judged
    assert set(result.epoch.tolist()) == train
    assert result.train.tolist() == sorted(train)
    assert result.validation.tolist() == sorted(held)
    assert result.epoch.tolist() == sorted(result.epoch.tolist())
    assert all(role[row] in ("train", "replay") for row in train)
    assert all(role[row] in ("train", "validation") for row in held)
    # No group, and so no content where rows are not grouped, is split.
    from_train = {index for index, name in enumerate(role) if name == "train"}
    assert not {int(rows.group[row]) for row in train & from_train} & {
        int(rows.group[row]) for row in held & from_train
    }
    if asked.dedup != "off":
        contents = [names[row] for row in result.train]
        assert len(set(contents)) == len(contents)
        assert not set(contents) & {names[row] for row in judged}
    if asked.max_length is not None:
        assert all(50 + len(names[row]) <= asked.max_length for row in train | held)


@settings(max_examples=30, deadline=None)
@given(drawn=DRAWN, sources=SOURCES, asked=SETTINGS)
def test_the_same_rows_and_settings_give_the_same_plan(drawn, sources, asked):
    names, rows = rows_of(drawn, sources, grouped=False)
    sequences = make_sequences([near_tokens(name) for name in names])
    one, two = (make_plan(rows, sources, asked, sequences) for _ in range(2))

    assert one.epoch.tolist() == two.epoch.tolist()
    assert one.validation.tolist() == two.validation.tolist()
    assert (one.dropped, one.duplicates, one.near_leaks) == (two.dropped, two.duplicates, two.near_leaks)


@settings(max_examples=40, deadline=None)
@given(drawn=DRAWN, sources=SOURCES, asked=SETTINGS, order=st.randoms(use_true_random=False))
def test_shuffled_rows_get_the_same_plan(drawn, sources, asked, order):
    # Near-duplicates stay out: which of two near rows stands first decides which of them is left.
    asked = PlanSettings(**{**vars(asked), "dedup": "exact" if asked.dedup == "near" else asked.dedup})
    shuffled = order.sample(drawn, len(drawn))
    plans = []
    for each in (drawn, shuffled):
        names, rows = rows_of(each, sources, grouped=False)
        # Among copies across sources, the first in file order stays: only the order within sources is shuffled.
        at = np.argsort(rows.source, kind="stable").tolist()
        names, rows = rows_of([each[index] for index in at], sources, grouped=False)
        result = make_plan(rows, sources, asked)
        taken = Counter((names[row], int(rows.source[row])) for row in result.epoch)
        held = Counter((names[row], int(rows.source[row])) for row in result.validation)
        plans.append((taken, held, result.dropped, result.duplicates.count, result.leaks.count))

    assert plans[0] == plans[1]
