"""Is it right? Simulates the world from a story's text alone; knows neither grammar nor generator.

>>> story = "Lily, Tom and Mia were in the barn. Lily had a ball. Lily gave the ball to Tom."
>>> check(story, "Who has the ball?", " Lily has the ball. Now Tom has the ball.\\nAnswer: Tom")
Verdict(answer='Tom', right=True, sound=True)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from phi_train.errors import DataError

__all__ = ["Verdict", "check", "solve"]

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
AT = r"(?P<at>(?:in|on|at|to) the (?P<place>[a-z]+))"
SENTENCES = {
    "begin": re.compile(rf"(?P<a>\w+), (?P<b>\w+) and (?P<c>\w+) were {AT}"),
    "had": re.compile(r"(?P<who>\w+) had an? (?P<thing>[a-z ]+)"),
    "count": re.compile(rf"(?P<who>\w+) had (?P<number>{'|'.join(NUMBERS)}) (?P<foods>[a-z]+)"),
    "share": re.compile(r"(?P<who>\w+) gave one (?P<food>[a-z]+) to (?P<other>\w+)"),
    "give": re.compile(r"(?P<who>\w+) gave the (?P<thing>[a-z ]+) to (?P<other>\w+)"),
    "move": re.compile(rf"(?P<who>\w+) (?:went|ran|walked) {AT}"),
    "nothing": re.compile(r"\w+ opened the bag"),
}
HOLDER = re.compile(r"Who has the (?P<thing>[a-z ]+)\?")
PLACE = re.compile(r"Where is (?P<who>[A-Z]\w*)\?")
THING_PLACE = re.compile(r"Where is the (?P<thing>[a-z ]+)\?")
COUNT = re.compile(r"How many (?P<foods>[a-z]+) does (?P<who>\w+) have\?")
ANSWER = "\nAnswer: "


@dataclass(frozen=True)
class Verdict:
    """answer: what was answered, None for nothing. right: that it is true. sound: that the
    rationale before it is the true course of states, each told once, nothing else.
    """

    answer: str | None
    right: bool
    sound: bool


def check(story: str, question: str, completion: str) -> Verdict:
    """What a completion of a prompt is worth. Raises DataError for a story it cannot follow."""
    facts, truth = solve(story, question)
    rationale, mark, answer = completion.partition(ANSWER)
    if not mark or "\n" in answer:
        return Verdict(None, right=False, sound=False)
    told = [_fact(sentence) for sentence in rationale.strip().removesuffix(".").split(". Now ")]
    return Verdict(answer, right=answer == truth, sound=told == [_fact(fact) for fact in facts])


def solve(story: str, question: str) -> tuple[list[str], str]:
    """The states asked for, first to last, and the answer. Raises DataError for other texts."""
    states: list[str] = []
    answer = ""
    world = _Follower()
    for sentence in story.removesuffix(".").split(". "):
        world.follow(sentence)
        if world.knows(question):
            state, answer = world.reply(question)
            if not states or state != states[-1]:
                states.append(state)
    if not states:
        raise DataError(f"the story does not say what {question!r} asks")
    return states, answer


def _fact(sentence: str) -> str:
    return " ".join(sentence.split())


class _Follower:
    """Who is where, who has what, and how much, after the sentences so far."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.number: dict[str, int] = {}
        self.foods = self.food = ""

    def follow(self, sentence: str) -> None:
        """Takes in what one sentence says; DataError if it says nothing known."""
        for kind in ("begin", "count", "had", "share", "give", "move", "nothing"):
            if found := SENTENCES[kind].fullmatch(sentence):
                self._take(kind, found.groupdict())
                return
        raise DataError(f"cannot follow the sentence {sentence!r} of a story")

    def _take(self, kind: str, said: dict[str, str]) -> None:
        if kind == "begin":
            self.where = dict.fromkeys((said["a"], said["b"], said["c"]), said["at"])
        elif kind == "had":
            self.owner[said["thing"]] = said["who"]
        elif kind == "count":
            self.number = dict.fromkeys(self.where, 0)
            self.number[said["who"]] = NUMBERS.index(said["number"])
            self.foods = said["foods"]
        elif kind == "share":
            self.food = said["food"]
            self.number[said["who"]] -= 1
            self.number[said["other"]] += 1
        elif kind == "give":
            self.owner[said["thing"]] = said["other"]
        elif kind == "move":
            self.where[said["who"]] = said["at"]

    def knows(self, question: str) -> bool:
        """Whether the story has come to what the question is about."""
        if found := HOLDER.fullmatch(question) or THING_PLACE.fullmatch(question):
            return found["thing"] in self.owner
        if found := PLACE.fullmatch(question):
            return found["who"] in self.where
        found = COUNT.fullmatch(question)
        return found is not None and found["who"] in self.number

    def reply(self, question: str) -> tuple[str, str]:
        """The state now, in words, and the answer that it means."""
        if found := HOLDER.fullmatch(question):
            who = self.owner[found["thing"]]
            return f"{who} has the {found['thing']}", who
        if found := THING_PLACE.fullmatch(question):
            who = self.owner[found["thing"]]
            where, place = self._spot(who)
            return f"{who} has the {found['thing']} {where}", place
        if found := PLACE.fullmatch(question):
            where, place = self._spot(found["who"])
            return f"{found['who']} is {where}", place
        found = COUNT.fullmatch(question)
        if found is None or found["foods"] != self.foods:
            raise DataError(f"cannot tell what {question!r} asks of this story")
        n = self.number[found["who"]]
        word = "no" if n == 0 else NUMBERS[n]
        amount = f"one {self.food}" if n == 1 else f"{word} {self.foods}"
        return f"{found['who']} has {amount}", NUMBERS[n]

    def _spot(self, who: str) -> tuple[str, str]:
        """('in the barn', 'barn'): going to the hill, one is on it afterwards."""
        place = self.where[who].rsplit(" ", 1)[1]
        return f"{PREPOSITION.get(place, 'in')} the {place}", place


PREPOSITION = {"hill": "on", "bridge": "on", "street": "on", "island": "on", "mountain": "on"}
