"""report.html of a mixture whose halves rule tokens out: such a weight has no point, and no page fails for it."""

from __future__ import annotations

import math

import pytest
import torch

from ftkit.hybrid.page import write_hybrid_page
from ftkit.hybrid.weighed import verdict
from ftkit.hybrid.weights import choose_weight


class Halves:
    """Two tokens, as each half finds them likely."""

    def __init__(self, first, second):
        self.first = torch.tensor(first, dtype=torch.float64).log()
        self.own = torch.tensor(second, dtype=torch.float64).log()

    def second(self, _):
        return self.own


def result_of(first, second, weights):
    choice = choose_weight([Halves(first, second)], weights=weights, temperatures=(0.2, 1.0)).to_dict()
    halves = [next(one["nll"] for one in choice["curve"] if one["weight"] == weight) for weight in (0, 1)]
    return {
        "kind": "mixture",
        "because": verdict(("tuned", "docs"), choice, halves),
        "halves": ["tuned", "docs"],
        "weight": choice["weight"],
        "temperature": choice["temperature"],
        "dev": {"nll": choice["nll"], "halves": halves},
        "choice": choice,
        "validation": {"questions": 1, "left_out": 0, "tokens": 2, "nll": None, "halves": [None, None]},
    }


@pytest.mark.parametrize(
    ("first", "second", "weights", "drawn"),
    [
        ([0.5, 0.5], [0.0, 0.9], [0.5], True),  # weight 1 has no point
        ([0.0, 0.9], [0.9, 0.0], [0.5], True),  # neither end has one
        ([0.5, 0.5], [0.0, 0.0], [], True),  # weight 0 alone has one
        ([0.0, 0.9], [0.9, 0.0], [], False),  # none has
        ([0.0, 0.9], [0.0, 0.9], [0.5], False),  # both rule out the same token
    ],
)
def test_what_is_ruled_out_has_no_point_and_the_page_is_written(tmp_path, first, second, weights, drawn):
    result = result_of(first, second, weights)
    page = write_hybrid_page(tmp_path, result).read_text()

    assert ("<polyline" in page) is drawn
    assert ("Every weight that was tried rules a token out." in page) is not drawn
    assert not any(word in page for word in ("None", "nan", "inf<")) and math.isfinite(result["weight"])
