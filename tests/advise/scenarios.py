"""Ten situations that organisations are in, and the approach that is usually right there."""

from __future__ import annotations

from typing import Any

# Name: (situation, expected choice). `reversed` evidence turns what is measured for the expected one against it.
SCENARIOS: dict[str, tuple[dict[str, Any], str]] = {
    "stable specialised domain": (
        {
            "knowledge": {"stability": "stable", "changes_per_month": 0.0, "specialised": True},
            "verifiability": {"citations": "unneeded"},
            "situation": {"examples": 2000},
        },
        "fine-tuning",
    ),
    "style and tone": (
        {
            "priorities": {"style": 3.0, "consistency": 2.0, "accuracy": 1.0},
            "situation": {"examples": 1000},
            "knowledge": {"stability": "stable"},
        },
        "fine-tuning",
    ),
    "offline without internet": (
        {"situation": {"offline": True, "remote_index": True, "examples": 500}, "knowledge": {"stability": "stable"}},
        "fine-tuning",
    ),
    "consistent output": (
        {"priorities": {"consistency": 3.0, "accuracy": 1.0}, "situation": {"examples": 800}},
        "fine-tuning",
    ),
    "high volume and low latency": (
        {
            "priorities": {"latency": 3.0, "cost": 2.0, "accuracy": 1.0},
            "situation": {"requests_per_second": 50.0, "examples": 1000},
            "knowledge": {"stability": "stable"},
        },
        "fine-tuning",
    ),
    "fast-changing knowledge": (
        {
            "knowledge": {"stability": "fast", "changes_per_month": 30.0},
            "update": {"deadline_hours": 1.0},
            "situation": {"documents": 500, "examples": 0},
        },
        "rag",
    ),
    "highly fact-dependent": (
        {
            "priorities": {"factuality": 3.0, "accuracy": 2.0, "cost": 1.0},
            "situation": {"documents": 20000, "examples": 20},
            "knowledge": {"stability": "slow"},
        },
        "rag",
    ),
    "legal and compliance with citations": (
        {
            "verifiability": {"citations": "required"},
            "priorities": {"factuality": 3.0, "cost": 2.0, "accuracy": 2.0},
            "situation": {"documents": 3000},
            "resources": {"expertise": "low"},
            "knowledge": {"stability": "slow", "changes_per_month": 2.0},
        },
        "rag",
    ),
    "knowledge over many domains": (
        {
            "knowledge": {"specialised": False, "stability": "slow", "changes_per_month": 6.0},
            "situation": {"documents": 100000, "examples": 30},
            "priorities": {"accuracy": 3.0, "cost": 1.0},
        },
        "rag",
    ),
    "transparent systems": (
        {
            "verifiability": {"citations": "required"},
            "priorities": {"factuality": 2.0, "cost": 2.0},
            "situation": {"documents": 200, "examples": 10},
        },
        "rag",
    ),
}  # fmt: skip


def comparison(good: dict[str, float], *, spread: float = 0.04) -> dict[str, Any]:
    """A comparison.json in which these systems answer so many questions right and invent the rest."""

    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - spread, "high": value + spread}

    return {
        "systems": {
            name: {
                "exact_match": figure(share),
                "risk": figure(1 - share),
                "style": figure(share),
                "consistency": figure(share),
                "latency_s.generate.p50": {"value": 1.0, "low": None, "high": None},
            }
            for name, share in good.items()
        },
        "scale": {"model": "tiny", "test_questions": 200, "date": "2026-11-26"},
    }
