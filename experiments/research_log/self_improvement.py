"""Result 7: H5, whether models of this size improve by themselves, with STaR and with SPIN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from book import Book, table
from figures import Figure, Line, draw

from phi_train.experiment import paired_difference

__all__ = ["h5", "missed_h5", "self_improvement"]

CLAIM = "3.7M"  # the arm at the size of the log's claim, 3.5M
LEVEL = 0.05
COMPARED = {  # arm -> what it is; what follows where it is beaten, undecided, better
    "few": (
        "as many steps on the given rationales alone",
        "it is the samples, not the steps",
        "that it is more than the steps is open",
        "its own samples do harm",
    ),
    "unverified": (
        "the same loop without checking",
        "checking the answers matters",
        "that checking matters is open",
        "checking does harm",
    ),
    "direct": (
        "learning true answers without a rationale",
        "reasoning is worth more than the answers alone",
        "that reasoning is worth more than the answers alone is open",
        "the answers, learnt from without any reasoning, are worth more than what it taught itself",
    ),
    "majority of base": (
        "the majority of the base's samples",
        "training does more than voting",
        "that training does more than voting is open",
        "voting does more without any training",
    ),
}
SPIN_MEASURES = {  # figure -> its name; less is better
    "bits_per_byte": "bits a byte",
    "told apart": "told apart",
    "divergence 2": "divergence of pairs",
}


def self_improvement(book: Book, figures: dict[str, str]) -> list[str]:
    """The section, and its figure."""
    return [
        "## 7. Self-improvement: H5",
        "",
        f"**H5, self-improvement works at 3.5M.** {h5(book)[1]}",
        "",
        "Share of right answers to 600 test tasks (docs/self-improvement.md) under each seed, each "
        "with tasks of its own. Means over the seeds with 95 % intervals from Student's t; each "
        "seed's gain over its base with the paired bootstrap over the tasks. Sound: right answers "
        "whose rationale is true as well.",
        *_by_iteration(book),
        book.state("star"),
        "",
        *_picture(book, figures),
        *_by_difficulty(book),
        *_comparisons(book),
        *_spin(book),
    ]


def missed_h5(book: Book) -> list[str]:
    """A line where H5 was measured and did not come out as a yes."""
    verdict, sentence = h5(book)
    return [f"H5 (self-improvement works at 3.5M): {sentence}"] if verdict in ("no", "open") else []


# H5


def h5(book: Book) -> tuple[str, str]:
    """("yes", "no", "open" or "not run"; the answer in words), by the journal's figures."""
    gains = book.values("star", CLAIM, "chosen/gain")
    seeds = len(gains)
    if seeds < 2:
        own = f" One seed so far: {_points(next(iter(gains.values())))}." if gains else ""
        waits = f"Not answered yet: it needs two seeds at {CLAIM}.{own}"
        return "not run", waits + _smaller(book) + _against(book)
    _, low, high = _mean(gains)
    least = book["star"].threshold
    figures = f"{_interval(gains)} points of a hundred over the base at {CLAIM}, {seeds} seeds"
    alone = f"in {_alone(book, CLAIM)} of {seeds} seeds the bootstrap alone is above 0"
    if low > 0:
        verdict, said = "yes", f"**Yes**, in this range: {figures}; {alone}."
        if not _less(book, CLAIM, "few"):
            said += f" Whether the steps alone would do it was not measured at {CLAIM}."
    elif high < 0:
        verdict, said = "no", f"**No**: it becomes worse, {figures}."
    elif high < least:
        verdict, said = "no", f"**No**: no room for a gain of {_points(least)} points; {figures}."
    else:
        verdict, said = "open", f"**Not shown** in this range: {figures}; {alone}."
    return verdict, said + _smaller(book) + _against(book)


def _smaller(book: Book) -> str:
    """The other sizes, beside the answer."""
    found = []
    for arm in _arms(book):
        gains = book.values("star", arm, "chosen/gain")
        if arm != CLAIM and gains:
            found.append(f" At {arm}: {_interval(gains)}, {_seeds(gains)}.")
    return "".join(found)


def _against(book: Book) -> str:
    """What the comparisons say about the answer, in a sentence for each that was measured."""
    found = []
    for arm in _arms(book):
        for name, (what, beaten, undecided, better) in COMPARED.items():
            difference = _less(book, arm, name)
            if len(difference) < 2:
                continue
            _, low, high = _mean(difference, of=len(COMPARED))
            if low > 0:
                said = f"beats {what}: {beaten}"
            elif high < 0:
                said = f"is beaten by {what}: {better}"
            else:
                said = f"is not told apart from {what}: {undecided}"
            found.append(f" At {arm} STaR {said}.")
    return "".join(found)


