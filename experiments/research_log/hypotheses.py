"""Result 3: the hypotheses H1 to H4, the number of stories, the next step, the learning rate."""

from __future__ import annotations

from book import Book, difference, spread, table
from figures import Figure, Line, draw

__all__ = ["hypotheses", "missed"]

CLAIMS = {  # arm -> name, claim, the loss to come below
    "H1, 1.3M": ("H1", "1.3M is undertrained: 16K steps < 6.0", 6.0),
    "H2, 3.5M": ("H2", "3.5M breaks unigram: 4K steps < 5.5", 5.5),
    "H4, 8M": ("H4", "8M reaches the bigram level: 8K steps < 3.5", 3.5),
}
STORIES = ("5", "20", "100", "1000", "all")
TRANSITION = 0.10  # H3: a fall of more, in under 100 steps


def hypotheses(book: Book, figures: dict[str, str]) -> list[str]:
    """The section, and its figure."""
    rows = []
    for arm, (name, claim, level) in CLAIMS.items():
        values = book.values("hypotheses", arm)
        verdict = "not run yet"
        if values:
            verdict = "holds" if max(values.values()) < level else "does not hold"
        left = spread(book.values("hypotheses", arm, "wall_left_at"), 0)
        rows.append([name, claim, spread(values), verdict, left])
    rows.append(_transition(book))
    return [
        "## 3. Hypotheses, stories, and the next step",
        "",
        "Nats a token, held out. H5, self-improvement, has an experiment of its own.",
        *table(["", "claim", "measured", "", "below unigram from step"], rows),
        book.state("hypotheses"),
        "",
        *_stories(book, figures),
        *_next_step(book),
        *_rates(book),
    ]


def _transition(book: Book) -> list[str]:
    claim = "H3", "a phase transition: a fall of over 10 % in under 100 steps"
    falls = {
        f"{arm}: {max(v.values()):.1%} at step {book.mean('hypotheses', arm, 'drop_at'):.0f}": max(
            v.values()
        )
        for arm in CLAIMS
        if (v := book.values("hypotheses", arm, "largest_drop"))
    }
    if not falls:
        return [*claim, "-", "not run yet", ""]
    verdict = "holds" if max(falls.values()) > TRANSITION else "does not hold"
    return [*claim, "; ".join(falls), f"{verdict}, after the first 200 steps", ""]


def _stories(book: Book, figures: dict[str, str]) -> list[str]:
    rows = [
        [
            arm,
            spread(book.values("stories", arm, "distinct_tokens"), 0).split(" (")[0].split(" ±")[0],
            spread(book.values("stories", arm, "train_loss")),
            spread(book.values("stories", arm)),
            spread(book.values("stories", arm, "best_loss")),
        ]
        for arm in STORIES
    ]
    head = ["stories", "tokens", "on them", "held out, at the end", "held out, at best"]
    lines = ["**Distinct stories, at 2,000 steps**, 1.05M parameters:", *table(head, rows)]
    lines += [book.state("stories"), ""]
    points = {
        what: [
            (tokens, loss)
            for arm in STORIES
            if (tokens := book.mean("stories", arm, "distinct_tokens")) is not None
            and (loss := book.mean("stories", arm, metric)) is not None
        ]
        for what, metric in (
            ("held out, at the end", "loss"),
            ("held out, at best", "best_loss"),
            ("on the stories themselves", "train_loss"),
        )
    }
    if all(points.values()):
        names = ("unigram", "bigram", "trigram")
        levels = {n: m for n in names if (m := book.mean("levels", "base", n)) is not None}
        figures["stories.svg"] = draw(
            Figure(
                title="Loss against the number of distinct tokens, at 2,000 steps",
                x="distinct tokens trained on",
                y="nats a token",
                lines=[Line(label, found) for label, found in points.items()],
                levels=levels,
            )
        )
        lines += ["![Loss against distinct tokens](figures/stories.svg)", ""]
    return lines


def _next_step(book: Book) -> list[str]:
    rows = [
        [arm.name, spread(book.values("next-step", arm.name))] for arm in book["next-step"].arms
    ]
    head = ["rate", "nats a token, held out"]
    what = "**The log's next step**, 3.7M parameters for two epochs:"
    return [what, *table(head, rows), book.state("next-step"), ""]


def _rates(book: Book) -> list[str]:
    name, base = "rates-4m", "3e-4"
    arms = sorted((arm.name for arm in book[name].arms), key=float)
    rows, above = [], []
    for arm in arms:
        words, _, high = difference(book, name, arm, base, of=len(arms) - 1)
        rows.append([arm, spread(book.values(name, arm)), "" if arm == base else words])
        if float(arm) > float(base) and high < 0:
            above.append(arm)
    lines = [
        '**"3.5M+ needs lr <= 3e-4"**, 1,000 steps:',
        *table(["rate", "nats a token, held out", "less that of 3e-4 (interval)"], rows),
        book.state(name),
        "",
    ]
    if len(book.values(name, base)) > 1:
        said = f"does not hold: {', '.join(above)} are better" if above else "is not refuted"
        lines += [f"The claim {said}; the intervals share 5 % among them.", ""]
    return lines


def missed(book: Book) -> list[str]:
    """Hypotheses of the log that did not hold, a line each."""
    found = []
    for arm, (name, claim, level) in CLAIMS.items():
        values = book.values("hypotheses", arm)
        if values and max(values.values()) >= level:
            found.append(f"{name} ({claim}): {max(values.values()):.3f}.")
    transition = _transition(book)
    if transition[3].startswith("does not"):
        found.append(f"H3 (a phase transition): the steepest falls are {transition[2]}.")
    return found
