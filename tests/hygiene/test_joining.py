import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sktransfer.hygiene._joining import in_order, join


def painted(colours, pairs):
    """Join the slow way: for each pair, paint one colour over the other."""
    colours = list(colours)
    for one, other in pairs:
        old, new = colours[one], colours[other]
        colours = [new if colour == old else colour for colour in colours]
    return np.array(colours)


def together(labels):
    return np.equal.outer(labels, labels)


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    pairs=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), min_size=1, max_size=20),
)
def test_exactly_what_pairs_connect_over_any_steps_is_together(labels, pairs):
    labels = np.array(labels)
    pairs = np.array(pairs) % len(labels)
    joined = join(labels, *labels[pairs.T])
    assert (together(joined) == together(painted(labels, pairs))).all()


def test_joining_block_by_block_is_joining_at_once():
    pairs = np.random.default_rng(0).integers(0, 40, (30, 2))
    at_once = join(np.arange(40), *pairs.T)
    labels = np.arange(40)
    for block in np.array_split(pairs, 4):
        labels = join(labels, *labels[block.T])
    assert (together(labels) == together(at_once)).all()


@given(st.lists(st.integers(0, 9), min_size=1))
def test_labels_in_order_count_up_from_0_and_keep_what_is_together(labels):
    ordered = in_order(np.array(labels))
    firsts = list(dict.fromkeys(ordered.tolist()))
    assert firsts == list(range(len(firsts)))
    assert (together(ordered) == together(np.array(labels))).all()