def _alone(book: Book, arm: str) -> int:
    return sum(low > 0 for low in book.values("star", arm, "chosen/gain low").values())


# tables


def _by_iteration(book: Book) -> list[str]:
    rows = []
    for arm in _arms(book):
        for name in _loop(book, arm):
            gains = book.values("star", arm, f"{name}/gain")
            rows.append(
                [
                    arm,
                    name,
                    _share(book.values("star", arm, f"{name}/accuracy")),
                    _interval(gains) if gains else "",
                    "; ".join(_by_seed(book, arm, name)),
                    _share(book.values("star", arm, f"{name}/sound"), bounds=False),
                ]
            )
        chosen = book.values("star", arm, "chosen")
        if chosen:
            which = ", ".join(f"seed {s}: star-{n:.0f}" for s, n in sorted(chosen.items()))
            gains = book.values("star", arm, "chosen/gain")
            own = _share(book.values("star", arm, "chosen/accuracy"))
            sound = _share(book.values("star", arm, "chosen/sound"), bounds=False)
            rows.append([arm, f"chosen ({which})", own, _interval(gains), "", sound])
    head = ["parameters", "", "right", "gain, points", "each seed's gain (bootstrap)", "sound"]
    return table(head, rows) if rows else [""]


def _by_seed(book: Book, arm: str, name: str) -> list[str]:
    """Each seed's gain with its own interval, in points."""
    means, lows, highs = (
        book.values("star", arm, f"{name}/{figure}") for figure in ("gain", "gain low", "gain high")
    )
    return [
        f"{_points(means[seed])} ({_points(lows[seed])} to {_points(highs[seed])})"
        for seed in sorted(means)
    ]


def _by_difficulty(book: Book) -> list[str]:
    rows = []
    events = [str(n) for n in book["star"].arms[0].config["star"]["events"]]
    for arm in _arms(book):
        loop = _loop(book, arm)
        others = [name for name in ("few", "direct") if book.values("star", arm, f"{name}/sound")]
        for name in (*loop, *others):
            shares = [book.values("star", arm, f"{name}/events {n}") for n in events]
            rows.append([arm, name, *(_share(values, bounds=False) for values in shares)])
        if loop:
            gains = [_less(book, arm, "base", f"events {n}") for n in events]
            cells = [_interval(gain, of=len(events)) for gain in gains]
            rows.append([arm, "chosen less base, points", *cells])
    if not rows:
        return []
    head = ["parameters", "", *(f"{n} event{'s' * (n != '1')}" for n in events)]
    return [
        "By difficulty, the number of events in a story; the intervals of a row share 5 %:",
        *table(head, rows),
    ]


def _comparisons(book: Book) -> list[str]:
    rows = []
    for arm in _arms(book):
        for name, (what, *_) in COMPARED.items():
            difference = _less(book, arm, name)
            if difference:
                own = _other(book, arm, name)
                cells = [_share(book.values("star", arm, f"{own}/accuracy"), bounds=False)]
                cells += [_interval(difference, of=len(COMPARED))]
                rows.append([arm, name, what, *cells])
        votes = book.values("star", arm, "majority of chosen/accuracy")
        if votes:
            cells = [_share(votes, bounds=False), _interval(_less(book, arm, "majority of chosen"))]
            rows.append([arm, "majority of chosen", "of its own samples", *cells])
    if not rows:
        return ["The comparisons have not been measured.", ""]
    head = ["parameters", "", "what it is", "right", "chosen less that, points"]
    return [
        "What the chosen iteration is compared with, on the same tasks, seeds in pairs; the first "
        f"{len(COMPARED)} intervals share 5 %:",
        *table(head, rows),
    ]


def _picture(book: Book, figures: dict[str, str]) -> list[str]:
    """Right answers by iteration, a line with dots for each seed."""
    lines, levels = [], {}
    for arm in _arms(book):
        for seed in sorted(book.values("star", arm, "base/accuracy")):
            values = [book.values("star", arm, f"{n}/accuracy")[seed] for n in _loop(book, arm)]
            lines.append(Line(f"{arm}, seed {seed}", list(enumerate(values))))
        direct = book.mean("star", arm, "direct/accuracy")
        if direct is not None:
            levels[f"direct, {arm}"] = direct
    if not lines:
        return []
    figures["self-improvement.svg"] = draw(
        Figure(
            title="STaR: share of right answers to test tasks by iteration, each seed",
            x="iteration; 0 is the base",
            y="right",
            lines=lines,
            levels=levels,
            log_x=False,
        )
    )
    return ["![Right answers by iteration](figures/self-improvement.svg)", ""]


# SPIN


