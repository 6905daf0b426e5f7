"""Sections of comparison.html beside quality, tests and cost: each None where nothing of it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.compare.document import between, cell, signed
from ftkit.report.intervals import IntervalBar, interval_chart
from ftkit.report.markup import Markup, element, note, section, table
from ftkit.report.svg import Series, line_chart, nth_style

BEHAVIOUR = (
    ("citation_recall", "answers that their citations support"),
    ("citation_precision", "citations that are needed"),
    ("style_match", "form like the references'"),
    ("style_likeness", "form like the references', by a classifier"),
    ("wording_accuracy", "right, over eight wordings"),
    ("wording_agreement", "same answer in eight wordings"),
    ("wording_style", "same form in eight wordings"),
    ("follows_passage", "says what an altered passage says"),
    ("follows_memory", "says what it said before"),
    ("nll_rare", "nats a token, facts in one place"),
    ("nll_two_documents", "nats a token, two documents"),
)


def claims_section(document: Mapping[str, Any]) -> Markup | None:
    """What became of each claim."""
    rows = claim_rows(document)
    if not rows:
        return None
    verdicts = [one["verdict"] for one in document["claims"]]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
    return section(
        "claims",
        "What is said, held against the figures",
        element("p", f"Of {len(rows)} claims: {counts}."),
        table(list(CLAIM_HEAD), rows, numeric=(3, 4, 5, 6)),
        note(
            "Written down before the run. Supported: the first system is better and chance is no explanation, at a "
            "level of 5 % over all claims together (Holm). Refuted: the opposite, in the same way; of a claim with a "
            "margin, that it is not better by so much. Undetermined: this many questions cannot tell; answers about "
            "one document stand or fall together, so the number of documents that count is what matters. Counted "
            "figures have no chance in them. All of it holds at this scale."
        ),
    )


CLAIM_HEAD = ("claim", "verdict", "held against each other", "effect", "95 % interval", "documents", "p (Holm)")


def claim_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Each claim with its effect, as text."""
    rows = []
    for one in document["claims"]:
        rows.append(
            [
                one["text"],
                one["verdict"],
                f"{one['a']} – {one['b']}, {one['metric']}",
                signed(one["difference"]),
                "counted" if one["test"] == "counted" else between(one),
                "–" if one["documents"] is None else str(one["documents"]),
                "–" if one["p_holm"] is None else f"{one['p_holm']:.4f}",
            ]
        )
    return rows


def staged_section(document: Mapping[str, Any]) -> Markup | None:
    """Which rungs were climbed."""
    staged = document["staged"]
    if staged is None or staged["stands"] is None:
        return None
    rows = [
        [
            one["rung"],
            one["against"],
            signed(one["difference"]),
            between(one),
            "–" if one["p"] is None else f"{one['p']:.4f}",
            {True: "stands", False: "left out", None: "not measured yet"}[one["accepted"]],
        ]
        for one in staged["steps"]
    ]
    return section(
        "staged",
        "Rung by rung",
        element("p", f"{staged['stands']} stands."),
        table(["tried", "against", staged["metric"], "95 % interval", "p", ""], rows, numeric=(2, 3, 4)),
        note(
            "A rung stands where it beats what stood before it on the same questions, at a level of "
            f"{staged['level']:g} divided by the number of steps."
        ),
    )


def behaviour_section(document: Mapping[str, Any]) -> Markup | None:
    """Citations, style, wordings, passages that say otherwise, rare facts."""
    systems = document["systems"]
    known = [(key, words) for key, words in BEHAVIOUR if any(key in figures for figures in systems.values())]
    if not known:
        return None
    rows = [[words, *(cell(figures.get(key)) for figures in systems.values())] for key, words in known]
    return section(
        "behaviour",
        "Behaviour",
        table(["figure", *systems], [[row[0], *map(_stacked, row[1:])] for row in rows],
              numeric=tuple(range(1, len(systems) + 1))),
        note("Shares from 0 to 1 unless said otherwise. A dash: the system has no such figure." + _judged(document)),
    )  # fmt: skip


