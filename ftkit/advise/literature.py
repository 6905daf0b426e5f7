"""What papers found, as tendencies; each says who, when and on what. One's own measurement replaces them."""

from __future__ import annotations

from ftkit.advise.options import Belief, Option, Reason
from ftkit.recipe.advise import AdviseSpec

MANY_DOCUMENTS = 5_000
ENOUGH_EXAMPLES = 500


def findings(spec: AdviseSpec) -> list[Belief]:
    """Those that bear on the situation."""
    situation, knowledge = spec.situation, spec.knowledge
    found = [
        _finding(
            "style", {"fine-tuning": 0.25, "hybrid": 0.2}, "L-lima",
            "a thousand examples teach a model a form and a tone (Zhou et al. 2023, arXiv:2305.11206, 65B)",
        ),
        _finding(
            "factuality", {"fine-tuning": -0.08, "prompting": -0.05}, "L-new-facts",
            "tuning on facts that are new to a model makes it invent more (Gekhman et al. 2024, arXiv:2405.05904, "
            "PaLM 2-M)",
        ),
    ]  # fmt: skip
    if situation.documents is not None and situation.documents > 0:
        found += [
            _finding(
                "accuracy", {"rag": 0.15, "hybrid": 0.15, "prompting": -0.1}, "L-retrieval",
                "retrieval beat tuning on the documents' text, for known and for new facts (Ovadia et al. 2023, "
                "arXiv:2312.05934, 7B)",
            ),
            _finding(
                "factuality", {"rag": 0.2, "hybrid": 0.2, "prompting": -0.05}, "L-grounding",
                "retrieval lowered invented answers in dialogue (Shuster et al. 2021, arXiv:2104.07567, up to 3B)",
            ),
        ]  # fmt: skip
        if situation.documents >= MANY_DOCUMENTS:
            text = (
                "facts that are seen seldom are retrieved far better than remembered (Soudani et al. 2024, "
                "arXiv:2403.01432, up to 11B)"
            )
            for criterion in ("accuracy", "factuality"):
                found.append(
                    _finding(criterion, {"rag": 0.15, "hybrid": 0.1, "fine-tuning": -0.12}, "L-rare-facts", text)
                )
    if knowledge.specialised and knowledge.stability == "stable":
        found.append(
            _finding(
                "accuracy",
                {"fine-tuning": 0.2, "hybrid": 0.15, "prompting": -0.1},
                "L-domain",
                "tuning on a specialised domain added 6 points of accuracy, retrieval 5 more (Balaguer et al. 2024, "
                "arXiv:2401.08406, up to GPT-4)",
            )
        )
    if situation.examples is not None and situation.examples >= ENOUGH_EXAMPLES and (situation.documents or 0) > 0:
        found.append(
            _finding(
                "accuracy",
                {"hybrid": 0.08},
                "L-raft",
                "a reader tuned on right passages among wrong ones reads better (Zhang et al. 2024, "
                "arXiv:2403.10131, 7B)",
            )
        )
    return found


def _finding(criterion: str, effects: dict[Option, float], identifier: str, text: str) -> Belief:
    return Belief(criterion=criterion, effects=effects, reason=Reason(text=text, id=identifier))  # type: ignore[arg-type]
