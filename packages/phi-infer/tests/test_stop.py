"""Stop strings, wherever the borders between pieces fall."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from phi_infer.stop import StopText

letters = st.text("ab", max_size=12)


def _run(stops, pieces):
    stopper = StopText(stops)
    shown = []
    for piece in pieces:
        shown.append(stopper.feed(piece))
        if stopper.stopped:
            return "".join(shown), True
    return "".join(shown) + stopper.flush(), stopper.stopped


def test_across_borders():
    assert _run(["END"], ["the E", "N", "D of it"]) == ("the ", True)
    assert _run(["END"], ["the E", "N", "gine"]) == ("the ENgine", False)
    assert _run(["aab"], ["a", "a", "a", "b", "c"]) == ("a", True)


def test_the_first_place_counts_whatever_the_order_of_the_strings():
    assert _run(["later", "x"], ["1x2later"]) == ("1", True)
    assert _run(["x", "later"], ["1later2x"]) == ("1", True)


def test_without_stop_strings_text_passes_at_once():
    stopper = StopText([])
    assert [stopper.feed(c) for c in "abc"] == ["a", "b", "c"]


def test_only_what_may_become_a_stop_string_is_held():
    stopper = StopText(["\n\n"])
    assert stopper.feed("one\n") == "one"
    assert stopper.feed("two") == "\ntwo"
    assert stopper.flush() == ""


@given(st.lists(letters), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_pieces_do_not_matter(pieces, stops):
    """What is shown is the text up to the first place where a stop string begins... as far as
    the text was known when one was complete.
    """
    whole = "".join(pieces)
    shown, stopped = _run(stops, pieces)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    assert stopped == bool(ends)
    if not ends:
        assert shown == whole
        return
    one_by_one, _ = _run(stops, list(whole))
    completed = min(whole.find(stop) + len(stop) for stop in stops if stop in whole)
    assert (
        one_by_one
        == whole[: min(whole[:completed].find(s) for s in stops if s in whole[:completed])]
    )
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)


def test_long_stop_strings_that_nearly_match_cost_little():
    stopper = StopText(["a" * 999 + "b"] * 16)
    started = time.perf_counter()
    for _ in range(2000):
        stopper.feed("a")
    assert time.perf_counter() - started < 5
