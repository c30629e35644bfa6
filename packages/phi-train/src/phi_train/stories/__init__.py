"""An endless source of small stories whose entropy is known exactly.

>>> from phi_train.stories import StoryGrammar, stories
>>> grammar = StoryGrammar()
>>> story = grammar.story(seed=1)
>>> abs(grammar.log_prob(story.text) - story.log_prob) < 1e-9
True

A story is a walk through the nodes of a grammar. At each node one of several lines is told, drawn
from a distribution that depends on the world so far (who is here, who has what); the words in its
slots are drawn from classes of words with Zipf weights. No draw is ever rejected, the end of the
story is a draw too, and the text determines all draws: so a story's log-probability is the sum of
theirs, for the generator which draws them (`story.log_prob`) and for the parser which has nothing
but the text (`grammar.log_prob(text)`). All log-probabilities are natural (nats).

Extending it
------------

A word: write it into its list in `lexicon*.py`, near the end if it should be rare.

A line: write it into a node of a plot. `template.py` explains the notation:

    line(3, "{x?owner} gave the {o?held_x} to {y?not_x}.", when="things", do="give x y o")

A plot shape: a module in `plots/` with `OPENINGS` and `NODES`, added to `plots.PLOTS`.

A new kind of fact about the world: a field, condition, picker or effect in `world.py`.

Then run `check_grammar(StoryGrammar())`: it proves that no two ways of telling give one text, or
says which lines clash. The knob for difficulty is `StoryGrammar(events=..)`, the number of free
events before the plot.

Where things are: words.py (classes of words), world.py (the state), template.py (lines and nodes),
engine.py (generator), parser.py, grammar.py (`StoryGrammar`), entropy.py, split.py (validation),
check.py (unambiguity), enumeration.py and tiny.py (all stories of a tiny grammar).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from phi_train.stories.check import Clash, check_grammar, find_clashes
from phi_train.stories.entropy import Entropy, Estimate, entropy, entropy_of, ratio
from phi_train.stories.enumeration import all_stories
from phi_train.stories.errors import GrammarError, NotAStory, StoryError
from phi_train.stories.grammar import Parse, Story, StoryGrammar
from phi_train.stories.split import ONE_IN, is_validation
from phi_train.stories.template import Line, line
from phi_train.stories.tiny import tiny_grammar
from phi_train.stories.words import Word, WordClass
from phi_train.stories.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ONE_IN",
    "Clash",
    "Entropy",
    "Estimate",
    "GrammarError",
    "Line",
    "NotAStory",
    "Parse",
    "Story",
    "StoryError",
    "StoryGrammar",
    "Word",
    "WordClass",
    "World",
    "all_stories",
    "check_grammar",
    "entropy",
    "entropy_of",
    "find_clashes",
    "is_validation",
    "line",
    "ratio",
    "stories",
    "tiny_grammar",
]


def stories(
    seed: int, *, start: int = 0, split: Literal["train", "validation"] | None = None
) -> Iterator[Story]:
    """The endless stream `seed` of the default grammar; see `StoryGrammar.stories`."""
    return StoryGrammar().stories(seed, start=start, split=split)
