"""Stand-in rows, local files in a hub id's place, label frequency, test sets, TF-IDF three ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.metrics.helpers import prediction

from sizewise.composition.compose import compose_run
from sizewise.data.build import build_splits, stand_in_rows
from sizewise.data.example import DataReport, DataSplits, Example, Message
from sizewise.data.rows.read import read_rows
from sizewise.data.splits.frequency import STRATUM, add_frequency, count_labels
from sizewise.errors import DataError
from sizewise.evaluation.candidate_set import read_candidates
from sizewise.job.data import load_splits
from sizewise.job.dry_run import few
from sizewise.metrics.reading.closed import plain
from sizewise.metrics.tfidf import Tfidf, tfidf_cosines

HUB = ("psychotherapy", "counseling", "psychology", "empathetic_dialogues", "medsynth")


@pytest.mark.parametrize("name", HUB)
def test_stand_in_rows_have_the_columns_that_the_data_set_names(name: str) -> None:
    cfg = few(compose_run([f"dataset={name}"]).dataset)
    splits = build_splits(cfg, stand_in=True)
    assert splits.train
    assert splits.validation
    assert splits.test
    assert stand_in_rows(cfg) == stand_in_rows(cfg)
    texts = [example.prompt_text for example in splits.train]
    assert all("(synthetic)" in text for text in texts)


def test_without_a_dry_run_nothing_stands_in_for_the_hub() -> None:
    with pytest.raises(DataError, match="hub cannot be reached"):
        build_splits(compose_run(["dataset=psychology"]).dataset)


def test_a_local_file_in_the_place_of_a_hub_id_is_read_by_its_extension(tmp_path: Path) -> None:
    rows = [{"question": f"Why {i}?", "response_j": "So.", "response_k": "No."} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = compose_run(
        ["dataset=psychology", f"dataset.source.path={tmp_path / 'rows.jsonl'}"]
    ).dataset.source
    assert source.kind == "hub"
    assert read_rows(source) == rows
    (tmp_path / "rows.txt").write_text("x")
    source.path = str(tmp_path / "rows.txt")
    with pytest.raises(DataError, match=r"\.jsonl"):
        read_rows(source)


REPORT = DataReport(0, {}, 0, 0, 0, 0.0)


def labelled(codes: Sequence[str], prefix: str) -> tuple[Example, ...]:
    return tuple(
        Example((Message("user", f"{prefix}{i}"),), code, f"{prefix}{i}", {"label": code})
        for i, code in enumerate(codes)
    )


def test_examples_carry_how_often_their_label_occurs_in_training() -> None:
    splits = DataSplits(labelled("AAAAB", "t"), labelled("A", "v"), labelled("ABC", "x"), REPORT)
    marked = add_frequency(splits, count_labels(splits.train), frequent=4)
    found = [example.meta[STRATUM] for example in marked.test]
    assert found == ["frequent (4+)", "rare (1–3)", "never seen"]
    assert marked.question_fingerprint("test") == splits.question_fingerprint("test")
    assert [e.content_id for e in marked.test] == [e.content_id for e in splits.test]


def test_a_label_is_the_same_however_it_is_spelled() -> None:
    train = (*labelled(["Low mood", "low  mood", "LOW MOOD."], "t"), *labelled(["Grief"], "u"))
    splits = DataSplits(train, (), labelled(["low mood", "grief", "worry"], "x"), REPORT)
    marked = add_frequency(splits, count_labels(train, plain), 3, plain)
    found = [example.meta[STRATUM] for example in marked.test]
    assert found == ["frequent (3+)", "rare (1–2)", "never seen"]


def test_the_frequency_on_a_further_test_set_is_that_of_the_runs_own_training() -> None:
    cfg = compose_run(["dataset=icd10_dialogues", "dataset.max_test=5"]).dataset
    splits = load_splits(cfg, labels={})
    assert {example.meta[STRATUM] for example in splits.test} == {"never seen"}


def test_the_rejected_answer_is_never_trained_on(tmp_path: Path) -> None:
    rows = [
        {"question": f"Question {i}?", "response_j": f"chosen {i}", "response_k": f"rejected {i}"}
        for i in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cfg = compose_run(
        ["experiment=psychology_gemma2b", f"dataset.source.path={tmp_path / 'rows.jsonl'}"]
    )
    splits = build_splits(cfg.dataset)
    for example in (*splits.train, *splits.validation, *splits.test):
        assert example.answer.startswith("chosen")
        assert "rejected" not in example.prompt_text
        assert example.meta["rejected"].startswith("rejected")


def test_candidates_may_be_all_labels_of_the_task() -> None:
    train, every = labelled("AB", "t"), labelled("ABC", "x")
    assert read_candidates("train", train, every) == ("A", "B")
    assert read_candidates("labels", train, every) == ("A", "B", "C")


def test_tfidf_compares_the_tuned_answers_with_the_bases_too() -> None:
    base = [prediction(id=str(i), text=t) for i, t in enumerate(["sleep well", "take walks"])]
    tuned = [
        prediction(id=str(i), text=t, reference=r)
        for i, (t, r) in enumerate([("sleep more", "sleep enough"), ("walks help", "take walks")])
    ]
    metric = Tfidf()
    metric.set_base(base)
    metric.update(tuned)
    texts, references = [p.text for p in tuned], [p.reference for p in tuned]
    with_base = tfidf_cosines(texts, [p.text for p in base], references)
    assert [row["base_cosine"] for row in metric.per_example] == with_base
    with_reference = tfidf_cosines(texts, references, references)
    assert [row["cosine"] for row in metric.per_example] == with_reference
    assert {"base_cosine", "base_cosine_std", "cosine_std"} <= metric.compute().keys()
