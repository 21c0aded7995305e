"""Tokenizers: padding, fall-back for tiny models, and errors that say what to do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.model import ArchitectureConfig, ModelConfig
from sizewise.data.tokens.seq2seq import Seq2SeqTemplate
from sizewise.errors import ModelError
from sizewise.models.base import load_base
from sizewise.models.sources import embedded_model_path
from sizewise.models.tokenizer import (
    TEMPLATES,
    ensure_padding,
    load_template,
    load_tokenizer,
    own_stop_ids,
    stand_in_template,
)

CHAT = [
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Second?"},
]


def test_from_a_folder(tiny: Any, tokenizer: Any) -> None:
    loaded = load_tokenizer(tiny("llama"))
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.pad_token, loaded.eos_token) == ("<|pad|>", "<|end|>")


@pytest.mark.parametrize(("names", "expected"), [
    ({"<unk>", "</s>"}, "<unk>"), ({"</s>"}, "</s>"), ({"<pad>", "<unk>", "</s>"}, "<pad>"),
])  # fmt: skip
def test_padding_comes_from_the_vocabulary(names: set[str], expected: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: number for number, name in enumerate(sorted(names | {"a", "b"}))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    size = len(tokenizer)
    ensure_padding(tokenizer)
    assert tokenizer.pad_token == expected
    assert len(tokenizer) == size


def test_a_tokenizer_without_any_end_raises() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(ModelError, match="end-of-sequence"):
        ensure_padding(PreTrainedTokenizerFast(tokenizer_object=core))


@pytest.mark.parametrize("load", [load_tokenizer, load_base])
@pytest.mark.parametrize(("path", "message"), [
    ("nobody/not-here", "HF_HOME"), ("./not/here", "neither an existing folder"),
    ("embedded:giant", "nano"),
])  # fmt: skip
def test_missing_models_say_what_to_do(load: Any, path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(ModelConfig(name="x", path=path))
    assert path.removeprefix("embedded:") in str(caught.value)


def test_a_gated_model_says_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> None:
        response = httpx.Response(403, request=httpx.Request("HEAD", "http://hub.test"))
        raise huggingface_hub.errors.GatedRepoError("gated", response=response)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(ModelError, match="hf auth login"):
        load_base(ModelConfig(name="x", path="google/gemma-3-4b-it"))


def test_an_empty_folder_and_pickled_weights_are_refused(tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_base(ModelConfig(name="x", path=str(tmp_path)))
    source = Path(tiny("llama").path)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"not to be unpickled")
    with pytest.raises(ModelError, match=r"holds no .*safetensors file"):
        load_base(ModelConfig(name="x", path=str(tmp_path)))


def dry(model_type: str) -> ModelConfig:
    figures = ArchitectureConfig(model_type=model_type, num_heads=4, num_kv_heads=2)
    return ModelConfig(
        name="x", path="nobody/not-here", init="tiny_random", architecture=figures,
        family="seq2seq" if model_type == "t5" else "causal",
    )  # fmt: skip


def test_a_dry_run_uses_the_embedded_tokenizer_and_says_so(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(dry("gemma3"))
    assert "not on this machine" in caplog.text
    assert tokenizer.chat_template == stand_in_template("gemma3")


def rendered(model_type: str, messages: list[dict[str, str]], **more: Any) -> str:
    tokenizer = load_tokenizer(dry(model_type))
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **more
    )
    return text


def test_every_stand_in_template_follows_its_turn_rules() -> None:
    system = [{"role": "system", "content": "Rules."}]
    names = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
    assert len(names) >= 7
    for name in names:
        text = rendered(name, CHAT)
        assert [text.count(part) for part in ("First?", "Yes.", "Second?")] == [1, 1, 1]
        assert "Yes.<|end|>" in text
    for name in ("gemma", "gemma2"):
        with pytest.raises(Exception, match="no system role"):
            rendered(name, system + CHAT)
    assert rendered("gemma3", system + CHAT).startswith("<|turn|>user\nRules.\n\nFirst?")
    assert "<|turn|>model\n" in rendered("gemma3", CHAT)
    assert "Rules.\n\nSecond?" in rendered("mistral", system + CHAT)
    assert "Today: 1 Jan" in rendered("llama", CHAT, date_string="1 Jan")
    assert rendered("qwen2", CHAT).startswith("<|turn|>system\nYou are")
    assert rendered("phi3", CHAT).endswith("<|turn|>assistant\n")


def test_the_config_of_the_other_family_is_refused(tiny: Any) -> None:
    with pytest.raises(ModelError, match=r"model\.family=seq2seq"):
        load_base(ModelConfig(name="x", path=tiny("t5").path, family="causal"))


def test_missing_weights_raise(tmp_path: Path, tiny: Any) -> None:
    source = Path(tiny("llama").path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="missing keys"):
        load_base(ModelConfig(name="x", path=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ModelError, match="unexpected keys"):
        load_base(ModelConfig(name="x", path=str(tmp_path)))


def with_ends(source: str, folder: Path, written: str | None) -> ModelConfig:
    shutil.copytree(source, folder)
    if written is None:
        (folder / "generation_config.json").unlink()
    else:
        (folder / "generation_config.json").write_text(written)
    return ModelConfig(name="x", path=str(folder))


@pytest.mark.parametrize(
    ("written", "more"),
    [('{"eos_token_id": [1, 3, 4]}', {3, 4}), ('{"eos_token_id": 3}', {3}), ("{}", set()),
     ('{"eos_token_id": null}', set()), (None, set())],
)  # fmt: skip
def test_the_models_own_end_tokens_stop_its_answers(
    tmp_path: Path, written: str | None, more: set[int]
) -> None:
    model = with_ends(str(embedded_model_path("nano")), tmp_path / "model", written)
    template = load_template(model)
    assert set(template.stop_ids) == {template.tokenizer.eos_token_id} | more
    assert template.end_of_turn == template.tokenizer.eos_token_id
    random = ModelConfig(name="x", path=model.path, init="tiny_random")
    assert load_template(random).stop_ids == [template.tokenizer.eos_token_id]


def test_own_end_tokens_are_the_bases_where_the_tokenizer_is_anothers(tmp_path: Path) -> None:
    nano = str(embedded_model_path("nano"))
    model = with_ends(nano, tmp_path / "model", '{"eos_token_id": [1, 3]}')
    for path, expected in ((model.path, [1, 3]), ("nobody/not-here", [])):
        assert own_stop_ids(ModelConfig(name="x", path=path, tokenizer=nano)) == expected


def test_own_end_tokens_of_a_cached_revision_are_read_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--who--base" / "snapshots" / commit
    with_ends(str(embedded_model_path("nano")), snapshot, '{"eos_token_id": [1, 3]}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = ModelConfig(name="x", path="who/base", revision=commit)
    assert own_stop_ids(model) == [1, 3]
    (snapshot / "generation_config.json").unlink()
    assert own_stop_ids(model) == []


def test_damaged_generation_settings_are_named(tmp_path: Path) -> None:
    for number, written in enumerate(("{", "[1]", '{"eos_token_id": ["x"]}')):
        folder = tmp_path / str(number)
        model = with_ends(str(embedded_model_path("nano")), folder, written)
        with pytest.raises(ModelError, match=r"generation_config\.json cannot be read"):
            own_stop_ids(model)


def test_every_family_has_its_template() -> None:
    assert isinstance(load_template(dry("t5")), Seq2SeqTemplate)
    assert load_template(dry("t5")).source is None
    assert load_template(dry("phi3")).source == stand_in_template("phi3")
