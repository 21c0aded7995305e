"""The shipped models: small, complete, as the manifest says, loadable without any own code."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from tools.embedded_models.build import differences, main, read_manifest
from transformers import AutoModelForCausalLM, AutoTokenizer

from sizewise.embedded.dialogues import PROMPT, fingerprint, generate_dialogues
from sizewise.embedded.general_text import PretrainingText
from sizewise.errors import ModelError
from sizewise.models.sources import EMBEDDED_MODELS, embedded_model_path, models_folder

PARAMETERS = {"nano": (0.2e6, 0.4e6), "micro": (0.8e6, 1.2e6), "mini": (3.5e6, 4.5e6)}


@pytest.fixture(scope="module")
def data_fingerprint() -> str:
    return fingerprint(generate_dialogues())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(models_folder(), tmp_path / "models"))


def test_shipped_files_are_those_of_the_manifest(data_fingerprint: str) -> None:
    assert differences(models_folder(), data_fingerprint) == []
    assert main(["--check"]) == 0


def test_one_changed_byte_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = copy / "nano" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["--check", "--output", str(copy)]) == 1
    assert "nano/model.safetensors has another content" in capsys.readouterr().out


def test_missing_extra_and_other_data_are_found(copy: Path) -> None:
    (copy / "micro" / "config.json").unlink()
    (copy / "extra.txt").write_text("x")
    found = " ".join(differences(copy, "another"))
    assert "micro/config.json is missing" in found
    assert "extra.txt is not in the manifest" in found
    assert "fingerprint another" in found


def test_missing_manifest_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json is missing"):
        read_manifest(tmp_path)


def test_all_files_together_take_at_most_twelve_megabytes() -> None:
    assert sum(p.stat().st_size for p in models_folder().rglob("*") if p.is_file()) <= 12e6


@pytest.mark.parametrize("name", EMBEDDED_MODELS)
def test_model_loads_in_16_bit_with_the_stated_size(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(embedded_model_path(name), dtype="auto")
    count = sum(p.numel() for p in model.parameters())
    low, high = PARAMETERS[name]
    assert low < count < high
    assert count == read_manifest(models_folder())["models"][name]["parameters"]
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_an_unknown_name_names_the_options() -> None:
    with pytest.raises(ModelError, match=r"'huge'.*nano, micro, mini"):
        embedded_model_path("huge")


@pytest.mark.parametrize("name", EMBEDDED_MODELS)
def test_tokenizer_round_trip(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path(name))
    texts = [f"{e.question}\n{e.answer}" for e in islice(PretrainingText(), 50)]
    texts += ["Ménière – naïve 日本\t ok", "  two  spaces \n\n", "G43.909"]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text


def test_digits_are_tokens_of_their_own() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path("nano"))
    ids = tokenizer("M25.561", add_special_tokens=False).input_ids
    assert [tokenizer.decode([i]) for i in ids] == ["M", "2", "5", ".", "5", "6", "1"]


def test_chat_template_and_special_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path("nano"))
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "I10"},
    ]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    prompt = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert whole == "<|system|>Be brief.<|end|><|user|>Hello<|end|><|assistant|>I10<|end|>"
    assert whole == prompt + "I10" + tokenizer.eos_token
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 3
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_task_prompts_leave_room_in_the_context() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path("nano"))
    lengths = [
        len(tokenizer(PROMPT.format(**row), add_special_tokens=False).input_ids)
        for row in generate_dialogues()
    ]
    assert max(lengths) < 200
    assert sum(lengths) / len(lengths) < 130


def test_largest_model_answers_in_words_and_stops() -> None:
    folder = embedded_model_path("mini")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    turns = [{"role": "user", "content": "What is the code of Pain in right knee?"}]
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, max_new_tokens=40, do_sample=False)
    answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
    assert answer == "Pain in right knee, code M25.561.<|end|>"
