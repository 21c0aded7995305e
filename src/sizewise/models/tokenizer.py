"""Loading of tokenizers and templates, with one policy for padding and for where answers end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.config.model import ModelConfig
from sizewise.data.tokens.seq2seq import Seq2SeqTemplate
from sizewise.data.tokens.template import ChatTemplate, Template
from sizewise.errors import ModelError
from sizewise.files import parse_json
from sizewise.models.sources import Source, find_source, is_local, unusable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"
STAND_IN = "embedded:nano"
UNUSED_NAMES = (
    "<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>", "[UNK]",
)  # fmt: skip


def load_template(model: ModelConfig) -> Template:
    """Load the tokenizer of ``model`` and return how prompts and answers are written for it.

    Raises:
        ModelError: the tokenizer or its chat template is missing or unusable.
    """
    if model.family == "seq2seq":
        return Seq2SeqTemplate(load_tokenizer(model))
    ends = own_stop_ids(model)
    return ChatTemplate(load_tokenizer(model), model.chat_template, model.template_kwargs, ends)


def own_stop_ids(model: ModelConfig) -> list[int]:
    """Return the ``eos_token_id`` of the model's own generation_config.json; none without it.

    It is read where the model lies (a folder, the hub's cache), or comes from the hub together
    with a tokenizer that is not on this machine yet. A tiny random model has none of its own.

    Raises:
        ModelError: the model is nowhere, or the file is damaged.
    """
    from transformers.utils import cached_file

    marker = "config.json" if model.tokenizer else "tokenizer_config.json"
    elsewhere = model.tokenizer and not is_local(model.path, model.revision, marker)
    if model.init == "tiny_random" or elsewhere:
        return []
    source = find_source(model.path, model.revision, marker=marker, weights=False)
    if source.gguf is not None:  # whose end of a turn is the tokenizer's
        return []
    file = cached_file(
        source.path,
        "generation_config.json",
        revision=source.revision,
        local_files_only=source.local_only,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return []
    try:
        found = parse_json(Path(file).read_text(encoding="utf-8")).get("eos_token_id") or []
        return [int(number) for number in (found if isinstance(found, list) else [found])]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read ({error}). Fetch the model again.") from error


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``model`` (``model.tokenizer`` if given, else ``model.path``).

    The vocabulary is extended by ``model.added_tokens`` only: a missing padding token is chosen
    among the existing ones, and differs from the end of a sequence wherever that can be. For
    ``init=tiny_random`` a tokenizer that cannot be found on this machine is replaced by the
    embedded one, with a chat template that follows the same turn rules as the architecture's.

    Raises:
        ModelError: it is not there, cannot be reached, is gated or is unusable.
    """
    if model.init == "tiny_random":
        tokenizer = _local_or_stand_in(model)
    else:
        tokenizer = _load(_tokenizer_source(model), model)
    ensure_padding(tokenizer)
    tokenizer.add_tokens(list(model.added_tokens))
    return tokenizer


def _tokenizer_source(model: ModelConfig) -> Source:
    return find_source(
        model.tokenizer or model.path,
        model.revision if model.tokenizer is None else None,
        marker="tokenizer_config.json",
        weights=False,
        key="model.tokenizer" if model.tokenizer else "model.path",
    )


def _load(source: Source, model: ModelConfig) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.path,
            revision=source.revision,
            local_files_only=source.local_only,
            **source.options,
            trust_remote_code=model.trust_remote_code,
        )
    except Exception as error:  # a file of another form fails anywhere in the library
        what = (
            f"No usable tokenizer at {source.place!r}; set model.tokenizer to a folder or a hub id "
            "that holds one"
        )
        raise unusable(source, what, error) from error
    return tokenizer


def _local_or_stand_in(model: ModelConfig) -> PreTrainedTokenizerBase:
    """Use the real tokenizer where it lies on this machine, else the embedded stand-in."""
    path = model.tokenizer or model.path
    if is_here(model):
        return _load(_tokenizer_source(model), model)
    log.warning(
        "The tokenizer of %s is not on this machine: the tiny random model uses the embedded "
        "tokenizer and a stand-in chat template with the same turn rules.",
        path,
    )
    tokenizer = _load(find_source(STAND_IN, weights=False), model)
    template = stand_in_template(model.architecture.model_type if model.architecture else None)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def is_here(model: ModelConfig) -> bool:
    return is_local(model.tokenizer or model.path, model.revision, "tokenizer_config.json")


def stand_in_template(model_type: str | None) -> str | None:
    """Return our chat template with the turn rules of ``model_type``; None where there is none."""
    path = TEMPLATES / f"{model_type}.jinja"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def ensure_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give ``tokenizer`` a padding token from its own vocabulary, if it has none.

    An otherwise unused token is preferred, so that the end of a turn is never taken for padding;
    the end-of-sequence token is the last resort.
    """
    if tokenizer.pad_token_id is not None:
        return
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    for name in (*UNUSED_NAMES, tokenizer.unk_token, tokenizer.eos_token):
        if name in vocabulary and (name not in taken or name == tokenizer.eos_token):
            tokenizer.pad_token = name
            return
    raise ModelError(
        "The tokenizer has neither a padding nor an end-of-sequence token. "
        "Set one in its tokenizer_config.json."
    )
