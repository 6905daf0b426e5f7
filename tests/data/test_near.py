"""Nearly equal rows are found, measured exactly, and boilerplate makes no rows alike."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data import near
from ftkit.data.near import NearSearch
from ftkit.data.ngrams import NGrams, common_limit
from tests.data.planning import make_sequences


def words(count, seed):
    """Random ids: no two rows of them share an n-gram."""
    return random.Random(seed).sample(range(1000, 50_000), count)


def within(rows, **settings):
    found = NearSearch(make_sequences(rows), np.arange(len(rows)), **settings).within(np.arange(len(rows)))
    return list(zip(found.row.tolist(), found.other.tolist(), found.similarity.tolist(), strict=True))


def ngrams(row):
    return {tuple(row[at : at + 5]) for at in range(len(row) - 4)}


def jaccard(left, right):
    return len(ngrams(left) & ngrams(right)) / len(ngrams(left) | ngrams(right))


OTHERS = [words(60, seed) for seed in range(100, 120)]


# What counts as near


def test_one_replaced_token_in_the_middle_costs_five_ngrams_on_each_side():
    # 54 tokens are 50 n-grams; five of them read the replaced token: 45 shared, 50 + 50 - 45 = 55 in all.
    row = words(54, 0)
    changed = [*row[:27], 7, *row[28:]]

    assert within([row, changed, *OTHERS]) == [(1, 0, 45 / 55)]


def test_the_similarity_of_a_pair_at_the_threshold_is_still_near_and_below_it_is_not():
    # 13 tokens are 9 n-grams. A changed last token costs one on each side, 8 of 10; a second such change: 7 of 11.
    row = words(13, 0)

    assert within([row, [*row[:12], 7], *OTHERS]) == [(1, 0, 0.8)]
    assert within([row, [*row[:11], 7, 8], *OTHERS]) == []


def test_appended_text_counts_as_what_it_adds():
    # 40 n-grams, all of them among the other row's 44.
    row = words(48, 0)

    assert within([row[:44], row, *OTHERS]) == [(1, 0, 40 / 44)]


def test_rows_with_fewer_than_nine_ngrams_are_near_only_when_all_tokens_are_equal():
    short = words(12, 0)  # 8 n-grams
    longer = words(13, 1)

    assert within([short, [*short[:11], 7], longer, [*longer[:12], 7], short, *OTHERS]) == [(3, 2, 0.8), (4, 0, 1.0)]


def test_rows_without_ngrams_and_without_tokens_are_near_to_their_equals_alone():
    assert within([[1], [], [1], [2], [], *OTHERS]) == [(2, 0, 1.0), (4, 1, 1.0)]


def test_repeated_ngrams_count_once():
    # "1 2 3 4 5" over and over has five different n-grams, however often.
    assert within([[1, 2, 3, 4, 5] * 20, [1, 2, 3, 4, 5] * 10, *OTHERS]) == [(1, 0, 1.0)]


def test_the_same_tokens_in_another_order_are_not_near():
    row = words(60, 0)

    assert within([row, row[::-1], row[30:] + row[:30], *OTHERS]) == [(2, 0, 52 / 60)]  # only the seam differs


def test_every_row_is_joined_to_the_earliest_near_one():
    row = words(100, 0)
    copies = [[*row[:at], 7, *row[at + 1 :]] for at in (0, 50, 99)]

    assert [(found[0], found[1]) for found in within([row, *copies, *OTHERS])] == [(1, 0), (2, 0), (3, 0)]


def test_rows_of_one_set_are_searched_in_another_wherever_they_stand():
    row = words(54, 0)
    changed = [*row[:27], 7, *row[28:]]
    rows = [row, OTHERS[0], changed, *OTHERS[1:], row]
    search = NearSearch(make_sequences(rows), np.arange(len(rows)))

    found = search.across(np.array([0, 1]), np.array([2, 3, len(rows) - 1]))

    assert (found.row.tolist(), found.other.tolist(), found.similarity.tolist()) == ([0], [2], [45 / 55])


def test_only_the_rows_asked_for_are_compared():
    row = words(54, 0)
    rows = [row, row, *OTHERS, row]
    search = NearSearch(make_sequences(rows), np.array([0, 2, 3, 22]))

    found = search.within(np.array([2, 3, 22]))

    assert len(found) == 0


# Boilerplate


@pytest.mark.parametrize("count", [8, 40, 300])
def test_a_long_shared_system_prompt_makes_no_rows_alike(count):
    prompt = words(300, 0)
    rows = [prompt + words(20, seed) for seed in range(1, count + 1)]
    assert jaccard(rows[0], rows[1]) > 0.8

    assert within(rows) == []


def test_near_questions_are_found_behind_a_long_shared_system_prompt():
    prompt = words(300, 0)
    question = words(54, 1)
    rows = [prompt + words(40, seed) for seed in range(2, 60)]
    rows += [prompt + question, [*prompt, *question[:27], 7, *question[28:]]]

    # The prompt's n-grams are left out; four more run from it into the question, and are equal: 49 of 59.
    assert within(rows) == [(59, 58, 49 / 59)]


def test_rows_that_differ_in_boilerplate_alone_are_as_similar_as_all_their_tokens():
    # Every second row says 1 and the others 2, at the end of a sentence that all share: its n-grams are boilerplate,
    # and what is left of the last two rows is equal. With it, 54 + 10 tokens are 60 n-grams: 59 shared, 61 in all.
    sentence = words(9, 0)
    rows = [[*words(54, seed), *sentence, 1 + seed % 2] for seed in range(1, 60)]
    rows.append([*rows[-1][:-1], 3 - rows[-1][-1]])

    assert within(rows) == [(59, 58, 59 / 61)]


def test_short_questions_with_another_answer_are_not_near():
    # Without the answers' own n-grams, which are boilerplate, 13 of 15 are shared; with them, 13 of 23.
    question = words(14, 0)
    answers = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9, 10, 11, 12, 13]]
    rows = [words(14, seed) + answers[seed % 2] for seed in range(1, 60)]

    assert within([*rows, question + answers[0], question + answers[1]]) == []


def test_a_template_around_every_text_makes_no_rows_alike():
    rows = [[1, 2, 3, 4, 5, 6, 7, 8, 9] * 10 + words(12, seed) + [11, 12, 13, 14, 15] * 20 for seed in range(100)]

    assert within(rows) == []


def test_as_many_near_rows_as_the_limit_are_found_and_one_more_are_boilerplate():
    row = words(100, 0)
    copies = [[*row[:99], last] for last in range(11)]  # 95 n-grams in common
    others = [words(60, seed) for seed in range(1, 101)]

    assert common_limit(110) == common_limit(111) == 10
    assert [found[:2] for found in within(copies[:10] + others)] == [(index, 0) for index in range(1, 10)]
    assert within(copies + others) == []


def test_copies_of_one_row_do_not_make_its_text_boilerplate():
    row = words(54, 0)
    rows = [row] * 50 + [[*row[:27], 7, *row[28:]]] + OTHERS

    assert [found[1] for found in within(rows)] == [0] * 50
    assert within(rows)[-1] == (50, 0, 45 / 55)


# Against the definition


def doctored(seed, count=120):
    """Rows of two subjects' words with copies that differ in a few places, at every degree of likeness."""
    draw = random.Random(seed)
    rows = []
    while len(rows) < count:
        row = [draw.randrange(3000) for _ in range(draw.randrange(1, 80))]
        rows.append(row)
        for _ in range(draw.choice([0, 0, 1, 2])):
            copy = list(row)
            for _ in range(draw.randrange(4)):
                copy[draw.randrange(len(copy))] = draw.randrange(3000)
            rows.insert(draw.randrange(len(rows) + 1), copy[: draw.randrange(len(copy) - 3, len(copy) + 1)] or copy)
    return rows


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_is_found_is_what_comparing_every_pair_finds(seed):
    rows = doctored(seed)
    expected = []
    for index, row in enumerate(rows):
        for earlier, other in enumerate(rows[:index]):
            long_enough = min(len(row), len(other)) >= 13
            if row == other or (long_enough and jaccard(row, other) >= 0.8):
                expected.append((index, earlier, 1.0 if row == other else jaccard(row, other)))
                break

    # A pair at the threshold is missed with a probability of 0.0003.
    missed = set(expected) - set(within(rows))
    assert set(within(rows)) - set(expected) == set()
    assert all(similarity < 0.85 for _, _, similarity in missed)
    assert len(missed) <= 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), chunk_tokens=st.sampled_from([1, 7, 100, 5000]))
