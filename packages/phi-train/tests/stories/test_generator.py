"""The generator: seeded, endless, varied, consistent, with a knob."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from phi_train.stories import GrammarError, StoryGrammar, stories

GRAMMAR = StoryGrammar()


@pytest.fixture(scope="module")
def sample():
    return list(islice(GRAMMAR.stories(11), 6000))


def test_a_stream_is_reproducible_and_can_be_entered_anywhere():
    first = list(islice(stories(5), 20))
    assert [s.text for s in islice(stories(5), 20)] == [s.text for s in first]
    assert [s.text for s in islice(stories(5, start=7), 13)] == [s.text for s in first[7:]]
    assert GRAMMAR.story(seed=5, index=9).text == first[9].text
    assert [s.index for s in first] == list(range(20))


def test_seeds_give_different_streams():
    ours = {s.text for s in islice(stories(1), 200)}
    assert not ours & {s.text for s in islice(stories(2), 200)}


def test_a_generator_of_ones_own():
    assert GRAMMAR.story(Random(3)).text == GRAMMAR.story(Random(3)).text


def test_at_least_a_thousand_distinct_words_occur(sample):
    words = {w for s in sample for w in re.findall(r"[a-z'-]+", s.text.lower())}
    assert len(words) >= 1000


def test_common_words_dominate(sample):
    counts = Counter(w for s in sample for w in re.findall(r"[a-z'-]+", s.text.lower()))
    top = sum(n for _, n in counts.most_common(100))
    assert 0.6 < top / counts.total() < 0.95


def test_stories_are_short_clean_text(sample):
    for story in sample:
        assert story.text == story.text.strip()
        assert not re.search(r"[{}\[\]|]|  |\n[^A-Z\"]| \n|\.\.", story.text)
        assert story.text[-1] in '.!?"'
        assert story.text.count('"') % 2 == 0
        assert story.text.isascii()
        assert 120 < len(story.text) < 1000


def test_articles_fit(sample):
    text = " ".join(s.text for s in sample)
    assert not re.search(r"\b[Aa] (?!uni|use)[aeiou]|\b[Aa]n ([^aeiou]|uni|use)", text)


def test_hardly_any_story_occurs_twice(sample):
    assert len({s.text for s in sample}) == len(sample)


def test_the_world_knows_who_has_what(sample):
    for story in sample:
        cast = set(story.world.cast)
        assert all(holder is None or holder in cast for holder in story.world.holder.values())
        assert all(story.world.place[who] for who in cast)
        for kind, *names in story.world.log:
            assert all(name in story.text for name in names), (kind, names)


def test_the_knob_sets_the_number_of_events():
    for n in (0, 1, 4):
        grammar = StoryGrammar(events=n)
        assert {s.world.events for s in islice(grammar.stories(0), 50)} == {n}
    mixed = StoryGrammar(events=(0.5, 0.0, 0.5))
    counts = Counter(s.world.events for s in islice(mixed.stories(0), 2000))
    assert set(counts) == {0, 2}
    assert 0.45 < counts[0] / 2000 < 0.55


@pytest.mark.parametrize("events", [(0.5, 0.4), (1.5, -0.5)])
def test_the_knob_wants_probabilities(events):
    with pytest.raises(GrammarError, match="sum to 1"):
        StoryGrammar(events=events)
