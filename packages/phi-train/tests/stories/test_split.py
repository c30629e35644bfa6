"""Training and validation never share a story."""

from itertools import islice

from phi_train.stories import ONE_IN, StoryGrammar, is_validation

GRAMMAR = StoryGrammar()
EXPECTED = [25, 36, 37]


def test_the_hash_is_stable():
    """These are for ever: a change would move stories from training to validation."""
    assert [n for n in range(60) if is_validation(f"story {n}")] == EXPECTED


def test_streams_are_the_two_sides_of_one_source():
    everything = list(islice(GRAMMAR.stories(8), 2000))
    train = list(islice(GRAMMAR.stories(8, split="train"), 1000))
    valid = list(islice(GRAMMAR.stories(8, split="validation"), 100))
    assert not any(is_validation(s.text) for s in train)
    assert all(is_validation(s.text) for s in valid)
    sides = {s.index: s.text for s in [*train, *valid]}
    assert all(everything[i].text == text for i, text in sides.items() if i < len(everything))
    assert sum(is_validation(s.text) for s in everything) / 2000 - 1 / ONE_IN < 0.03


def test_a_stream_of_one_side_can_be_resumed():
    first = list(islice(GRAMMAR.stories(8, split="train"), 30))
    rest = islice(GRAMMAR.stories(8, start=first[9].index + 1, split="train"), 20)
    assert [s.text for s in rest] == [s.text for s in first[10:]]


def test_no_validation_story_is_trained_on_whatever_the_seed():
    valid = {s.text for s in islice(GRAMMAR.stories(0, split="validation"), 200)}
    assert not valid & {s.text for s in islice(GRAMMAR.stories(1, split="train"), 2000)}
