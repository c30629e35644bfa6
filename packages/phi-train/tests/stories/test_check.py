"""`check_grammar` proves the grammar unambiguous, and says what clashes when it is not."""

import pytest

from phi_train.stories import (
    GrammarError,
    StoryGrammar,
    Word,
    WordClass,
    check_grammar,
    find_clashes,
    line,
)
from phi_train.stories.lexicon import CLASSES
from phi_train.stories.plots import NODES, PLOTS
from phi_train.stories.words import character


def with_line(node, *lines):
    return StoryGrammar(nodes={**NODES, node: [*NODES[node], *lines]})


def test_the_default_grammar_is_unambiguous():
    check_grammar(StoryGrammar())


def test_there_are_plots():
    assert len(PLOTS) >= 7


@pytest.mark.parametrize(
    ("text", "clash"),
    [
        ("The end.", "The end."),  # the same line twice
        ("The end. It was late.", "The end."),  # a line that begins another one
        ("The [end|start].", "The end."),
        ("The [end|end].", "The end"),  # one text for two choices
        ("The [end|en][|d].", "end"),  # one text for two sequences of choices
        ("It was a good day.", "It was a good day."),  # one of several texts
        ("Lily and Ben were best friends.", "Lily and Ben were best friends."),  # names
        ("{x} and {b} were best friends.", "were best friends."),  # x can be a
    ],
)
def test_a_clash_is_found_and_told(text, clash):
    grammar = with_line("last", line(1, text, then="stop"))
    found = list(find_clashes(grammar))
    assert any(clash in c.text for c in found)
    assert all(c.node == "last" and text in (c.first, c.second) for c in found)
    with pytest.raises(GrammarError, match="ambiguous"):
        check_grammar(grammar)


@pytest.mark.parametrize("text", ["The end?", "[Then|So] they slept.", "{a} and {b} were friends."])
def test_a_good_line_is_welcome(text):
    check_grammar(with_line("last", line(1, text, then="stop")), n_stories=200)


def test_a_clash_within_a_class_of_words():
    """ "ice" and "ice cream" are fine, unless what follows can be read both ways."""
    words = WordClass("food", [Word("ice"), Word("ice cream"), Word("cream")])

    def grammar(text):
        return StoryGrammar(classes={"food": words}, nodes={"start": [line(1, text)]}, free=[])

    assert not list(find_clashes(grammar("I like {:food}.{end}")))
    assert [c.text for c in find_clashes(grammar("I like {:food}[| cream|!].{end}"))]


def test_words_and_names_are_unique():
    twice = WordClass("toy", [Word("ball", a="a ball"), Word("ball", a="a ball")])
    with pytest.raises(GrammarError, match="'toy' has"):
        check_grammar(StoryGrammar(classes={**CLASSES, "toy": twice}))
    pets = WordClass("pet", [character("Lily", she=True)])
    with pytest.raises(GrammarError, match="one name for two"):
        check_grammar(StoryGrammar(classes={**CLASSES, "pet": pets}))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(1, "A {:nonsense}."), "there is no 'nonsense'"),
        (line(1, "A {x?nobody}."), "there is no 'nobody'"),
        (line(1, "So.", when="never"), "never"),
        (line(1, "So.", do="explode a"), "explode"),
        (line(1, "So.", then="nowhere"), "nowhere"),
        (line(1, "So {."), "cannot read"),
    ],
)
def test_a_mistake_in_a_line_is_named(bad, message):
    with pytest.raises(GrammarError, match=message):
        with_line("last", bad)


def test_a_node_without_a_possible_line_is_found():
    grammar = with_line("stop")
    grammar.nodes["stop"].lines[:] = []
    with pytest.raises(GrammarError, match="no line is possible"):
        check_grammar(grammar)


def test_nothing_is_written_in_vain():
    """Every class of words is drawn from and every node is reached."""
    grammar = StoryGrammar()
    lines = [told for _, told in grammar.lines()]
    drawn = {op.words.name for told in lines for op in told.ops}
    assert set(CLASSES) <= drawn
    reached = {name for told in lines for name in told.then}
    assert {"start", *reached} == set(NODES)
