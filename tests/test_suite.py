"""The selection of tests: what runs by default, and parts of the others."""

import itertools

import pytest

from suite import BLOCK, by_default, part_of


def test_rows_that_are_not_chosen_are_long():
    first, second = by_default([("a", 1), ("b", 2)], chosen=[("b", 2)])
    assert first.values == ("a", 1)
    assert [mark.name for mark in first.marks] == ["long"]
    assert second == ("b", 2)


def test_a_chosen_row_that_is_gone_is_named():
    with pytest.raises(ValueError, match=r"\['c'\] are not among the cases"):
        by_default(["a", "b"], chosen=["a", "c"])


@pytest.mark.parametrize("parts", [1, 3, 4, 12])
def test_every_item_is_in_one_part(parts):
    items = list(range(1000))
    found = [part_of(items, f"{part}/{parts}") for part in range(1, parts + 1)]
    assert sorted(itertools.chain(*found)) == items
    assert max(map(len, found)) - min(map(len, found)) <= BLOCK


@pytest.mark.parametrize("which", ["0/4", "5/4"])
def test_a_part_that_is_none_is_refused(which):
    with pytest.raises(ValueError, match=f"there is no part {which}"):
        part_of([1, 2, 3], which)
