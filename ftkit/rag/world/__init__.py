"""A closed world to compare on: fictional documents, and questions that only they answer.

Fine-tuning, retrieval and both together are compared on what no language model has met before: every name and value
is drawn, every question has one right answer or none, and facts can change afterwards.
"""

from ftkit.rag.world.closed import ClosedWorld, closed_world, world_summary
from ftkit.rag.world.parts import Document, Edit, Fact, Question, Subject, WorldSettings

__all__ = [
    "ClosedWorld", "Document", "Edit", "Fact", "Question", "Subject", "WorldSettings", "closed_world",
    "world_summary",
]  # fmt: skip