def _judged(document: Mapping[str, Any]) -> str:
    """How far the classifier of form can be trusted."""
    style = document["style"]
    if style is None or style["held_out_accuracy"] is None:
        return ""
    told = f"tells the two apart in {style['held_out_accuracy']:.0%} of held-out answers"
    return (
        f" The classifier of form learnt from {style['questions']} training questions how the wanted answers differ "
        f"from the untuned model's; it {told}{'' if style['crisp'] else ', too few to measure with it'}."
    )


def _stacked(text: str) -> Markup:
    value, _, between = text.partition(" (")
    return element("span", value, element("span", between.rstrip(")"), class_="between") if between else None)


def forgetting_section(document: Mapping[str, Any]) -> Markup | None:
    """Bars of what each system's generator lost on general text."""
    charts: list[str | None] = []
    for key, words in (
        ("bits_per_byte", "Bits per byte of general text; further left is better, the base is the mark"),
        ("kl_to_base", "How far next-token distributions moved from the base, nats a token"),
        (
            "choice_accuracy",
            "Share of general questions whose right answer is the likeliest; further right is better",
        ),
    ):
        bars = [
            IntervalBar(name=name, value=one[key]["value"], low=one[key]["low"], high=one[key]["high"])
            for name, one in document["systems"].items()
            if key in one
        ]
        if bars:
            charts += [interval_chart(bars, title=words), note(words)]
    return section("forgetting", "What was forgotten elsewhere", *charts) if charts else None


def curves_section(document: Mapping[str, Any]) -> Markup | None:
    """What more training questions bring."""
    curves = document["curves"]
    if not curves:
        return None
    series = [
        Series(
            name=name,
            points=[(point["questions"], point["nll"]["value"]) for point in points],
            style=nth_style(number),
            markers=True,
        )
        for number, (name, points) in enumerate(curves.items())
    ]
    words = "Nats a token of the right answer over the number of training questions; lower is better"
    chart = line_chart(
        series, title=words, size=(760, 300), y_text=lambda y: f"{y:.3f}", label_width=210,
        x_title="training questions",
    )  # fmt: skip
    return section("curves", "What more examples bring", chart, note(words))


def updates_section(document: Mapping[str, Any]) -> Markup | None:
    """Whether answers follow edits, and what that takes."""
    counts = document["settings"]["measure"]["updates"]
    rows = [
        [
            name,
            str(count),
            *(cell(one.get(f"{key}_{count}")) for key in ("updated", "stale", "unharmed")),
            f"{one[f'update_s_{count}']['value']:,.1f}",
            f"{one[f'update_flops_{count}']['value'] / 1e12:,.4f}",
        ]
        for count in counts
        for name, one in document["systems"].items()
        if f"updated_{count}" in one
    ]
    if not rows:
        return None
    head = ["system", "edits", "new answer", "old answer", "others unharmed", "seconds", "TFLOP"]
    return section(
        "updates",
        "When documents change",
        table(head, rows, numeric=tuple(range(1, len(head)))),
        note(
            "Shares of the edited facts that are answered as the documents say now, and as they said before. With "
            "passages an edit is a new version in the index; a system that learnt documents by heart, and is given "
            "none, is trained anew. Combinations keep what their generators learnt."
        ),
    )


def lifecycle_section(document: Mapping[str, Any]) -> Markup | None:
    """What each way is made of and takes."""
    rows = [
        [
            name,
            f"{len(one['components'])}: {', '.join(one['components'])}",
            f"{len(one['setup'])}: {'; '.join(one['setup'])}",
            "–" if one["setup_s"] is None else f"{one['setup_s']:,.0f}",
            f"{sum(one['disk_bytes'].values()) / 2**20:,.0f}",
            f"{one['memory_bytes'] / 2**20:,.0f}",
            one["on_change"],
        ]
        for name, one in document["lifecycle"].items()
    ]
    if not rows:
        return None
    head = ["system", "components", "set-up steps", "seconds", "disk, MiB", "memory, MiB", "when a document changes"]
    return section(
        "lifecycle",
        "Cost over its life",
        table(head, rows, numeric=(3, 4, 5, 6)),
        note(
            "Counted from these runs; memory: weights, adapters and vectors, without activations. Writing questions "
            "with answers, and judging whether answers are right, are people's work and are not counted in seconds."
        ),
    )
