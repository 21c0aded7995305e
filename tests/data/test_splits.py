"""Groups never straddle splits, which depend on contents and the seed, not on the order of rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sizewise.config.data import DatasetConfig, FilterConfig, SplitConfig
from sizewise.data.example import DataSplits, Example
from sizewise.data.rows.examples import make_examples
from sizewise.data.splits.draw import split_examples
from sizewise.data.splits.groups import connect, row_split_leak, text_key
from sizewise.data.splits.teaching import hold_back
from sizewise.errors import DataError

from .toys import config, example, rows

NAMES = ("train", "validation", "test")


def split(data: list[dict[str, Any]], cfg: DatasetConfig) -> DataSplits:
    return split_examples(make_examples(data, cfg), cfg)


def parts(splits: DataSplits) -> dict[str, set[str]]:
    return {name: {e.id for e in getattr(splits, name)} for name in NAMES}


def test_shared_questions_never_straddle_and_sizes_fit() -> None:
    splits = split(rows(400, questions=80), config())
    questions = [{e.messages[-1].content for e in getattr(splits, name)} for name in NAMES]
    assert not questions[0] & (questions[1] | questions[2])
    assert not questions[1] & questions[2]
    assert [len(getattr(splits, name)) for name in NAMES] == [240, 80, 80]
    assert splits.report.shared_groups == 0


def test_text_equal_but_for_case_and_white_space_is_one_question() -> None:
    assert text_key("What  is\nthis?") == text_key("what is this?")
    assert text_key("What is this?") != text_key("What is that?")


def test_groups_are_connected_components_over_all_keys() -> None:
    data = [
        {"q": "one", "a": "1", "g": "x", "h": ""},
        {"q": "two", "a": "2", "g": "x", "h": "y"},
        {"q": "three", "a": "3", "g": None, "h": "y"},
        {"q": "THREE ", "a": "4", "g": "z", "h": ""},
        {"q": "five", "a": "5", "g": "w", "h": ""},
    ]
    groups = [e.group for e in make_examples(data, config(group=["g", "h"])).examples]
    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]


def test_component_names_do_not_depend_on_order() -> None:
    keys = [["a", "b"], ["c"], ["b", "d"], ["d", "c"], ["e"]]
    names = connect(keys)
    assert connect(keys[::-1]) == names[::-1]
    assert names == ["a", "a", "a", "a", "e"]


def test_a_tenth_is_held_back_without_a_walk_for_every_group() -> None:
    class Walked(tuple[Example, ...]):
        walks = 0

        def __iter__(self) -> Iterator[Example]:
            type(self).walks += 1
            return super().__iter__()

    pairs = Walked(example(f"q{i}", group=f"g{i // 2}") for i in range(200))
    kept, held = hold_back(pairs, seed=1)
    assert (len(kept), len(held)) == (180, 20)
    assert not {e.group for e in kept} & {e.group for e in held}
    assert Walked.walks < 5


def test_same_splits_under_any_order_of_rows() -> None:
    data = rows(200, questions=150)
    shuffled = data[:]
    random.Random(1).shuffle(shuffled)
    one, two = split(data, config()), split(shuffled, config())
    assert [one.fingerprint(name) for name in NAMES] == [two.fingerprint(name) for name in NAMES]


def test_another_split_seed_is_another_split() -> None:
    other = config(split=SplitConfig(validation=0.2, test=0.2, seed=7))
    assert parts(split(rows(200), config()))["test"] != parts(split(rows(200), other))["test"]


def test_added_rows_move_few_others() -> None:
    before = parts(split(rows(500), config()))
    after = parts(split(rows(510), config()))
    stayed = sum(len(before[name] & after[name]) for name in NAMES)
    assert stayed >= 485


def test_smaller_training_sets_are_nested_and_keep_the_test_set() -> None:
    small, large = (split(rows(900, 700), config(max_train=n)) for n in (200, 500))
    assert len(small.train) == 200
    assert len(large.train) == 500
    assert parts(small)["train"] < parts(large)["train"]
    assert small.fingerprint("test") == large.fingerprint("test")


def test_max_samples_and_evaluation_limits() -> None:
    splits = split(rows(500), config(max_samples=100, max_validation=5, max_test=7))
    assert [len(getattr(splits, name)) for name in NAMES] == [60, 5, 7]


def test_exact_repetitions_are_removed_and_counted() -> None:
    splits = split(rows(50) + rows(10), config())
    assert splits.report.duplicates == 10
    assert sum(len(getattr(splits, name)) for name in NAMES) == 50


def test_a_giant_group_goes_to_training_and_leaves_no_split_empty() -> None:
    data = [{"q": "same", "a": str(i), "k": ""} for i in range(90)] + rows(10)
    splits = split(data, config(split=SplitConfig(validation=0.1, test=0.1)))
    assert splits.test
    assert splits.validation
    assert all(e.messages[-1].content != "same" for e in splits.test + splits.validation)


def test_few_groups_still_give_every_split_one() -> None:
    splits = split(rows(3), config(split=SplitConfig(validation=0.1, test=0.1)))
    assert [len(getattr(splits, name)) for name in NAMES] == [1, 1, 1]


def test_everything_to_test() -> None:
    splits = split(rows(20), config(split=SplitConfig(validation=0.0, test=1.0)))
    assert [len(getattr(splits, name)) for name in NAMES] == [0, 0, 20]


def test_empty_split_names_split_counts_and_causes() -> None:
    cfg = config(filter=FilterConfig(min_answer_chars=1000))
    with pytest.raises(DataError) as caught:
        split(rows(30), cfg)
    message = str(caught.value)
    assert "train and validation and test" in message
    assert "train 0, validation 0, test 0" in message
    assert "30 answer_too_short" in message


def owned(**kwargs: Any) -> DatasetConfig:
    names = {"train": "tr", "validation": "va", "test": "te"}
    return config(split=SplitConfig(column="s", names=names, **kwargs))


def leaking() -> list[dict[str, Any]]:
    """Twelve rows; q0 is in training and in test, q1 in validation and test."""
    data = [{"q": f"q{i}", "a": str(i), "s": "tr" if i < 8 else "va"} for i in range(10)]
    data[1]["s"] = "va"
    return [*data, {"q": "q0", "a": "x", "s": "te"}, {"q": "q1", "a": "y", "s": "te"}]


def test_leaks_of_the_own_split_are_reported() -> None:
    splits = split(leaking(), owned())
    assert [len(getattr(splits, name)) for name in NAMES] == [7, 3, 2]
    assert splits.report.leaking_rows == 1
    assert splits.report.shared_groups == 2


def test_leaking_training_rows_are_dropped_on_request() -> None:
    splits = split(leaking(), owned(on_leak="drop"))
    assert [len(getattr(splits, name)) for name in NAMES] == [6, 2, 2]
    assert splits.report.shared_groups == 0
    assert splits.report.filtered == {"leaking": 2}
    assert splits.report.leaking_rows == 1


def test_a_leak_is_an_error_on_request() -> None:
    with pytest.raises(DataError, match="1 evaluation rows"):
        split(leaking(), owned(on_leak="error"))


def test_which_of_equal_examples_stays_does_not_depend_on_the_order_of_rows() -> None:
    data = [{"q": f"q{i // 2}", "a": "x", "r": f"worse {i}"} for i in range(40)]
    cfg = config(rejected="r")
    one, two = split(data, cfg), split(data[::-1], cfg)
    assert one.report.duplicates == 20
    assert {e.meta["rejected"] for e in one.train} == {e.meta["rejected"] for e in two.train}


def test_a_repetition_across_the_own_splits_is_a_leak_not_a_duplicate() -> None:
    data = [*leaking(), {"q": "q2", "a": "2", "s": "te"}]
    report = split(data, owned()).report
    assert report.duplicates == 0
    assert report.leaking_rows == 2


def test_missing_validation_is_drawn_from_training_by_groups() -> None:
    data = [{"q": f"q{i % 30}", "a": str(i), "s": "tr"} for i in range(90)]
    data += [{"q": f"t{i}", "a": str(i), "s": "te"} for i in range(10)]
    splits = split(data, owned(validation=0.2))
    assert [len(getattr(splits, name)) for name in NAMES] == [72, 18, 10]
    assert splits.report.shared_groups == 0


def test_unknown_values_of_the_own_split_are_named() -> None:
    data = [{"q": "a", "a": "b", "s": "part 7"}]
    with pytest.raises(DataError, match="'part 7'"):
        split(data, owned())


def test_row_split_leak_is_the_mean_over_random_splits() -> None:
    sizes = [1] * 20 + [2] * 10 + [5] * 8 + [20]
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    rng, shares = np.random.default_rng(0), []
    for _ in range(2000):
        order = rng.permutation(len(group_of))
        train, test = group_of[order[:80]], group_of[order[80:]]
        shares.append(np.isin(test, train).mean())
    assert row_split_leak(sizes, 80) == pytest.approx(np.mean(shares), abs=0.005)
    assert row_split_leak([1] * 10, 8) == 0.0
    assert row_split_leak([10], 9) == 1.0


WORDINGS: tuple[dict[str, Any], ...] = (
    {"prompt": "Please answer: {q}"},
    {"prompt": "{q}\n\nOne sentence."},
    {"system": "Be brief."},
)


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("group", [[], ["g"]])
def test_another_wording_asks_the_same_in_the_same_places(
    wording: dict[str, Any], group: list[str]
) -> None:
    """Training on and testing other rows would keep prompts from ever being compared."""
    data = [{**row, "g": i // 3} for i, row in enumerate(rows(200, questions=120))]
    limits: dict[str, Any] = {"group": group, "max_train": 30, "max_validation": 9, "max_test": 9}
    plain, other = split(data, config(**limits)), split(data, config(**limits, **wording))
    for name in NAMES:
        assert [e.id for e in getattr(plain, name)] == [e.id for e in getattr(other, name)]
        assert [e.group for e in getattr(plain, name)] == [e.group for e in getattr(other, name)]
        assert plain.question_fingerprint(name) == other.question_fingerprint(name)
        assert plain.fingerprint(name) != other.fingerprint(name)


def test_columns_in_another_order_ask_the_same() -> None:
    data = [{"t": f"title {i}", "q": f"text {i}", "a": str(i)} for i in range(80)]
    one, two = (split(data, config(prompt=p)) for p in ("{t}\n\n{q}", "Say of {q}, {t}:"))
    assert [one.question_fingerprint(n) for n in NAMES] == [
        two.question_fingerprint(n) for n in NAMES
    ]


def test_rows_whose_rendered_question_is_equal_are_one_group_whatever_their_columns() -> None:
    data = [
        {"t": "Why", "q": "is it so?", "a": "1"},
        {"t": "", "q": "WHY  is it so?", "a": "2"},
        {"t": "is it so?", "q": "Why", "a": "3"},
    ]
    groups = [e.group for e in make_examples(data, config(prompt="{t} {q}")).examples]
    assert groups[0] == groups[1] != groups[2]
    turned = [data[0], {"t": "why is it so?", "q": "", "a": "4"}]
    made = make_examples(turned, config(prompt="{t} {q}")).examples
    assert made[0].group == made[1].group


def test_histories_are_grouped_by_their_first_turn_whatever_the_wording() -> None:
    data = [{"h": [f"hi {i % 40}", "yes"], "q": f"go on {i}", "a": str(i)} for i in range(120)]
    data += [{"h": [], "q": f"alone {i % 20}", "a": f"b{i}"} for i in range(40)]
    one = split(data, config(history="h"))
    two = split(data, config(history="h", prompt="Next: {q}", system="Be brief."))
    assert parts(one) == parts(two)
    first = [{e.messages[0].content for e in getattr(one, name)} for name in NAMES]
    assert not first[0] & (first[1] | first[2])
    assert not first[1] & first[2]


def test_a_system_text_with_columns_asks_the_same_in_the_same_places() -> None:
    data = [{**row, "s": f"illness {i % 7}"} for i, row in enumerate(rows(200, questions=120))]
    one, two = (
        split(data, config(system=system, max_train=30, max_test=9))
        for system in ("Be kind.", "The patient suffers from {s}.")
    )
    for name in NAMES:
        assert one.question_fingerprint(name) == two.question_fingerprint(name)
        assert one.fingerprint(name) != two.fingerprint(name)
