"""What exploration says about a data set."""

from __future__ import annotations

from sizewise.data.example import DataReport, DataSplits, Example
from sizewise.data.explore import (
    contradictions,
    explore,
    group_columns,
    histogram,
    leak_sentence,
)
from sizewise.data.tokens.template import ChatTemplate
from sizewise.metrics.reading.closed import plain

from .toys import byte_tokenizer, config, example

REPORT = DataReport(7, {"empty_answer": 1}, 0, 0, 0, 0.25)


def splits() -> DataSplits:
    train = tuple(
        example(question, answer, group=question, meta={"label": answer})
        for question, answer in [("a", "X"), ("A ", "Y"), ("b", "X"), ("c", "Z")]
    )
    test = tuple(
        example(question, answer, group=question, meta={"label": answer})
        for question, answer in [("d", "X"), ("e", "new")]
    )
    return DataSplits(train, (), test, REPORT)


def template() -> ChatTemplate:
    return ChatTemplate(byte_tokenizer())


def test_sizes_repetitions_labels_and_leaks() -> None:
    found = explore(splits(), template(), samples=2)
    assert found.sizes == {"train": 4, "validation": 0, "test": 2}
    assert found.report is REPORT
    assert set(found.lengths) == {"train", "test"}
    assert (found.repetition["train"].prompts, found.repetition["train"].answers) == (1, 1)
    assert found.repetition["train"].largest_group == 1
    assert found.labels["train"].counts == (("X", 2), ("Y", 1), ("Z", 1))
    assert found.labels["test"].unseen == ("new",)
    assert found.shared_answers == 1
    assert len({sample.id for sample in found.samples}) == 2


def test_samples_are_drawn_by_seed() -> None:
    one, two = (explore(splits(), template(), samples=2, seed=s).samples for s in (1, 1))
    assert one == two


def test_token_lengths_and_what_a_bound_keeps() -> None:
    chat = template()
    empty = len(chat.prompt_ids(example("q", "a").messages))
    fits = 256 - empty - 1  # a turn ends with a token
    data = tuple(example("q", "a" * n) for n in (1, fits, fits + 1))
    found = explore(DataSplits(data, (), (), REPORT), chat).lengths["train"]
    assert (found.prompt.p50, found.answer.p50, found.answer.max) == (empty, fits + 1, fits + 2)
    assert found.kept_at == {256: 2 / 3, **dict.fromkeys((512, 1024, 2048, 4096, 8192), 1.0)}
    assert sum(found.answer_histogram.counts) == 3


def test_histogram_counts_everything_once() -> None:
    found = histogram([0, 1, 2, 10], bins=5)
    assert found.edges == (0, 2, 4, 6, 8, 10)
    assert found.counts == (2, 1, 0, 0, 1)


def test_reasons_in_words() -> None:
    filtered = {"empty_answer": 1200, "prompt_too_long": 0, "answer_too_long": 3}
    report = DataReport(5000, filtered, 0, 0, 0, 0.0)
    assert report.reasons == "1,200 empty answer, 3 answer too long"
    assert DataReport(1, {}, 0, 0, 0, 0.0).reasons == "none"


def test_what_leaks_is_named_by_the_group_column() -> None:
    """Questions that all differ leak nothing: what a random split would share is the customer."""
    own = "would have had a row of the same question in training."
    assert leak_sentence(REPORT, ()).endswith(f"25.0% of the test rows {own}")
    said = explore(splits(), template(), groups=["customer"]).leak
    assert "25.0% of the test rows" in said
    assert said.endswith("the same question or group (customer) in training.")
    parts = {"one": {"group": ["ward"]}, "two": {"group": None}, "three": {"group": ["ward", "b"]}}
    assert group_columns(config(group=["customer"], parts=parts)) == ("customer", "ward", "b")


def test_spellings_of_a_label_are_one_label() -> None:
    def labelled(*labels: str) -> tuple[Example, ...]:
        return tuple(
            example(f"q{i}", label, group="", meta={"label": label})
            for i, label in enumerate(labels)
        )

    train = labelled("Quality 1", "quality  1", "Quality 1", "late.", "Late", "Late", "other")
    test = labelled("LATE", "new")
    found = explore(DataSplits(train, (), test, REPORT), template(), alike=plain).labels
    assert found["train"].counts == (("Late", 3), ("Quality 1", 3), ("other", 1))
    assert found["train"].spellings == (("Late", "late."), ("Quality 1", "quality  1"))
    assert (found["test"].unseen, found["test"].spellings) == (("new",), ())


def test_questions_with_different_answers_are_counted() -> None:
    pairs = [("a", "X"), ("A ", "x."), ("b", "X"), ("b", "Y"), ("b", "Z"), ("c", "X")]
    assert contradictions([example(*pair) for pair in pairs], plain) == 1
