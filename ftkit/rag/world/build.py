"""The subjects of a world, drawn one after the other, so that a larger world begins like a smaller one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ftkit.rag.world.draw import Draw
from ftkit.rag.world.kinds import CYCLE, KINDS
from ftkit.rag.world.names import Names
from ftkit.rag.world.parts import Role, Subject, Value, WorldSettings, days_after
from ftkit.rag.world.values import new_value

FIRST_DAY, DAYS = "2022-01-01", 700
# Were it all of them, the first would be everybody's supplier and a good guess.
RECENT = 8

Linked = dict[tuple[str, str], list[str]]


def draw_subjects(settings: WorldSettings) -> list[Subject]:
    """All subjects of a new world, each followed by its distractor and a page of noise where it has them."""
    names, linked = Names(), Linked()
    subjects: list[Subject] = []
    for index in range(settings.subjects):
        draw = Draw(settings.seed, "subject", index)
        date = days_after(FIRST_DAY, draw.below(DAYS))
        subject = new_subject(CYCLE[index % len(CYCLE)], draw, names, linked, settings, date)
        subjects.append(subject)
        link(subject, linked)
        if draw.chance(settings.distractors):
            subjects.append(_distractor(subject, draw, names))
        if draw.chance(settings.noise):
            subjects.append(_plain("noise", _name("noise", draw, names), "noise", draw))
    return subjects


def new_subject(kind: str, draw: Draw, names: Names, linked: Linked, settings: WorldSettings, date: str) -> Subject:
    """A subject with a value for each relation of its kind, or for all but one.

    A value that can be a subject is a recent one of the same split, so that a question of two hops needs documents
    of one split. Where there is none yet, it is a name without a document.
    """
    name = _name(kind, draw, names)
    bare = Subject(name=name, kind=kind, role="subject", since=date, date=date, values={})
    values = {}
    for relation in KINDS[kind].relations:
        others = linked.get((bare.split, relation.leads_to), [])[-RECENT:]
        text = draw.one(others) if others else new_value(relation.value, draw, names)
        values[relation.name] = Value(text, date)
    if draw.chance(settings.unanswerable):
        del values[draw.one(list(values))]
    return replace(bare, values=values)


def link(subject: Subject, linked: Linked) -> None:
    """Let later subjects refer to this one."""
    linked.setdefault((subject.split, subject.kind), []).append(subject.name)


def links_of(subjects: Iterable[Subject]) -> Linked:
    """What new subjects can refer to: subjects whose documents stand."""
    linked = Linked()
    for subject in subjects:
        if subject.role == "subject" and not subject.gone:
            link(subject, linked)
    return linked


def names_of(subjects: Iterable[Subject]) -> Names:
    """All names of a world, those that are only values among them, as taken."""
    used = []
    for subject in subjects:
        used.append(subject.name)
        used += [value.text for value in subject.values.values()]
    return Names(used)


def _name(kind: str, draw: Draw, names: Names) -> str:
    return f"{names.stem(draw)} {draw.one(KINDS[kind].nouns)}".strip()


def _plain(kind: str, name: str, role: Role, draw: Draw) -> Subject:
    date = days_after(FIRST_DAY, draw.below(DAYS))
    return Subject(name=name, kind=kind, role=role, since=date, date=date, values={})


def _distractor(subject: Subject, draw: Draw, names: Names) -> Subject:
    """Something with nearly the same name that states every relation, with other values.

    It states what the subject's document leaves out too: only who mixes the two up answers that.
    """
    plain = _plain(subject.kind, names.similar(subject.name, draw), "distractor", draw)
    values = {}
    for relation in subject.wording.relations:
        own = subject.values.get(relation.name)
        text = new_value(relation.value, draw, names, avoid=(own.text,) if own else ())
        values[relation.name] = Value(text, plain.date)
    return replace(plain, values=values, twin=subject.name)
