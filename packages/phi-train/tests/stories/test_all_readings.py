"""A slow parser which follows every line and every word finds one reading, the same one."""

from itertools import islice
from math import exp

import pytest

from phi_train.stories import StoryGrammar, tiny_grammar
from phi_train.stories.engine import START
from phi_train.stories.enumeration import _op
from phi_train.stories.template import END
from phi_train.stories.world import World


def readings(grammar, text):
    """The log-probabilities of all choice sequences that write `text`."""
    found = []
    stack = [(World(), (START,), (), (), 0, 0.0)]
    while stack:
        world, todo, ops, effects, at, log_prob = stack.pop()
        if ops:
            for new, written, more in _op(ops[0], world):
                fits = text.startswith(written, at) and (ops[0].kind != END or at == len(text))
                if fits:
                    after = (todo, ops[1:], effects, at + len(written), log_prob + more)
                    stack.append((new.copy(), *after))
            continue
        for effect, names in effects:
            effect(world, *names)
        if not todo:
            found += [log_prob] if at == len(text) else []
            continue
        table = grammar.nodes[todo[-1]].table(world)
        for told, more in zip(table.lines, table.log_probs, strict=True):
            then = todo[:-1] + told.then
            stack.append((world.copy(), then, told.ops, told.effects, at, log_prob + more))
    return found


@pytest.mark.parametrize("grammar", [StoryGrammar(), StoryGrammar(events=4), tiny_grammar()])
def test_there_is_one_reading(grammar):
    for story in islice(grammar.stories(21), 25):
        (log_prob,) = readings(grammar, story.text)
        assert abs(log_prob - story.log_prob) < 1e-9
        assert exp(log_prob) > 0


def test_no_reading_of_what_is_not_a_story():
    story = StoryGrammar().story(seed=3)
    assert not readings(StoryGrammar(), story.text + " And so on.")
    assert not readings(StoryGrammar(), story.text[:-1])