def test_the_size_of_chunks_changes_nothing(seed, chunk_tokens):
    rows = doctored(seed, count=40)

    assert within(rows, chunk_tokens=chunk_tokens) == within(rows)


def test_the_same_seed_finds_the_same_and_any_seed_finds_clear_cases():
    rows = doctored(0)
    clear = [found for found in within(rows) if found[2] > 0.9]

    assert within(rows, seed=5) == within(rows, seed=5)
    assert clear
    for seed in range(5):
        assert [found for found in within(rows, seed=seed) if found[2] > 0.9] == clear


def test_hash_functions_differ_by_seed_and_are_permutations():
    search = [NearSearch(make_sequences(OTHERS), np.arange(20), seed=seed) for seed in (0, 1)]

    assert not np.array_equal(search[0]._factors, search[1]._factors)
    assert len(set(search[0]._factors.tolist())) == 64
    assert (search[0]._factors % 2 == 1).all()


@pytest.mark.parametrize(("tokens", "shared"), [(104, 89), (404, 356)])
def test_signatures_agree_as_often_as_the_sets_are_similar(tokens, shared):
    # 85 of 115 n-grams, 0.739; 352 of 448, 0.786. Over 500 pairs of 64 numbers the standard error is 0.0025.
    rows = []
    for seed in range(500):
        text = [random.Random(seed).randrange(50_000) for _ in range(2 * tokens)]
        rows += [text[:tokens], text[:shared] + text[tokens : 2 * tokens - shared]]
    search = NearSearch(make_sequences(rows), np.arange(1000))
    signatures = search._signatures.reshape(500, 2, 64)

    agreeing = (signatures[:, 0] == signatures[:, 1]).mean()

    assert agreeing == pytest.approx(jaccard(rows[0], rows[1]), abs=0.01)


