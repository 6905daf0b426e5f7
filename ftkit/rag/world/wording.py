"""How the world speaks: for each relation the sentences that state it and the questions that ask for it.

``{it}`` is the subject, ``{value}`` the value. In a question of two hops ``{it}`` is a description of a subject, so
every question must read well with ``the company that makes the ... kettle`` in that place. Of each relation's
questions, the last shares no word of meaning with any sentence that states it: a search by words alone finds the
subject at most.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One thing that can be said of a kind of subject.

    Attributes:
        name: As in the id of a fact.
        value: The kind of value, a key of `VALUES`.
        sentences: Ways to state it.
        questions: Ways to ask for it.
        leads_to: The kind of subject that the value names; empty where the value is no subject.
        bridges: Descriptions of the value by way of the subject, where it leads to one.
    """

    name: str
    value: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    leads_to: str = ""
    bridges: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of subject.

    Attributes:
        article: What goes before its name in a sentence: ``the`` and a space, or nothing.
        nouns: The last word of its name; an empty one where the name is one word.
        openings: First sentences of its document.
        fillers: Sentences that say nothing anybody asks for.
        relations: What its document states.
    """

    article: str = ""
    nouns: tuple[str, ...]
    openings: tuple[str, ...]
    fillers: tuple[str, ...]
    relations: tuple[Relation, ...] = ()

    def relation(self, name: str) -> Relation:
        """One of its relations by name."""
        return next(relation for relation in self.relations if relation.name == name)
