"""Whether answers are labels, codes or free texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sizewise.metrics.reading.answer_sets import MOST_LABELS, REPEATED, recognise


def test_labels_that_recur_are_a_set_with_its_commonest_first() -> None:
    found = recognise(
        [*["billing"] * 30, *["Delivery", "delivery.", "DELIVERY"] * 5, *["other"] * 5]
    )
    assert found is not None
    assert found.task == "classification"
    assert found.labels[0] == ("billing", 30)
    assert [count for _, count in found.labels] == [30, 15, 5]
    assert found.majority == 30 / 50
    assert found.listed == "Answer with one of: Delivery, billing, other."


def test_the_labels_that_a_prompt_does_not_name_are_told() -> None:
    found = recognise(["C"] * 9 + ["C++"] * 9 + ["not sure"] * 9)
    assert found is not None
    assert found.unnamed("Answer C++ or Not  sure.") == ["not sure"]
    assert found.unnamed("Which of C, C++ and not sure is it?") == []
    assert found.unnamed("{question}") == ["C", "C++", "not sure"]


def test_codes_need_not_recur() -> None:
    codes = ["E11.9", "I10", "J45.909", "F32.1", "M54.50", "R519"]
    found = recognise(codes)
    assert found is not None
    assert (found.task, found.listed) == ("codes", None)
    assert recognise(["A1", "B2", "C3", "D4"]) is None


def test_one_code_in_several_spellings_is_counted_once() -> None:
    found = recognise(["E11.9", "E119", "e11.9"] * 20 + ["I10"] * 40)
    assert found is not None
    assert found.labels == (("E11.9", 60), ("I10", 40))
    assert found.majority == 0.6


def test_free_texts_and_one_answer_are_no_set() -> None:
    assert recognise([f"answer {i}" for i in range(100)]) is None
    assert recognise(["yes"] * 100) is None
    assert recognise(["a long text of many words " * 5, "short"] * 50) is None
    assert recognise([]) is None


def test_reasoning_before_a_label_is_no_part_of_it() -> None:
    found = recognise([f"<think>case {i}</think>\n{'yes' if i % 3 else 'no'}" for i in range(60)])
    assert found is not None
    assert dict(found.labels) == {"yes": 40, "no": 20}


@given(st.lists(st.sampled_from(["red", "green", "Blue ", "light blue"]), min_size=20, max_size=80))
def test_counts_add_up_and_every_label_is_named_by_the_list(answers: list[str]) -> None:
    found = recognise(answers)
    if found is None:
        assert len(set(answers)) == 1 or len(answers) < REPEATED * len(set(answers))
        return
    assert found.rows == len(answers)
    assert found.listed is not None
    assert found.unnamed(found.listed) == []
    assert 1 / MOST_LABELS < found.majority <= 1
