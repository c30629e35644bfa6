"""Tasks: three ways to the truth agree (the story's writer, its parser, the checker)."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from phi_train import ConfigError, DataError
from phi_train.improve.checker import check, solve
from phi_train.improve.rationale import explain
from phi_train.improve.task import KINDS, SIDES, Task, side_of, tasks
from phi_train.improve.task_grammar import task_grammar
from phi_train.stories import check_grammar
from phi_train.stories.world import NUMBERS

EVENTS = (0, 1, 2, 3, 4, 6)
STORY = (
    "Lily, Tom and Mia were in the yard. Lily had a ball. Tom had a hat. Lily had two plums. "
    "Lily ran to the hill. Lily gave the ball to Tom. Lily opened the bag. "
    "Lily gave one plum to Mia. Tom went to the woods."
)


def some(number: int, *, seed: int = 3, side: str = "train") -> list[Task]:
    return list(islice(tasks(seed=seed, events=EVENTS, side=side), number))


def test_no_story_can_be_read_in_two_ways():
    check_grammar(task_grammar(3))


@pytest.mark.parametrize("side", SIDES)
def test_the_checker_confirms_what_the_writer_knows(side):
    for task in some(600, side=side):
        verdict = check(task.story, task.question, task.completion)
        assert (verdict.right, verdict.sound) == (True, True), task
        assert verdict.answer == task.answer


def test_the_checker_agrees_with_the_parser_s_world():
    """A world that the grammar's parser found in the text, asked directly."""
    for task in some(300, seed=8):
        world = task_grammar(task.events).parse(task.story).world
        for thing, holder in world.holder.items():
            assert solve(task.story, f"Who has the {thing.name}?")[1] == holder.name
            place = solve(task.story, f"Where is the {thing.name}?")[1]
            assert place == world.place[holder].name
        for child in world.cast:
            assert solve(task.story, f"Where is {child.name}?")[1] == world.place[child].name
            asked = f"How many {world.food.forms['some']} does {child.name} have?"
            assert solve(task.story, asked)[1] == NUMBERS[world.count.get(child, 0)]


def test_a_story_worked_out_by_hand():
    assert solve(STORY, "Where is the ball?") == (
        [
            "Lily has the ball in the yard",
            "Lily has the ball on the hill",
            "Tom has the ball in the yard",
            "Tom has the ball in the woods",
        ],
        "woods",
    )
    assert solve(STORY, "How many plums does Lily have?") == (
        ["Lily has two plums", "Lily has one plum"],
        "one",
    )
    assert solve(STORY, "How many plums does Tom have?") == (["Tom has no plums"], "none")


@pytest.mark.parametrize(
    ("completion", "right", "sound"),
    [
        (" Lily has the ball. Now Tom has the ball.\nAnswer: Tom", True, True),
        (" Tom has the ball.\nAnswer: Tom", True, False),
        (" Lily has the ball. Now Tom has the ball.\nAnswer: Lily", False, True),
        (" Lily has the ball. Now Tom has the ball.\nAnswer: Tom\n", False, False),
        (" Lily has the ball. Now Tom has the ball.", False, False),
        ("", False, False),
        ("\nAnswer: Tom", True, False),
        ("\nAnswer: tom", False, False),
    ],
)
def test_verdicts(completion, right, sound):
    verdict = check(STORY, "Who has the ball?", completion)
    assert (verdict.right, verdict.sound) == (right, sound)


@pytest.mark.parametrize(
    ("story", "question"),
    [
        (STORY, "Who has the kite?"),
        (STORY, "Why?"),
        (STORY, "How many eggs does Tom have?"),
        (STORY + " They slept.", "Who has the ball?"),
    ],
)
def test_what_cannot_be_followed_is_an_error(story, question):
    with pytest.raises(DataError):
        solve(story, question)


def test_sides_share_no_story_and_all_occur():
    found = {side: {task.story for task in some(400, side=side)} for side in SIDES}
    assert all(side_of(story) == side for side, stories in found.items() for story in stories)
    assert not found["train"] & found["test"]
    assert not found["train"] & found["development"]
    assert not found["development"] & found["test"]


def test_a_seed_means_the_same_tasks():
    assert some(50) == some(50)
    assert some(50) != some(50, seed=4)


def test_events_come_in_turn_and_kinds_all_occur():
    found = some(240)
    assert [task.events for task in found] == list(EVENTS) * 40
    assert {task.kind for task in found} == set(KINDS)


def test_more_events_mean_more_to_tell():
    def length(events: int) -> float:
        chosen = islice(tasks(seed=1, events=(events,), side="train"), 200)
        return sum(task.rationale.count("Now") for task in chosen) / 200

    assert length(0) == 0
    assert length(2) < length(4) < length(8)


def test_a_changed_answer_is_wrong():
    """The check tells answers apart: no other answer of the same kind passes."""
    found = some(200)
    for task in found:
        for other in {t.answer for t in found if t.kind == task.kind} - {task.answer}:
            wrong = replace(task, answer=other)
            assert not check(task.story, task.question, wrong.completion).right


def test_every_kind_has_its_question():
    world = task_grammar(4).story(seed=5).world
    questions = [explain(world, kind, Random(1))[0] for kind in KINDS]
    assert questions[0].startswith("Who has the")
    assert questions[1].startswith("Where is ")
    assert questions[2].startswith("Where is the ")
    assert questions[3].startswith("How many ")


def test_wrong_sides_and_numbers_are_refused():
    with pytest.raises(ConfigError, match="side is 'valid'"):
        next(tasks(seed=0, events=(1,), side="valid"))
    with pytest.raises(ConfigError, match="events"):
        next(tasks(seed=0, events=(), side="train"))
