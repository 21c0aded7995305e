"""The detector: spellings, recall first, settings, and the figures in its page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tools.crisis_figures import delivered, measure, share, with_figures

from sizewise.app.crisis import detector
from sizewise.app.crisis.detector import (
    CLASSIFIER,
    LABELS,
    CrisisDetector,
    EncoderClassifier,
    Sentence,
    TfidfClassifier,
    make_classifier,
    read_labelled,
)
from sizewise.app.crisis.phrases import CATEGORIES, PhraseList, normalise, one_edit_apart
from sizewise.app.crisis.settings import CrisisSettings, read_settings
from sizewise.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "crisis_detector.md"


@pytest.fixture(scope="module")
def settings() -> CrisisSettings:
    return read_settings()


brought_once = cache(detector._brought)


@pytest.fixture
def one_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier over the encoder is fitted once for all tests that ask for this."""
    monkeypatch.setattr(detector, "_brought", brought_once)


@pytest.mark.parametrize(
    "message",
    [
        "I want to kill myself",
        "I WANT TO KILL MY SELF!!",
        "i wanna killmyself",
        "I don’t want to live",
        "i dont want to live",
        "I do n't want to live",
        "s.u.i.c.i.d.e is all I think of",
        "s u i c i d e",
        "su1c1de",
        "k*ll myself",
        "sui\u200bcide",
        "I want to k\u034fill my\ufe0fself",
        "I want to ki\u200ell my\u2063self",
        "su\u0456c\u0456de",
        "I want to k\u0456ll mys\u0435lf",
        "\u041aILL MYS\u0415LF",
        "I want to k\u03b9ll myself",
        "suicde",
        "I wanna dieeee",
        "I am not suicidal",
        "I would never kill myself",
        "My husband beats me",
        "i took a whole bottle of pills",
        "I want to hurt my baby",
        "Please help me",
        "This is my last night",
        "I scratch my skin until it bleeds",
        "There is blood everywhere",
        "I took the whole bottle",
        "My boyfriend broke my nose",
        "She is having a seizure",
        "I hide my cuts under long sleeves",
    ],
)
def test_spellings_and_negations_fire(settings: CrisisSettings, message: str) -> None:
    assert CrisisDetector(settings.phrases).check(message) is not None


@pytest.mark.parametrize(
    "message",
    [
        "",
        "   ",
        "My commute is killing me.",
        "We kill some time before lunch.",
        "I'm on a diet",
        "🙂",
        "Can you help me with my sleep?",
        "We argued again last night",
        "There is blood in my urine",
        "I bleed from my gums when I brush my teeth.",
        "My daughter had a seizure last year.",
        "I broke my nose playing rugby.",
        "The scar from my operation is red.",
        "The pain sits between my shoulder blades",
        "I took two paracetamol and it did not help.",
    ],
)
def test_idioms_and_nothing_do_not_fire(settings: CrisisSettings, message: str) -> None:
    assert CrisisDetector(settings.phrases).check(message) is None


def test_an_idiom_does_not_cover_a_crisis_beside_it(settings: CrisisSettings) -> None:
    finding = CrisisDetector(settings.phrases).check("The traffic is killing me, I want to die.")
    assert finding is not None
    assert finding.category == "suicidality"


def test_a_sentence_in_two_messages_is_one(settings: CrisisSettings) -> None:
    detector = CrisisDetector(settings.phrases)
    assert detector.check("myself") is None
    assert detector.check("myself tonight", before="I am going to kill") is not None


def test_long_messages_take_no_more_than_linear_effort(settings: CrisisSettings) -> None:
    found = CrisisDetector(settings.phrases).check("we talked about the garden " * 2_000)
    assert found is None


def test_normalise_is_idempotent() -> None:
    once = normalise("I DON’T wan’t tó  livé any-more… su1cide")
    assert normalise(once) == once
    assert "dont" in once
    assert "any more" in once


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("suicide", "suicide", True),
        ("sucide", "suicide", True),
        ("suiicide", "suicide", True),
        ("siucide", "suicide", True),
        ("suicine", "suicide", True),
        ("sucid", "suicide", False),
        ("decide", "suicide", False),
        ("", "a", True),
        ("", "ab", False),
    ],
)
def test_one_edit(a: str, b: str, near: bool) -> None:
    assert one_edit_apart(a, b) is near
    assert one_edit_apart(b, a) is near


class Certain:
    """A classifier that is sure of one word."""

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        return [0.9 if "lighthouse" in text else 0.1 for text in texts]


def test_any_classifier_can_be_put_beside_the_phrases() -> None:
    detector = CrisisDetector(PhraseList({}), Certain(), threshold=0.5)
    found = detector.check("the lighthouse is dark")
    assert found is not None
    assert (found.category, found.reason) == (CLASSIFIER, "probability 0.90")
    assert detector.check("the garden") is None


def test_an_encoder_is_fitted_on_vectors() -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.array([[float("sea" in t), 1.0] for t in texts])

    sentences = [Sentence(f"sea {i}", "crisis", "", "dev") for i in range(8)]
    sentences += [Sentence(f"land {i}", "ordinary", "", "dev") for i in range(8)]
    sea, land = EncoderClassifier(encode, sentences).probabilities(["the sea", "the land"])
    assert sea > 0.8 > 0.2 > land


