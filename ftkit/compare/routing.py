"""A router over systems of a comparison: learnt from held-back questions, and asked through its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.compare.arms import Arm
from ftkit.compare.seat import Seat
from ftkit.compare.workload import Workload
from ftkit.errors import DataError
from ftkit.files import write_json
from ftkit.hybrid.router import Router, question_features
from ftkit.hybrid.training import learn_router
from ftkit.rag.cited import CitedAnswer
from ftkit.rag.encoder import Encoder
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.outcomes import Outcome
from ftkit.rag.questions import AskedQuestion, question_groups
from ftkit.recipe import CompareSpec
from ftkit.recipe.hybrid import RouterSection


@dataclass(frozen=True, kw_only=True)
class RoutedSeat:
    """A router, ready.

    Attributes:
        arm: It.
        seats: Its members, by name.
        tests: What they answered to the test questions, which the router's own answers are taken from.
        router: Chooses.
        encoder: Whose vectors it reads.
    """

    arm: Arm
    seats: Mapping[str, AnySeat]
    tests: Mapping[str, Evaluation]
    router: Router
    encoder: Encoder

    def routes(self, asked: Sequence[AskedQuestion]) -> list[str]:
        """The member for each question."""
        return self.router.routes(question_features(self.encoder, [one.question for one in asked]))

    def evaluate(self, questions: Sequence[AskedQuestion]) -> Evaluation:
        """Each test question as the member that it is sent to has answered it."""
        chosen: list[Outcome] = [self.tests[name].outcomes[at] for at, name in enumerate(self.routes(questions))]
        settings = {"router": list(self.router.members), "promoted": self.router.promoted, "best": self.router.best}
        return Evaluation(outcomes=tuple(chosen), threshold=None, settings=settings)

    def answers(self, asked: Sequence[AskedQuestion]) -> list[CitedAnswer]:
        """Its answers, in batches of each member's."""
        routes = self.routes(asked)
        found: dict[int, CitedAnswer] = {}
        for name, seat in self.seats.items():
            places = [at for at, route in enumerate(routes) if route == name]
            found |= dict(zip(places, seat.answers([asked[at] for at in places]), strict=True))
        return [found[at] for at in range(len(asked))]


AnySeat = Seat | RoutedSeat


def require_held(spec: CompareSpec, workload: Workload) -> None:
    """Held-back questions that combinations can be chosen by.

    Raises:
        DataError: There are too few, which would otherwise be known only after their systems are trained.
    """
    for name, system in spec.systems.items():
        if system.combines is None:
            continue
        if not any(one.answers for one in workload.held):
            raise DataError(
                f"{name}: no question that is held back has an answer, so there is nothing to choose by",
                fix="Raise data.validation, or name a file.",
            )
        if system.combines.kind == "router" and len(set(question_groups(workload.held))) < 2:
            raise DataError(
                f"{name}: a router needs held-back questions about two documents at least, which share no question",
                fix="Raise data.validation, or name a file.",
            )


def routed_seat(
    arm: Arm,
    seats: Mapping[str, AnySeat],
    held: Mapping[str, Evaluation],
    tests: Mapping[str, Evaluation],
    encoder: Encoder,
    stored: Path,
) -> RoutedSeat:
    """Learn a router.

    Args:
        arm: It.
        seats: Its members.
        held: What they answered to held-back questions.
        tests: What they answered to the test questions.
        encoder: Whose vectors it reads.
        stored: Where what it learnt is noted, to be looked at.
    """
    outcomes = {name: one.outcomes for name, one in held.items()}
    questions = [one.question for one in next(iter(outcomes.values()))]
    router, facts = learn_router(outcomes, questions, encoder, RouterSection())
    write_json(stored, facts)
    return RoutedSeat(arm=arm, seats=seats, tests=tests, router=router, encoder=encoder)
