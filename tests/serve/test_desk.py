"""One answer at a time, and none for who has gone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from ftkit.evaluate.generation import Answer
from ftkit.evaluate.speaking import Speech
from ftkit.serve.desk import Desk
from ftkit.serve.wire import Asked


class Endless:
    """A target that talks until it is told to end, or has said as many words as it was allowed."""

    def __init__(self):
        self.active, self.most, self.ended = 0, 0, threading.Event()

    def speak(self, ids, speech, *, say, ended):
        self.active += 1
        self.most = max(self.most, self.active)
        words = 0
        while words < speech.max_new_tokens and not ended():
            say(f"{words} ")
            words += 1
            time.sleep(0.001)
        self.active -= 1
        if ended():
            self.ended.set()
        return Answer(text="", tokens=words, finish_reason="length", wall_s=0.0)


def asked(target, words):
    return Asked(
        name="m", target=target, ids=[1], speech=Speech(max_new_tokens=words), stream=True, include_usage=False
    )


async def _all(desk, request):
    return [piece async for piece in desk.answer(request)]


def test_requests_are_answered_one_after_the_other_and_whole():
    target = Endless()

    async def several():
        desk = Desk()
        return await asyncio.gather(*(_all(desk, asked(target, words)) for words in (3, 1, 2)))

    answers = asyncio.run(several())

    assert target.most == 1
    assert [pieces[:-1] for pieces in answers] == [["0 ", "1 ", "2 "], ["0 "], ["0 ", "1 "]]
    assert [pieces[-1].tokens for pieces in answers] == [3, 1, 2]


def test_an_answer_ends_when_nobody_listens_any_more():
    target = Endless()

    async def leave():
        desk = Desk()
        async with contextlib.aclosing(desk.answer(asked(target, 10**9))) as pieces:
            await anext(pieces)
        return await _all(desk, asked(target, 1))

    after = asyncio.run(asyncio.wait_for(leave(), 30))

    assert target.ended.is_set()
    assert after[-1].tokens == 1
