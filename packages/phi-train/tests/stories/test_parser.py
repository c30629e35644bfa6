"""The parser agrees with the generator on every story, and refuses everything else."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_train.stories import NotAStory, StoryGrammar

GRAMMAR = StoryGrammar()
STORY = (
    "Once upon a time, there was a little girl named Lily.\n"
    "One day, Lily went to the park with her friend Ben. Lily had a red ball. "
    '"I like your ball," said Ben. Lily gave the ball to Ben. Ben smiled.\n'
    "Then Ben lost the ball. He was very sad, but Lily helped him. They asked a baker, "
    "who had not seen it. Then Lily found the ball under the bed. "
    'Lily gave the ball back to Ben. "Thank you, Lily!" said Ben.\n'
    "They were both happy. The end."
)


def test_generator_and_parser_agree_on_ten_thousand_stories():
    for story in islice(GRAMMAR.stories(0), 10_000):
        parse = GRAMMAR.parse(story.text)
        assert abs(parse.log_prob - story.log_prob) < 1e-9, story.text
        if story.index < 2000:
            ours, theirs = story.world, parse.world
            assert all(getattr(ours, k) == getattr(theirs, k) for k in ours.__slots__)


@pytest.mark.parametrize("n", [0, 3, 6])
def test_they_agree_for_other_settings_of_the_knob(n):
    grammar = StoryGrammar(events=n)
    for story in islice(grammar.stories(1), 300):
        assert abs(grammar.log_prob(story.text) - story.log_prob) < 1e-9
        assert not GRAMMAR.accepts(story.text) or n < 3


def test_a_story_written_by_hand():
    assert GRAMMAR.accepts(STORY)
    assert -150 < GRAMMAR.log_prob(STORY) < -30
    world = GRAMMAR.parse(STORY).world
    assert [(t.name, h.name) for t, h in world.holder.items() if h] == [("ball", "Ben")]
    assert ("give", "Lily", "Ben", "ball") in world.log


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Lily gave the ball to Ben. Ben", "Ben gave the ball to Lily. Lily"),  # he has none
        ("Ben lost the ball", "Lily lost the ball"),  # she has given it away
        ("Ben lost the ball", "Ben lost the kite"),
        ("Ben lost the ball", "Sam lost the ball"),
        ("Lily gave the ball to Ben", "Lily gave the ball to Lily"),
        ("Lily found the ball", "Sue found the ball"),
        ("Lily gave the ball back to Ben", "Ben gave the ball back to Lily"),
        ("back to Ben", "back to Lily"),
        ("Lily had a red ball", "Sue had a red ball"),
        ("Lily gave the ball to Ben", "Lily gave the kite to Ben"),
        (" Lily had a red ball.", ""),
        (' "I like your ball," said Ben.', ""),
        ('like your ball," said Ben', 'like your ball," said Lily'),  # it is hers
        ("with her friend", "with his friend"),
        ("He was very sad", "She was very sad"),
        ("Lily helped him", "Ben helped him"),
        ("Lily helped him", "Lily helped her"),
        ("a little girl", "a little boy"),
        ("a red ball", "an red ball"),
        ("Then Lily found the ball under the bed. ", ""),
        (" Ben smiled.", ""),
        (" Lily gave the ball to Ben.", ""),
        ("They were both happy. The end.", ""),
        ("The end.", "The end"),
        ("The end.", "The end. "),
        ("The end.", "The end. The end."),
        ("friend Ben", "friend Lily"),  # not a second Lily
        ("\nThen", " Then"),
    ],
)
def test_near_misses_are_refused_near_where_they_go_wrong(old, new):
    assert old in STORY
    wrong = STORY.replace(old, new)
    with pytest.raises(NotAStory) as refused:
        GRAMMAR.log_prob(wrong)
    pairs = zip(STORY + "\0", wrong + "\0\0", strict=False)
    change = next((i for i, (a, b) in enumerate(pairs) if a != b), len(STORY))
    assert abs(refused.value.position - change) < 32
    assert refused.value.expected


def test_the_error_tells_what_was_expected():
    with pytest.raises(NotAStory, match=r"at character 48, after .* named ', found 'Llily.*girl"):
        GRAMMAR.log_prob(STORY.replace("girl named Lily", "girl named Llily"))
    with pytest.raises(NotAStory, match="the end of the text"):
        GRAMMAR.log_prob("Once upon a time, there was")
    with pytest.raises(NotAStory):
        GRAMMAR.log_prob("")


@pytest.mark.parametrize("tail", [" ", "\n", "<|endoftext|>", " The end."])
def test_nothing_may_follow_the_end(tail):
    assert not GRAMMAR.accepts(STORY + tail)


def sentences(text):
    return [s for line in text.split("\n") for s in line.split(". ")]


def test_dropping_a_sentence_never_goes_unnoticed():
    """It is refused, or it is another story with another probability: a free event is gone."""
    tried = refused = 0
    for story in islice(GRAMMAR.stories(4), 300):
        for sentence in sentences(story.text)[1:-1]:
            shorter = story.text.replace(sentence + ". ", "", 1)
            if shorter == story.text:
                continue
            tried += 1
            refused += not GRAMMAR.accepts(shorter)
    assert refused / tried > 0.8


def test_swapping_the_names_after_the_beginning_is_mostly_refused():
    tried = refused = 0
    for story in islice(GRAMMAR.stories(6), 300):
        a, b = (who.name for who in story.world.cast[:2])
        start = story.text.index("\n", story.text.index("\n") + 1)
        tail = story.text[start:].replace(a, "*").replace(b, a).replace("*", b)
        if tail != story.text[start:] and story.world.holder:
            tried += 1
            refused += not GRAMMAR.accepts(story.text[:start] + tail)
    assert refused / tried > 0.4


@given(st.integers(0, 10_000), st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_text_is_refused_or_has_its_own_probability(index, data):
    """Whatever is done to a text, the parser answers with a number or with NotAStory."""
    text = GRAMMAR.story(seed=2, index=index).text
    i = data.draw(st.integers(0, len(text) - 1))
    j = data.draw(st.integers(i, min(i + 12, len(text))))
    changed = text[:i] + data.draw(st.text('abT .\n"', max_size=4)) + text[j:]
    if GRAMMAR.accepts(changed):
        assert GRAMMAR.log_prob(changed) < 0
    else:
        with pytest.raises(NotAStory) as refused:
            GRAMMAR.log_prob(changed)
        assert 0 <= refused.value.position <= len(changed)
