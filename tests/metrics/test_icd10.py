from __future__ import annotations

import random

import pytest
from sklearn.metrics import precision_recall_fscore_support

from sizewise.data.tokens.reasoning import strip_reasoning
from sizewise.errors import ConfigError, EvaluationError
from sizewise.metrics.icd10 import Icd10, averages, match_scores
from sizewise.metrics.reading.codes import (
    dotted,
    extract_code,
    find_codes,
    load_catalogue,
    normalise,
)

from .helpers import measure, prediction


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("E11.9", "E119"),
        ("e119", "E119"),
        ("The code is I10.", "I10"),
        ("**S72.001A** (fracture)", "S72001A"),
        ("ICD-10: M54.50; also E11.9", "M5450"),
        ("E10-E14", "E10"),
        ("C7A.00", "C7A00"),
        ("<think>Could be E11.9 or I10.</think>\nJ45.909", "J45909"),
        ("It must be E11.9</think>J45.909", "J45909"),
        ("<think>E11.9, no wait", None),
        ("<THINKING>E11.9</THINKING> no code", None),
        ("", None),
        ("H1N1 flu, A1C of 7, 120 mg, COVID19", None),
        ("Vitamin B12 deficiency, E53.8", "E538"),
        ("X99.99", "X9999"),
        ("I10.The patient has it", "I10"),
        ("I10.High blood pressure", "I10"),
        ("X58.XXXA", "X58XXXA"),
        ("I10.A", "I10A"),
        ("I10.9", "I109"),
    ],
)
def test_codes_are_found_in_free_text(text: str, code: str | None) -> None:
    assert extract_code(text, load_catalogue("icd10cm").contains) == code


def test_writing_of_codes() -> None:
    assert normalise(" e11.9 ") == "E119"
    assert (dotted("E119"), dotted("I10")) == ("E11.9", "I10")
    assert find_codes("E11.9 then i10") == ["E119", "I10"]
    assert extract_code("B12, E53.8") == "B12"
    assert strip_reasoning("a<think>b</think>c").split() == ["a", "c"]


def test_matches_by_prefix() -> None:
    assert match_scores("E119", "E119") == {
        "exact_match": 1, "prefix3": 1, "prefix1": 1, "unparsed": 0,
    }  # fmt: skip
    assert match_scores("E118", "E119")["exact_match"] == 0
    assert match_scores("E118", "E119")["prefix3"] == 1
    assert match_scores("E780", "E119")["prefix3"] == 0
    assert match_scores("E780", "E119")["prefix1"] == 1
    assert match_scores(None, "E119") == {
        "exact_match": 0,
        "prefix3": 0,
        "prefix1": 0,
        "unparsed": 1,
    }


def test_rates() -> None:
    metric = Icd10()
    scores = measure(
        metric,
        prediction("E11.9", "E119"),
        prediction("e11", "E11.9"),
        prediction("E11.99", "E11.9"),
        prediction("I do not know.", "E11.9"),
        prediction("I10", "E11.9"),
    )
    assert scores["exact_match"] == pytest.approx(0.2)
    assert scores["prefix3"] == pytest.approx(0.6)
    assert scores["prefix1"] == pytest.approx(0.6)
    assert scores["unparsed"] == pytest.approx(0.2)
    assert scores["invalid"] == pytest.approx(0.2)
    assert scores["non_leaf"] == pytest.approx(0.2)
    assert [row["invalid"] for row in metric.per_example] == [0, 0, 1, 0, 0]
    assert [row["non_leaf"] for row in metric.per_example] == [0, 1, 0, 0, 0]


def test_catalogues_hold_categories_but_no_blocks() -> None:
    for name in ("icd10cm", "who"):
        catalogue = load_catalogue(name)
        assert catalogue.contains("I10")
        assert catalogue.is_leaf("I10")
        assert catalogue.contains("E11")
        assert not catalogue.is_leaf("E11")
        assert not any(catalogue.contains(c) for c in ("A00-A09", "1", "I", "X9999", ""))
    assert load_catalogue("icd10cm").contains("S72001A")
    assert not load_catalogue("who").contains("S72001A")


def test_unknown_catalogue_and_reference_without_code() -> None:
    with pytest.raises(ConfigError, match="icd10cm, who"):
        load_catalogue("icd9")
    with pytest.raises(EvaluationError, match="codes as reference"):
        Icd10().update([prediction("E11.9", "diabetes")])


def test_averages_equal_scikit_learn() -> None:
    rng = random.Random(0)
    codes = [f"E{i}" for i in range(10, 40)]
    references = [rng.choice(codes[:20]) for _ in range(300)]
    predicted = [r if rng.random() < 0.5 else rng.choice([*codes, ""]) for r in references]
    found = averages(predicted, references)
    labels = sorted(set(references))
    for kind in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            references, predicted, labels=labels, average=kind, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert found[f"{kind}_{name}"] == pytest.approx(value, abs=1e-12)
