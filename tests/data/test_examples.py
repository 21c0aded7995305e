"""Columns become messages; what is left out is counted by reason."""

from __future__ import annotations

import pytest

from sizewise.config.data import FilterConfig
from sizewise.data.rows.examples import make_examples
from sizewise.errors import DataError

from .toys import config, rows


def test_system_prompt_answer_and_meta() -> None:
    cfg = config(
        system="Be {tone}.", prompt="{q}\n\n{extra}", label="a", strata=["k"], rejected="worse"
    )
    row = {"q": "Why?", "extra": "", "a": "So.", "tone": "kind", "k": 3, "worse": "No."}
    (example,) = make_examples([row], cfg).examples
    assert [m.as_dict() for m in example.messages] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
    ]
    assert example.answer == "So."
    assert example.meta == {"label": "So.", "k": "3", "rejected": "No."}


def test_an_empty_system_text_makes_no_turn() -> None:
    (example,) = make_examples(rows(1), config()).examples
    assert [m.role for m in example.messages] == ["user"]
    (example,) = make_examples([{"q": "a", "a": "b", "s": None}], config(system="{s}")).examples
    assert [m.role for m in example.messages] == ["user"]


def test_dropped_examples_are_counted_by_reason() -> None:
    cfg = config(filter=FilterConfig(3, 10, 2, 5))
    data = [
        {"q": "good", "a": "fine"},
        {"q": None, "a": "fine"},
        {"q": "good", "a": float("nan")},
        {"q": "ab", "a": "fine"},
        {"q": "a" * 11, "a": "fine"},
        {"q": "good", "a": "x"},
        {"q": "good", "a": "x" * 6},
    ]
    made = make_examples(data, cfg)
    assert len(made.examples) == 1
    assert made.rows == 7
    assert made.filtered == {
        "empty_prompt": 1, "empty_answer": 1, "prompt_too_short": 1, "prompt_too_long": 1,
        "answer_too_short": 1, "answer_too_long": 1,
    }  # fmt: skip


def test_conversation_gives_one_example_per_answered_turn_in_one_group() -> None:
    cfg = config(prompt="", answer="", conversation="talk", system="S {stage}")
    made = make_examples([{"talk": ["a", "b", "c", "d"], "stage": "one"}], cfg)
    assert [e.answer for e in made.examples] == ["b", "d"]
    assert [len(e.messages) for e in made.examples] == [2, 4]
    assert len({e.group for e in made.examples}) == 1
    assert len({e.id for e in made.examples}) == 2
    last = make_examples([{"talk": ["a", "b", "c", "d"], "stage": "one"}], config(
        prompt="", answer="", conversation="talk", train_on="last"))  # fmt: skip
    assert [e.answer for e in last.examples] == ["d"]


def test_history_before_the_question_or_holding_it() -> None:
    cfg = config(history="h")
    (example,) = make_examples([{"h": ["x", "y"], "q": "z", "a": "w"}], cfg).examples
    assert [(m.role, m.content) for m in example.messages] == [
        ("user", "x"), ("assistant", "y"), ("user", "z"),
    ]  # fmt: skip
    holding = config(history="h", prompt="")
    (example,) = make_examples([{"h": ["x", "y", "z"], "a": "w"}], holding).examples
    assert example.messages[-1].content == "z"


def test_white_space_is_cleaned_only_if_asked() -> None:
    row = {"q": " a  b ", "a": "c \n\n\n d"}
    assert make_examples([row], config()).examples[0].answer == "c \n\n\n d"
    cleaned = make_examples([row], config(clean_whitespace=True)).examples[0]
    assert (cleaned.messages[-1].content, cleaned.answer) == ("a b", "c\n\nd")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "{nope}"}, {"answer": "{nope}"}, {"system": "{nope}"}, {"group": ["nope"]},
        {"label": "nope"}, {"strata": ["nope"]}, {"rejected": "nope"}, {"history": "nope"},
        {"conversation": "nope"},
    ],
)  # fmt: skip
def test_every_configured_column_has_to_exist(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"nope.*'q', 'a', 'k'"):
        make_examples(rows(3), config(**change))


