"""An encoder under a head over classes: loaded, adapted, saved; its texts and its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from sizewise.config import LoraConfig, ModelConfig
from sizewise.data.batches.collate import collate_classes, on_device
from sizewise.data.example import Example, Message
from sizewise.data.tokens.classes import classes_of, encode_texts
from sizewise.data.tokens.table import Encoded
from sizewise.errors import DataError, ModelError
from sizewise.evaluation.classify import Classifier, mean_nll
from sizewise.models.adapter.attach import attach_adapter, load_adapter, save_adapter
from sizewise.models.architecture import check_family, load_config
from sizewise.models.encoder import (
    class_logits,
    head_modules,
    load_encoder,
    positions,
    read_classes,
    write_classes,
)
from sizewise.models.sources import Source
from sizewise.models.tiny import build_random, save_tiny_checkpoint, tiny_config
from sizewise.models.tokenizer import load_tokenizer

CPU = torch.device("cpu")
CLASSES = ("A00", "B01", "C02")
KINDS = ("bert", "roberta", "deberta-v2", "modernbert")


def example(text: str, answer: str) -> Example:
    return Example((Message("user", text),), answer, text)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, ModelConfig]:
    """A tiny checkpoint of each kind, as published: with a head of masked words."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        save_tiny_checkpoint(folder, kind, tokenizer)
        config = build_random(tiny_config(kind, len(tokenizer), None)).config
        config.pad_token_id = tokenizer.pad_token_id
        AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
        found[kind] = ModelConfig(name=kind, path=str(folder), family="encoder")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_is_loaded_and_the_head_is_drawn_from_the_seed(
    encoders: dict[str, ModelConfig], kind: str
) -> None:
    model = encoders[kind]
    one, same, other = (load_encoder(model, CLASSES, CPU, seed) for seed in (1, 1, 2))
    stored = load_file(Path(model.path) / "model.safetensors")
    body = {n: p for n, p in one.base_model.named_parameters() if "pooler" not in n}
    assert body
    prefix = one.base_model_prefix
    assert all(torch.equal(p, stored[f"{prefix}.{n}"]) for n, p in body.items())
    head = one.classifier if kind != "roberta" else one.classifier.out_proj
    assert head.weight.shape[0] == len(CLASSES) == one.config.num_labels
    drawn = [dict(m.named_parameters()) for m in (one, same, other)]
    names = [n for n in drawn[0] if n.startswith("classifier") and n.endswith("weight")]
    assert all(torch.equal(drawn[0][n], drawn[1][n]) for n in names)
    assert not any(torch.equal(drawn[0][n], drawn[2][n]) for n in names)


def test_a_weight_of_the_body_that_is_missing_is_refused(
    encoders: dict[str, ModelConfig], tmp_path: Path, tokenizer: Any
) -> None:
    from safetensors.torch import save_file

    weights = load_file(Path(encoders["bert"].path) / "model.safetensors")
    gone = next(name for name in weights if name.endswith("query.weight"))
    del weights[gone]
    save_tiny_checkpoint(tmp_path, "bert", tokenizer)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    broken = ModelConfig(name="broken", path=str(tmp_path), family="encoder")
    with pytest.raises(ModelError, match=gone.replace(".", r"\.")):
        load_encoder(broken, CLASSES, CPU, 0)


def test_a_checkpoint_with_a_head_over_other_classes_gets_a_new_one(
    tmp_path: Path, tokenizer: Any
) -> None:
    config = tiny_config("bert", len(tokenizer))
    config.num_labels = 7
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = ModelConfig(name="seven", path=str(tmp_path), family="encoder")
    assert load_encoder(model, CLASSES, CPU, 0).classifier.weight.shape[0] == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(17, 6), (16, 16)])
def test_a_pass_never_waits_for_values(
    encoders: dict[str, ModelConfig], kind: str, lengths: tuple[int, int]
) -> None:
    """The meta device has none: whatever reads one raises. On a GPU it would wait for it."""
    base = load_encoder(encoders[kind], CLASSES, CPU, 0)
    model = attach_adapter(base, LoraConfig(r=4), encoders[kind], 0).train().to("meta")
    items = [Encoded([*range(3, 3 + length)], [2]) for length in lengths]
    batch = on_device(collate_classes(items, 0, 2), "meta")
    class_logits(model, batch).sum().backward()
    untold = {key: value for key, value in batch.items() if key != "padded"}
    if kind != "deberta-v2":  # which makes its own masks
        with pytest.raises((RuntimeError, NotImplementedError)):
            class_logits(model, untold)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(17, 6), (16, 16)])
def test_what_is_told_of_padding_changes_no_logits(
    encoders: dict[str, ModelConfig], kind: str, lengths: tuple[int, int]
) -> None:
    model = load_encoder(encoders[kind], CLASSES, CPU, 0).eval()
    items = [Encoded([*range(3, 3 + length)], [0]) for length in lengths]
    batch = collate_classes(items, int(model.config.pad_token_id), 2)
    assert batch["padded"] == (lengths == (17, 6))
    untold = {key: value for key, value in batch.items() if key != "padded"}
    with torch.no_grad():
        torch.testing.assert_close(class_logits(model, batch), class_logits(model, untold))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["all_linear", "attention"])