def test_the_end_of_a_message_that_is_longer_than_an_encoder_reads_is_read() -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        read = [" ".join(text.split()[:200]) for text in texts]
        return np.array([[float("sea" in text), 1.0] for text in read])

    sentences = [Sentence(f"sea {i}", "crisis", "", "dev") for i in range(8)]
    sentences += [Sentence(f"land {i}", "ordinary", "", "dev") for i in range(8)]
    classifier = EncoderClassifier(encode, sentences)
    for around in ("I walk on the land all day. " * 60, "I walk on the land all day " * 60):
        late, never, short = classifier.probabilities([around + "The sea.", around, "the sea"])
        assert late > 0.7 > 0.3 > never
        assert short > 0.7


def test_an_encoder_that_cannot_be_imported_is_gone_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sentence_transformers").mkdir()
    broken = "raise OSError('libcudart.so: cannot open shared object file')\n"
    (tmp_path / "sentence_transformers" / "__init__.py").write_text(broken)
    for name in [name for name in sys.modules if name.split(".")[0] == "sentence_transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(make_classifier("auto"), TfidfClassifier)
    assert "libcudart.so" in caplog.text


def test_without_the_encoder_words_and_letters_are_read_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "sizewise.app.crisis.detector"
    monkeypatch.setattr(f"{module}.package_folder", lambda name: None)
    detector = read_settings().detector()
    assert isinstance(detector.classifier, TfidfClassifier)
    assert detector.threshold == TfidfClassifier.threshold


@pytest.mark.usefixtures("one_encoder")
@pytest.mark.parametrize("kind", ["tfidf", "auto"])
def test_the_threshold_of_a_file_goes_before_that_of_the_classifier(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "crisis.yaml"
    path.write_text(f"classifier: {kind}\nthreshold: 0.9\n")
    assert read_settings(path).detector().threshold == 0.9


@pytest.mark.usefixtures("one_encoder")
def test_few_ordinary_messages_and_complaints_are_taken_for_a_crisis(
    settings: CrisisSettings,
) -> None:
    """With the encoder: 10 of 99 ordinary messages and 13 of 89 complaints were before."""
    assert isinstance(settings.detector().classifier, EncoderClassifier)
    quality = delivered()
    assert quality.fired["ordinary"].value < 0.05
    assert quality.fired["medical"].value < 0.05
    assert quality.recall.value > 0.78


def test_labelled_sentences_are_balanced_and_distinct() -> None:
    rows = read_labelled()
    assert len({row.text for row in rows}) == len(rows) >= 120
    for part in ("dev", "held_out"):
        counts = [sum(r.label == label for r in rows if r.part == part) for label in LABELS]
        assert min(counts) >= 30
        assert max(counts) < 1.5 * min(counts)
    assert {row.category for row in rows if row.is_crisis} == set(CATEGORIES)


def test_no_development_crisis_is_missed(settings: CrisisSettings) -> None:
    quality = measure(CrisisDetector(settings.phrases), read_labelled("dev"))
    assert quality.missed == ()


def test_measure_counts_recall_and_precision() -> None:
    rows = [
        Sentence("the lighthouse", "crisis", "emergency", "dev"),
        Sentence("the garden", "crisis", "emergency", "dev"),
        Sentence("a lighthouse keeper", "near_miss", "", "dev"),
        Sentence("tea", "ordinary", "", "dev"),
    ]
    quality = measure(CrisisDetector(PhraseList({}), Certain()), rows)
    assert (quality.recall.hits, quality.recall.total) == (1, 2)
    assert (quality.precision.hits, quality.precision.total) == (1, 2)
    assert quality.missed == ("the garden",)
    assert quality.fired["ordinary"].hits == 0


def test_wilson_interval_is_the_published_one() -> None:
    found = share(0, 10).interval  # Newcombe 1998: z²/(n+z²) above
    assert found is not None
    assert found.low == pytest.approx(0.0, abs=1e-12)
    assert found.high == pytest.approx(1.959964**2 / (10 + 1.959964**2), rel=1e-5)


@pytest.mark.usefixtures("one_encoder")
def test_the_page_holds_the_measured_figures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_figures(page), "run python -m tools.crisis_figures"


def test_settings_switch_by_model_and_data(settings: CrisisSettings) -> None:
    assert settings.needed([("nano", "counsel_chat")])
    assert not settings.needed([("nano", "icd10_dialogues"), ("nano", "medsynth_notes")])
    assert settings.needed([("nano", "icd10_dialogues"), ("nano", "counsel_chat")])


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "crisis.yaml"
    path.write_text(
        "country: gb\nclassifier: null\noff_for_models: [nano]\n"
        "more_phrases: {emergency: [purple umbrella]}\n"
        "lines: {XX: [{name: Somebody, contact: '1'}]}\n"
    )
    found = read_settings(path)
    assert found.help_lines()[1].name == "Samaritans"
    assert found.help_lines("xx")[0].name == "Somebody"
    assert found.help_lines("zz") == found.lines[""]
    assert not found.needed([("nano", "counsel_chat")])
    assert found.detector().check("a Purple umbrella!") is not None
    assert found.detector().check("I want to kill myself") is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("contry: GB", "contry"),
        ("threshold: 2", "threshold=2"),
        ("country: ZZ", "no help lines"),
        ("- a", "keys and values"),
        ("a: [", "no YAML"),
        ("more_phrases: {weather: [rain]}", "weather"),
        ("more_phrases: {emergency: ['Don''t!']}", "notation"),
        ("more_phrases: {emergency: ['$nothing']}", "nothing"),
        ("phrases: {other: [a]}", "'other'"),
        ("lines: {XX: [{phone: 1}]}", "name, contact"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "crisis.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said.replace("$", r"\$")):
        read_settings(path)


def test_an_unknown_classifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither"):
        make_classifier("no/such/folder")