# Inputs that would be quadratic


def compared_pairs(monkeypatch, rows):
    """What is found, and how many pairs were compared exactly for it."""
    counted = []
    exact = NGrams.similarity

    def counting(self, left, right):
        counted.append(len(left))
        return exact(self, left, right)

    monkeypatch.setattr(NGrams, "similarity", counting)
    return within(rows), sum(counted)


def test_rows_that_share_a_prompt_alone_are_not_even_compared(monkeypatch):
    prompt = words(300, 0)

    assert compared_pairs(monkeypatch, [prompt + words(20, seed) for seed in range(1, 300)]) == ([], 0)


def test_rows_that_are_all_equal_are_joined_to_the_first_without_comparing_any(monkeypatch):
    row = words(60, 0)

    found, compared = compared_pairs(monkeypatch, [row] * 3000)

    assert found == [(index, 0, 1.0) for index in range(1, 3000)]
    assert compared == 0


def test_a_crowd_of_near_rows_costs_a_few_comparisons_a_row(monkeypatch):
    row = words(200, 0)
    crowd = [[*row[:at], 7, *row[at + 1 :]] for at in range(100)]
    rows = crowd + [words(20, seed) for seed in range(1, 2000)]

    found, compared = compared_pairs(monkeypatch, rows)

    assert [pair[0] for pair in found] == list(range(1, 100))
    assert 99 <= compared <= 2 * 99


def test_a_crowd_of_alike_but_not_near_rows_costs_a_few_comparisons_a_row(monkeypatch):
    # Any two differ in ten places: at most 146 of 246 n-grams, 0.59.
    row = words(200, 0)
    draw = random.Random(0)
    crowd = []
    for index in range(100):
        copy = list(row)
        for at in range(draw.randrange(10), 200, 20):
            copy[at] = 60_000 + index
        crowd.append(copy)
    rows = crowd + [words(20, seed) for seed in range(1, 2000)]

    found, compared = compared_pairs(monkeypatch, rows)

    assert found == []
    assert compared <= near.MAX_COMPARED * 100


@pytest.mark.parametrize("rows", [[], [[]], [[], []], [[1, 2, 3]], [words(60, 0)]])
def test_few_or_empty_rows_are_no_fault(rows):
    assert [found[2] for found in within(rows)] == [1.0] * (len(rows) - 1 if len(rows) > 1 else 0)