def test_an_adapter_leaves_the_head_alone_and_stores_it_whole(
    encoders: dict[str, ModelConfig], kind: str, target: str, tmp_path: Path
) -> None:
    model = encoders[kind]
    adapted = attach_adapter(
        load_encoder(model, CLASSES, CPU, 0), LoraConfig(r=4, target=target), model, 0
    )
    heads = tuple(head_modules(load_encoder(model, CLASSES, CPU, 0)))
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert any("lora_A" in n for n in trained)
    in_head = [n for n in trained if any(f".{head}." in n for head in heads)]
    assert in_head
    assert all(".modules_to_save." in n for n in in_head)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1)
    save_adapter(adapted, tmp_path)
    again = load_adapter(load_encoder(model, CLASSES, CPU, 5), tmp_path)
    batch = {
        "input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 9, 1]]),
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
    }
    with torch.no_grad():
        assert torch.allclose(
            class_logits(adapted.eval(), batch), class_logits(again.eval(), batch), atol=1e-5
        )


def test_a_decoder_is_no_encoder_and_the_other_way_round(
    encoders: dict[str, ModelConfig], tiny: Any
) -> None:
    source = Source(encoders["bert"].path)
    with pytest.raises(ModelError, match=r"is an encoder.*model\.family=encoder"):
        load_config(source, ModelConfig(name="x", path="x", family="causal"))
    with pytest.raises(ModelError, match=r"Set model\.family=causal"):
        check_family(tiny_config("llama", 64), ModelConfig(name="x", path="x", family="encoder"))


def test_the_first_position_of_roberta_lies_behind_its_padding(
    encoders: dict[str, ModelConfig],
) -> None:
    tokenizer = load_tokenizer(encoders["roberta"])
    tokenizer.model_max_length = 10**9
    pad = tokenizer.pad_token_id
    assert positions(encoders["roberta"], tokenizer) == 4096 - pad - 1
    assert positions(encoders["bert"], tokenizer) == 4096
    tokenizer.model_max_length = 256
    assert positions(encoders["bert"], tokenizer) == 256


def test_classes_are_the_different_training_answers() -> None:
    assert classes_of([example("a", "B"), example("b", "A"), example("c", "B")]) == ("A", "B")
    with pytest.raises(DataError, match="1 different"):
        classes_of([example("a", "A"), example("b", "A")])
    with pytest.raises(DataError, match="All 3 training answers are different"):
        classes_of([example("a", "A"), example("b", "B"), example("c", "C")])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(4, 40))
def test_no_text_is_left_out_and_none_is_longer_than_the_limit(
    lengths: list[int], limit: int
) -> None:
    tokenizer = load_tokenizer(ModelConfig(name="nano", path="embedded:nano"))
    examples = [example("fever " * n + str(i), "A00") for i, n in enumerate(lengths)]
    whole, cut = (encode_texts(examples, CLASSES, tokenizer, n) for n in (10_000, limit))
    assert len(cut) == len(examples)
    assert all(len(item.prompt_ids) <= limit for item in cut.encoded)
    pairs = list(zip(whole.encoded, cut.encoded, strict=True))
    assert cut.shortened == sum(len(a.prompt_ids) > limit for a, _ in pairs)
    assert all(a.prompt_ids[: len(b.prompt_ids) - 2] == b.prompt_ids[:-2] for a, b in pairs)


def test_an_answer_that_training_never_has_is_asked_for_but_not_learnt(tokenizer: Any) -> None:
    split = encode_texts([example("x", "B01"), example("y", "Z99")], CLASSES, tokenizer, 32)
    assert [item.answer_ids for item in split.encoded] == [[1], []]
    assert [e.answer for e in split.answered.examples] == ["B01"]
    assert split.dropped == {}


def test_the_tokenizers_own_begin_and_end_are_around_each_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "[": 6, "CLS": 7}
    words |= {"]": 8}
    inner = Tokenizer(models.WordLevel(words, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip
    split = encode_texts([example("a b [CLS] b", "A00")], CLASSES, tokenizer, 32)
    assert split.encoded[0].prompt_ids == [2, 4, 5, 6, 7, 8, 5, 3]


def test_the_answer_is_the_most_probable_class_whatever_the_batch(
    encoders: dict[str, ModelConfig],
) -> None:
    model = load_encoder(encoders["bert"], CLASSES, CPU, 3)
    tokenizer = load_tokenizer(encoders["bert"])
    examples = [example("cough " * n, CLASSES[n % 3]) for n in range(1, 7)]
    split = encode_texts(examples, CLASSES, tokenizer, 64)
    classify = Classifier(model, CLASSES, tokenizer.pad_token_id)
    together = classify(split.examples, split.encoded)
    alone = [classify([e], [i])[0] for e, i in zip(split.examples, split.encoded, strict=True)]
    for one, other, item in zip(together, alone, split.encoded, strict=True):
        ids = torch.tensor([item.prompt_ids])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        probabilities = logits.softmax(-1)
        assert one.text == one.candidate == other.text == CLASSES[int(logits.argmax())]
        assert one.candidate_probability == pytest.approx(float(probabilities.max()), rel=1e-4)
        assert one.log_prob != one.log_prob  # there is no likelihood of a text
    nll = mean_nll(model, split.encoded, 2, tokenizer.pad_token_id)
    batch = collate_classes(split.encoded, tokenizer.pad_token_id, 6)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(class_logits(model, batch), batch["labels"])
    assert nll == pytest.approx(float(expected), rel=1e-4)


def test_the_classes_of_a_head_are_read_back(tmp_path: Path) -> None:
    write_classes(["ü", "b"], tmp_path)
    assert read_classes(tmp_path) == ("ü", "b")
    (tmp_path / "classes.json").write_text("[]")
    with pytest.raises(ModelError, match="no list of answers"):
        read_classes(tmp_path)
    with pytest.raises(ModelError, match=r"classes\.json.*cannot be read"):
        read_classes(tmp_path / "nowhere")