def test_the_id_survives_another_wording_and_the_content_id_does_not() -> None:
    plain = make_examples(rows(1), config()).examples[0]
    worded = make_examples(rows(1), config(prompt="Please answer: {q}")).examples[0]
    assert plain.id == worded.id
    assert plain.content_id != worded.content_id
    other = make_examples([{"q": "question 0", "a": "other"}], config()).examples[0]
    assert other.id != plain.id


def test_rows_that_differ_in_the_system_text_alone_have_ids_of_their_own() -> None:
    data = [{"q": f"q{i // 2}", "a": "x", "s": f"s{i % 2}"} for i in range(6)]
    data.append({"q": "alone", "a": "x", "s": "s0"})
    told = make_examples(data, config(system="{s}")).examples
    assert len({example.id for example in told}) == 7
    backwards = make_examples(data[::-1], config(system="Say it: {s}")).examples
    assert [e.id for e in told] == [e.id for e in backwards[::-1]]
    (alone,) = make_examples(data[-1:], config()).examples
    assert told[-1].id == alone.id


@pytest.mark.parametrize("answer", ["<think>I was cut", "<think>all</think>\n", "So </think> "])
def test_an_answer_that_is_nothing_but_reasoning_is_dropped_and_counted(answer: str) -> None:
    data = [{"q": "one", "a": answer}, {"q": "two", "a": "<think>so</think> 2"}]
    made = make_examples(data, config())
    assert [example.answer for example in made.examples] == ["<think>so</think> 2"]
    assert made.filtered == {"only_reasoning": 1}


@pytest.mark.parametrize("blank", ["", "  \n", None, float("nan")])
def test_the_words_of_a_template_alone_are_no_question(blank: object) -> None:
    data = [{"q": "good", "a": "x"}, {"q": blank, "a": "x"}]
    for prompt in ("{q}", "{q}\n\nAnswer with one of: x, y.", "Is {q} right?"):
        made = make_examples(data, config(prompt=prompt))
        assert made.filtered == {"empty_prompt": 1}
        assert [e.id for e in made.examples] == [make_examples(data[:1], config()).examples[0].id]
    kept = make_examples(data, config(prompt="Is {q} right?", filter=FilterConfig(0)))
    assert (len(kept.examples), kept.filtered) == (2, {})


def test_a_row_with_any_column_of_the_prompt_is_kept() -> None:
    data = [{"q": q, "more": more, "a": "x"} for q in ("why", " ") for more in ("so", "")]
    made = make_examples(data, config(prompt="Read: {q}\n\n{more}\n\nAnswer."))
    assert (len(made.examples), made.filtered) == (3, {"empty_prompt": 1})


def test_a_prompt_may_do_without_where_the_system_text_says_something() -> None:
    data = [{"text": text, "hint": "", "a": "x"} for text in ("A long letter.", " ")]
    made = make_examples(data, config(system="{text}", prompt="Sum it up.\n\n{hint}"))
    assert (len(made.examples), made.filtered) == (1, {"empty_prompt": 1})


def test_a_prompt_without_columns_and_one_after_turns_are_kept() -> None:
    assert make_examples([{"q": "", "a": "x"}], config(prompt="Say it.")).filtered == {}
    cfg = config(prompt="{q}\n\nSay it.", history="h")
    (example,) = make_examples([{"h": ["why?"], "q": "", "a": "x"}], cfg).examples
    assert example.messages[-1].content.endswith("Say it.")


def test_the_words_of_a_template_alone_are_no_answer() -> None:
    data = [{"q": "good", "a": "x"}, {"q": "good", "a": " "}, {"q": "good", "a": None}]
    for answer in ("{a}", "{a}\n\nThat is all."):
        made = make_examples(data, config(answer=answer))
        assert (len(made.examples), made.filtered) == (1, {"empty_answer": 2})
    assert make_examples(data, config(answer="Yes.")).filtered == {}
