"""Source and target rows: `sample_domain`, and labels that are masked."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sktransfer._domains import SOURCE, TARGET, domains_to_predict, split_domains


class Guarded:
    """A sequence of labels that raises when an entry of the target is taken."""

    def __init__(self, labels, allowed):
        self.labels, self.allowed = labels, allowed

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, position):
        assert position in self.allowed, "a label of the target was read"
        return self.labels[position]


DOMAIN = np.array([1, -2, 3, -2, 1])


def test_sources_are_above_zero_and_targets_below():
    domains = split_domains(range(5), sample_domain=DOMAIN)
    np.testing.assert_array_equal(domains.source, [0, 2, 4])
    np.testing.assert_array_equal(domains.target, [1, 3])
    np.testing.assert_array_equal(domains.sample_domain, DOMAIN)
    np.testing.assert_array_equal(domains.target_in(np.array([4, 3, 1])), [False, True, True])


def test_labels_of_targets_are_not_read(hidden_labels):
    labels = hidden_labels(["a", "?", "b", "?", "a"], DOMAIN < 0)
    domains = split_domains(range(5), labels, DOMAIN)
    assert domains.source_labels(labels).tolist() == ["a", "b", "a"]
    assert domains.source_labels(labels.tolist()) == ["a", "b", "a"]
    assert domains.source_labels(pd.Series(labels)).tolist() == ["a", "b", "a"]
    guarded = Guarded(["a", "?", "b", "?", "a"], allowed={0, 2, 4})
    assert split_domains(range(5), guarded, DOMAIN).source_labels(guarded) == ["a", "b", "a"]


def test_one_number_is_that_of_all_rows():
    assert split_domains(range(3), sample_domain=-4).target.tolist() == [0, 1, 2]
    assert domains_to_predict(range(3), -4).tolist() == [-4, -4, -4]


@pytest.mark.parametrize(
    "y",
    [
        [0, -1, 2, -1, 0],
        np.array([0, -1, 2, -1, 0], dtype=np.int8),
        np.array([0.0, -1.0, 2.0, -1.0, 0.0]),
        np.array([0, -1, 2, -1, 0], dtype=object),
        pd.Series([0, -1, 2, -1, 0]),
        np.array([[0, 1], [-1, -1], [0, -1], [-1, -1], [1, 0]]),
        csr_matrix([[0, 1], [-1, -1], [0, -1], [-1, -1], [1, 0]]),
    ],
    ids=["list", "int8", "float", "object", "Series", "columns", "sparse"],
)
def test_without_sample_domain_masked_classes_are_targets(y):
    domains = split_domains(range(5), y)
    np.testing.assert_array_equal(domains.target, [1, 3])
    assert set(domains.sample_domain) == {SOURCE, TARGET}


def test_without_sample_domain_masked_numbers_are_targets():
    y = [0.5, np.nan, -1, np.nan, 2]
    np.testing.assert_array_equal(split_domains(range(5), y, masks="numbers").target, [1, 3])
    assert not len(split_domains(range(5), [0, -1, 2, 1, 1], masks="numbers").target)


@pytest.mark.parametrize("y", [["a", "-1"], [True, False], np.array(["a", "-1"]), [0, 1], None])
def test_without_masks_all_rows_are_sources(y):
    assert split_domains(range(2), y).source.tolist() == [0, 1]


def test_masks_of_none_reads_no_labels(hidden_labels):
    labels = hidden_labels([0, 1], [True, True])
    assert split_domains(range(2), labels, masks=None).source.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("sample_domain", "message"),
    [
        ([1, -1], "2 entries, X has 3"),
        ([1, 0, -1], "got 0 at position 1"),
        ([1.0, 0.5, -1], r"got 0\.5 at position 1"),
        ([1, np.nan, -1], "sample_domain contains NaN"),
        ([[1], [1], [-1]], r"the shape \(3, 1\)"),
        (0, "got 0 at position 0"),
    ],
)
def test_what_is_no_number_of_a_domain_is_named(sample_domain, message):
    with pytest.raises(ValueError, match=message):
        split_domains(range(3), sample_domain=sample_domain)
    with pytest.raises(ValueError, match=message):
        domains_to_predict(range(3), sample_domain, allow_source=True)


def test_labels_of_another_length_are_named():
    with pytest.raises(ValueError, match="y has 2 entries, X has 3"):
        split_domains(range(3), [0, -1])
    with pytest.raises(ValueError, match="y has 2 entries, X has 3"):
        split_domains(range(3), sample_domain=[1, 1, -1]).source_labels([0, 1])


def test_rows_to_predict_are_of_a_target_unless_sources_are_allowed():
    assert (domains_to_predict(range(3)) < 0).all()
    with pytest.raises(ValueError, match="2 rows of sources among 3, the first at position 1"):
        domains_to_predict(range(3), [-1, 1, 1])
    assert domains_to_predict(range(3), [-1, 1, 1], allow_source=True).tolist() == [-1, 1, 1]