def _spin(book: Book) -> list[str]:
    arms = [arm.name for arm in book["spin"].arms]
    names = ["base", *(f"spin-{i + 1}" for i in range(_iterations(book, "spin", arms[0])))]
    rows = []
    for name in names:
        if book.values("spin", arms[0], f"{name}/bits_per_byte"):
            columns = (*SPIN_MEASURES, "preferred", "distinct 2", "repetition")
            values = [book.values("spin", arms[0], f"{name}/{column}") for column in columns]
            rows.append([name, *(_bounded(v, digits=4) for v in values)])
    head = ["", *SPIN_MEASURES.values(), "preferred", "distinct pairs", "repetition"]
    lines = [
        "**SPIN**, on held-out stories of the grammar: what each iteration's own text is like, "
        "means over the seeds with 95 % intervals.",
        *(table(head, rows) if rows else [""]),
        book.state("spin"),
        "",
    ]
    real = [book.values("spin", arms[0], f"real/{name}") for name in ("distinct 2", "repetition")]
    if all(real):
        words = [_bounded(values, digits=4) for values in real]
        lines += [f"Real text has {words[0]} distinct pairs and {words[1]} repetition.", ""]
    return lines + (_spin_said(book, arms[0], names) if rows else [])


def _spin_said(book: Book, arm: str, names: Sequence[str]) -> list[str]:
    last, said = names[-1], []
    for key, name in SPIN_MEASURES.items():
        base, own = (book.values("spin", arm, f"{n}/{key}") for n in ("base", last))
        change = {seed: own[seed] - base[seed] for seed in own.keys() & base.keys()}
        if len(change) < 2:
            return ["One seed tells no change from chance.", ""]
        _, low, high = _mean(change, of=len(SPIN_MEASURES))
        how = "lower" if high < 0 else "higher" if low > 0 else "not shown to have changed"
        said.append(f"{name} {how}, {_bounded(change, digits=4, of=len(SPIN_MEASURES), sign='+')}")
    return [f"{last} less base (less is better; intervals share 5 %): {'; '.join(said)}.", ""]


# figures of the journal, by seed, and how they are written


def _arms(book: Book) -> list[str]:
    return [arm.name for arm in book["star"].arms]


def _iterations(book: Book, name: str, arm: str) -> int:
    """How many of a loop's iterations the journal has."""
    loop, figure = {"star": ("star", "accuracy"), "spin": ("spin", "bits_per_byte")}[name]
    found = 0
    while book.values(name, arm, f"{loop}-{found + 1}/{figure}"):
        found += 1
    return found


def _loop(book: Book, arm: str) -> list[str]:
    if not book.values("star", arm, "base/accuracy"):
        return []
    return ["base", *(f"star-{i + 1}" for i in range(_iterations(book, "star", arm)))]


def _other(book: Book, arm: str, name: str) -> str:
    """The journal's name of what is compared with: of the unverified, the last iteration."""
    return f"unverified-{_iterations(book, 'star', arm)}" if name == "unverified" else name


def _less(book: Book, arm: str, name: str, figure: str = "accuracy") -> dict[int, float]:
    """seed -> the chosen iteration's figure less that of `name`."""
    ours = book.values("star", arm, f"chosen/{figure}")
    theirs = book.values("star", arm, f"{_other(book, arm, name)}/{figure}")
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def _mean(values: Mapping[int, float], *, of: int = 1) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t over the seeds; `of` intervals share the 5 %."""
    found = list(values.values())
    d = paired_difference(found, [0.0] * len(found), level=LEVEL / of)
    return d.mean, d.low, d.high


def _bounded(values: Mapping[int, float], *, digits: int, of: int = 1, sign: str = "") -> str:
    """A mean, with its interval where there are two seeds."""
    if not values:
        return "-"
    mean, *ends = (f"{v:{sign}.{digits}f}" for v in _mean(values, of=of))
    return f"{mean} ({ends[0]} to {ends[1]})" if len(values) > 1 else f"{mean} (1 seed)"


def _interval(values: Mapping[int, float], *, of: int = 1) -> str:
    """Differences of shares, in points of a hundred."""
    return _bounded({s: 100 * v for s, v in values.items()}, digits=1, of=of, sign="+")


def _share(values: Mapping[int, float], *, bounds: bool = True) -> str:
    """A mean of shares in per cent, with its interval if wanted."""
    if not values:
        return "-"
    if not bounds:
        return f"{100 * _mean(values)[0]:.1f} %"
    return f"{_bounded({s: 100 * v for s, v in values.items()}, digits=1)} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _seeds(values: Mapping[int, float]) -> str:
    return f"{len(values)} seed{'s' * (len(values) > 1)}"
