"""What follows from the situation itself, whatever anybody has measured: vetoes and tendencies, each with an id."""

from __future__ import annotations

from ftkit.advise.options import Belief, Option, Reason, Veto
from ftkit.recipe.advise import AdviseSpec

FEWEST_EXAMPLES = 50
# Below this there is nothing that a small model could be trained on: SmolLM2-135M with LoRA takes 2.5 GiB here.
LEAST_MEMORY_GIB = 2.0
RETRAINING_HOURS = 24.0  # data, training, verification and the decision to put it in place
BUSY = 5.0  # requests a second


def vetoes(spec: AdviseSpec) -> list[Veto]:
    """Options that cannot do what is asked."""
    found: list[Veto] = []

    def out(options: tuple[Option, ...], identifier: str, text: str) -> None:
        found.extend(Veto(option=option, reason=Reason(text=text, id=identifier)) for option in options)

    situation, knowledge = spec.situation, spec.knowledge
    if spec.verifiability.citations == "required":
        out(
            ("prompting", "fine-tuning"), "V-citations",
            "citations are required, and what stands in weights has no source to cite",
        )  # fmt: skip
    if situation.documents == 0:
        out(("rag", "hybrid"), "V-documents", "there are no documents to retrieve from")
    if situation.offline and situation.remote_index:
        out(("rag", "hybrid"), "V-offline", "it answers offline, and the documents can only be searched remotely")
    if situation.examples is not None and situation.examples < FEWEST_EXAMPLES:
        text = f"{situation.examples} examples are too few to tune on; {FEWEST_EXAMPLES} are the least"
        out(("fine-tuning", "hybrid"), "V-examples", text)
    if spec.resources.memory_gib is not None and spec.resources.memory_gib < LEAST_MEMORY_GIB:
        text = (
            f"{spec.resources.memory_gib:g} GiB of memory train nothing; the smallest run takes {LEAST_MEMORY_GIB:g}"
        )
        out(("fine-tuning", "hybrid"), "V-memory", text)
    deadline = spec.update.deadline_hours
    changing = knowledge.stability == "fast" or (knowledge.changes_per_month or 0.0) >= 4
    if deadline is not None and deadline < RETRAINING_HOURS and changing:
        text = (
            f"changes must be in the answers within {deadline:g} hours, and keep coming: training, checking and "
            f"replacing a model each time takes about {RETRAINING_HOURS:g}"
        )
        out(("fine-tuning",), "V-deadline", text)
        out(("prompting",), "V-deadline", "a model that is only asked never learns of a change")
    return found


def beliefs(spec: AdviseSpec) -> list[Belief]:
    """Tendencies that the situation implies."""
    found = [*_knowledge(spec), *_examples(spec), *_resources(spec), *_serving(spec)]
    if spec.verifiability.citations == "useful":
        found.append(
            _belief(
                "factuality",
                {"rag": 0.15, "hybrid": 0.15},
                "R-citations",
                "citations are useful: answers with sources can be checked",
            )
        )
    return found


def _knowledge(spec: AdviseSpec) -> list[Belief]:
    knowledge, found = spec.knowledge, []
    # Weeks between changes and changes a month say the same thing; the worse of the two counts.
    age = {"stable": 0.0, "slow": 0.3, "fast": 1.0}.get(knowledge.stability or "", 0.0)
    age = max(age, min(1.0, (knowledge.changes_per_month or 0.0) / 8))
    if age:
        text = "knowledge changes: weights keep what they were trained on, a document can be replaced at once"
        for criterion in ("accuracy", "factuality"):
            effects: dict[Option, float] = {
                "fine-tuning": -0.45 * age, "prompting": -0.35 * age, "rag": 0.15 * age, "hybrid": 0.12 * age,
            }  # fmt: skip
            found.append(_belief(criterion, effects, "R-change", text))
        found.append(
            _belief(
                "cost",
                {"fine-tuning": -0.3 * age, "hybrid": -0.1 * age},
                "R-retraining",
                "each change of knowledge in weights is another training",
            )
        )
    if knowledge.stability == "stable" and not knowledge.changes_per_month:
        found.append(
            _belief(
                "cost",
                {"fine-tuning": 0.1, "rag": -0.05, "hybrid": -0.1},
                "R-stable",
                "knowledge that stays is trained once; an index is looked after for ever",
            )
        )
    return found


def _resources(spec: AdviseSpec) -> list[Belief]:
    resources, found = spec.resources, []
    if resources.expertise == "low":
        found.append(
            _belief(
                "cost",
                {"fine-tuning": -0.1, "hybrid": -0.25, "prompting": 0.05},
                "R-expertise",
                "with little experience each further part costs more than it shows",
            )
        )
    if resources.gpu is False and (resources.memory_gib or 0.0) < 8:
        found.append(
            _belief(
                "cost",
                {"fine-tuning": -0.1, "hybrid": -0.1},
                "R-machine",
                "without a GPU and with little memory training takes hours",
            )
        )
    return found


def _examples(spec: AdviseSpec) -> list[Belief]:
    count = spec.situation.examples
    if count is None or count < 4 * FEWEST_EXAMPLES:
        return []
    text = f"{count} examples of the task are at hand; a prompt can show a handful of them"
    return [
        _belief("accuracy", {"fine-tuning": 0.15, "hybrid": 0.12}, "R-examples", text),
        _belief("factuality", {"fine-tuning": 0.05, "hybrid": 0.05}, "R-examples", text),
    ]


def _serving(spec: AdviseSpec) -> list[Belief]:
    found = [
        _belief("latency", {"fine-tuning": 0.2, "prompting": 0.12, "rag": -0.2, "hybrid": -0.2}, "R-prompt-length",
                "passages make every prompt several times longer, and each is searched for first"),
        _belief("cost", {"prompting": 0.2, "rag": 0.05, "fine-tuning": 0.0, "hybrid": -0.15}, "R-parts",
                "nothing to build, an index, a training, or both"),
        _belief("consistency", {"fine-tuning": 0.2, "hybrid": 0.08, "rag": -0.08, "prompting": -0.05}, "R-form",
                "a trained form is kept; passages bring forms of their own"),
    ]  # fmt: skip
    rate = spec.situation.requests_per_second
    if rate is not None and rate >= BUSY:
        found.append(
            _belief(
                "cost",
                {"fine-tuning": 0.2, "prompting": 0.05, "rag": -0.15, "hybrid": -0.15},
                "R-volume",
                f"at {rate:g} requests a second the longer prompts are paid for each time",
            )
        )
    return found


def _belief(criterion: str, effects: dict[Option, float], identifier: str, text: str) -> Belief:
    return Belief(criterion=criterion, effects=effects, reason=Reason(text=text, id=identifier))  # type: ignore[arg-type]
