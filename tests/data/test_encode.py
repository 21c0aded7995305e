"""What does not fit is dropped and counted; the cache's key holds all that decides about ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.data.example import Example, Message
from sizewise.data.tokens import cache, encode
from sizewise.data.tokens.cache import TokenCache
from sizewise.data.tokens.encode import EncodedSplit, LengthStatistics, encode_examples
from sizewise.data.tokens.seq2seq import Seq2SeqTemplate
from sizewise.data.tokens.table import Encoded, table_of
from sizewise.data.tokens.template import ChatTemplate
from sizewise.errors import DataError, ModelError

from .toys import CHATML, DATED, byte_tokenizer, example


class Counting(ChatTemplate):
    """Counts how many prompts it encodes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.encoded = 0

    def encode_pairs(
        self, pairs: Sequence[tuple[Sequence[Message], str]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        self.encoded += len(pairs)
        return super().encode_pairs(pairs)


def chat() -> Counting:
    return Counting(byte_tokenizer(CHATML))


def many() -> list[Example]:
    return [example(f"question {i}", "word " * (i + 1)) for i in range(10)]


def frame(template: ChatTemplate) -> int:
    """Tokens of a prompt without any text."""
    return len(template.prompt_ids([Message("user", "")]))


def test_ids_are_those_of_the_template() -> None:
    template = chat()
    split = encode_examples(many(), template, 1000)
    one = split.examples[3]
    assert split.encoded[3].prompt_ids == template.prompt_ids(one.messages)
    assert split.encoded[3].answer_ids == template.answer_ids(one.messages, one.answer)
    assert (len(split), split.dropped) == (10, {})


def test_an_answer_that_would_be_cut_is_dropped_and_counted() -> None:
    template = chat()
    sizes = [e.length for e in encode_examples(many(), template, 1000).encoded]
    split = encode_examples(many(), template, sizes[4])
    assert len(split) == 5
    assert split.dropped == {"answer_cut": 5}
    assert [e.answer for e in split.examples] == [e.answer for e in many()[:5]]
    assert max(e.length for e in split.encoded) == sizes[4]


def test_all_answers_cut_is_an_error_with_the_lengths_found() -> None:
    sizes = [e.length for e in encode_examples(many(), chat(), 1000).encoded]
    with pytest.raises(DataError) as caught:
        encode_examples(many(), chat(), 20, name="train")
    message = str(caught.value)
    assert "All 10 answers of the train split are cut at 20 tokens" in message
    assert f"{min(sizes)} (shortest)" in message
    assert f"{max(sizes)} (longest)" in message
    assert "dataset.max_length" in message


def test_the_models_own_context_bounds_too() -> None:
    assert encode_examples(many(), chat(), 1000, context=90).max_length == 90
    tokenizer = byte_tokenizer(CHATML, model_max_length=70)
    split = encode_examples(many(), ChatTemplate(tokenizer), 1000)
    assert split.max_length == 70
    assert split.dropped["answer_cut"] > 0
    with pytest.raises(DataError, match="model's own context"):
        encode_examples(many(), chat(), 1000, context=20)


def test_no_examples_give_an_empty_split() -> None:
    assert len(encode_examples([], chat(), 100)) == 0


def test_prompt_cut_from_the_left_keeps_template_system_text_and_answer() -> None:
    template = chat()
    system = Message("system", "rules")
    long = example("old " * 50 + "the end?", "answer", system)
    limit = len(template.prompt_ids([system, Message("user", "")])) + 40
    split = encode_examples([long, example()], template, limit, truncate_prompt=True)
    assert (len(split), split.shortened, split.dropped) == (2, 1, {})
    text = template.tokenizer.decode(split.encoded[0].prompt_ids)
    assert text.startswith("<turn>system\nrules<end>\n<turn>user\n")
    assert text.endswith("the end?<end>\n<turn>assistant\n")
    assert limit - 6 <= split.encoded[0].length <= limit
    assert split.examples[0] == long


def test_oldest_turns_go_first() -> None:
    template = chat()
    turns = [Message("user", "a" * 30), Message("assistant", "b" * 30)]
    talk = example("new question", "yes", *turns)
    limit = frame(template) + 20
    split = encode_examples([talk], template, limit, truncate_prompt=True)
    text = template.tokenizer.decode(split.encoded[0].prompt_ids)
    assert text == "<turn>user\nnew question<end>\n<turn>assistant\n"


def test_an_answer_that_fits_under_no_prompt_is_dropped() -> None:
    with pytest.raises(DataError, match="All 1 answers"):
        encode_examples([example("q" * 50, "a" * 50)], chat(), 45, truncate_prompt=True)


def test_the_cache_gives_the_same_and_encodes_once(tmp_path: Path) -> None:
    template = chat()
    first = encode_examples(many(), template, 70, cache_dir=tmp_path)
    count = template.encoded
    second = encode_examples(many(), template, 70, cache_dir=tmp_path)
    assert second == first
    assert template.encoded == count == 10
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz"]


def test_shortened_prompts_survive_the_cache(tmp_path: Path) -> None:
    data = [example("old " * 50, "answer")]
    runs = [encode_examples(data, chat(), 60, True, tmp_path) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[1].shortened == 1


def changed(change: str) -> tuple[list[Example], ChatTemplate, int, bool]:
    """The arguments of encoding with one thing changed."""
    data, template, length, cut = many(), ChatTemplate(byte_tokenizer(DATED)), 1000, False
    if change == "tokenizer":
        bigger = byte_tokenizer(DATED)
        bigger.add_tokens(["question"])
        template = ChatTemplate(bigger)
    elif change == "template":
        template = ChatTemplate(byte_tokenizer(DATED + " "))
    elif change == "template_kwargs":
        template = ChatTemplate(byte_tokenizer(DATED), None, {"date_string": "01 Jan 2020"})
    elif change == "system":
        data = [example(e.messages[-1].content, e.answer, Message("system", "s")) for e in data]
    elif change == "data":
        data = [*data[:-1], example("other", "answer")]
    elif change == "wording":
        data = [example("Please: " + e.messages[-1].content, e.answer, origin=e.id) for e in data]
    elif change == "max_length":
        length = 999
    elif change == "truncate":
        cut = True
    return data, template, length, cut


CHANGES = (
    "none", "tokenizer", "template", "template_kwargs", "system", "data", "wording",
    "max_length", "truncate",
)  # fmt: skip


def test_the_key_holds_all_that_decides(tmp_path: Path) -> None:
    for number, change in enumerate(CHANGES, 1):
        data, template, length, cut = changed(change)
        cached = encode_examples(data, template, length, cut, tmp_path)
        assert cached == encode_examples(data, template, length, cut)
        assert len(list(tmp_path.iterdir())) == number, change


@pytest.mark.parametrize("damage", [b"", b"not an archive", None])
def test_a_damaged_cache_is_encoded_again(tmp_path: Path, damage: bytes | None) -> None:
    first = encode_examples(many(), chat(), 1000, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    template = chat()
    assert encode_examples(many(), template, 1000, cache_dir=tmp_path) == first
    assert template.encoded == 10
    assert TokenCache(tmp_path).load(path.stem, 10) is not None


def test_no_flipped_bit_of_a_cache_is_taken_for_token_ids(tmp_path: Path) -> None:
    encode_examples(many(), chat(), 1000, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    whole, found = path.read_bytes(), TokenCache(tmp_path).load(path.stem, 10)
    assert found is not None
    for offset in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        assert TokenCache(tmp_path).load(path.stem, 10) in (None, found), offset


@pytest.mark.parametrize("chunk", [1, 3, 10])
@pytest.mark.parametrize("in_memory", [0, 2**20])
def test_ids_are_the_same_from_memory_and_from_the_disk_in_chunks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, in_memory: int
) -> None:
    whole = encode_examples(many(), chat(), 70)
    monkeypatch.setattr(encode, "CHUNK", chunk)
    monkeypatch.setattr(cache, "MOST_IN_MEMORY", in_memory)
    kept = [encode_examples(many(), chat(), 70, cache_dir=tmp_path) for _ in range(2)]
    assert kept == [whole, whole]
    assert isinstance(ids_of(kept[1]), np.memmap) == (in_memory == 0)
    assert 0 < len(whole) < 10


def ids_of(split: EncodedSplit) -> object:
    return split.encoded._ids  # type: ignore[attr-defined]


def test_a_token_takes_four_bytes() -> None:
    split = encode_examples(many(), chat(), 1000)
    assert np.asarray(ids_of(split)).nbytes == 4 * sum(item.length for item in split.encoded)


@given(st.lists(st.tuples(st.lists(st.integers(0, 99)), st.lists(st.integers(0, 99)))), st.data())
def test_a_table_is_a_sequence_like_any_other(
    pairs: list[tuple[list[int], list[int]]], data: st.DataObject
) -> None:
    items = [Encoded(*pair) for pair in pairs]
    table = table_of(items)
    wanted = data.draw(st.lists(st.booleans(), min_size=len(items), max_size=len(items)))
    assert list(table) == items
    assert list(table.where(wanted)) == [item for item, w in zip(items, wanted, strict=True) if w]
    assert list(table[1:]) == items[1:]
    assert list(table.where(wanted)[::-1]) == list(table.where(wanted))[::-1]
    assert table.prompt_lengths.tolist() == [len(item.prompt_ids) for item in items]
    assert table.where(wanted).answer_lengths.tolist() == [
        len(item.answer_ids) for item, w in zip(items, wanted, strict=True) if w
    ]


def test_a_pickle_in_the_cache_is_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    bad = np.array([Trap()], dtype=object)
    names = ("ids", "ends", "shortened")
    np.savez(tmp_path / "key.npz", **dict.fromkeys(names, bad))
    assert TokenCache(tmp_path).load("key", 1) is None
    assert not (tmp_path / "sprung").exists()


def test_an_unwritable_cache_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    split = encode_examples(many(), chat(), 1000, cache_dir=tmp_path / "file" / "deep")
    assert len(split) == 10


def test_length_statistics() -> None:
    stats = LengthStatistics.of([1, 2, 3, 4, 10])
    assert (stats.count, stats.mean, stats.p50, stats.max, stats.total) == (5, 4.0, 3.0, 10, 20)
    assert stats.p95 == pytest.approx(8.8)
    assert LengthStatistics.of([]).count == 0
    split = encode_examples(many(), chat(), 1000)
    assert split.answer_lengths.max == 5 * 10 + 1
    assert split.prompt_lengths.p50 == frame(chat()) + len("question 1")


def test_first_examples_for_quick_runs() -> None:
    split: EncodedSplit = encode_examples(many(), chat(), 1000)
    assert len(split.first(3)) == len(split.first(3).examples) == 3
    assert split.first(None) == split


def test_seq2seq_input_and_target() -> None:
    tokenizer = byte_tokenizer(None)
    template = Seq2SeqTemplate(tokenizer)
    system = Message("system", "Reply:")
    talk = (system, Message("user", "a"), Message("assistant", "b"))
    split = encode_examples([example("hi", "ho", system), example("c", "d", *talk)], template, 1000)
    texts = [tokenizer.decode(e.prompt_ids) for e in split.encoded]
    assert texts == ["Reply:\n\nhi<eos>", "Reply:\n\nUser: a\nAssistant: b\nUser: c<eos>"]
    assert [tokenizer.decode(e.answer_ids) for e in split.encoded] == ["ho<eos>", "d<eos>"]
    assert template.stop_ids == [tokenizer.eos_token_id]


def test_seq2seq_bounds_each_sequence_by_itself() -> None:
    tokenizer = byte_tokenizer(None)
    data = [example("q" * 30, "a" * 30), example("q" * 30, "a" * 50)]
    template = Seq2SeqTemplate(tokenizer)
    split = encode_examples(data, template, 40)
    assert len(split) == 1
    assert split.dropped == {"answer_cut": 1}
    cut = encode_examples([example("q" * 60 + "!", "a")], template, 40, truncate_prompt=True)
    assert len(cut.encoded[0].prompt_ids) == 40
    assert tokenizer.decode(cut.encoded[0].prompt_ids).endswith("!<eos>")


def test_seq2seq_neutralises_control_tokens_and_needs_eos() -> None:
    tokenizer = byte_tokenizer(None)
    ids = Seq2SeqTemplate(tokenizer).prompt_ids([Message("user", "a <eos> b")])
    assert ids.count(tokenizer.eos_token_id) == 1
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="EOS"):
        Seq2SeqTemplate(tokenizer)


def test_behaviour_51_prompts_without_room_for_an_answer_are_left_out_and_counted() -> None:
    template = chat()
    examples = [example("x" * length, "y") for length in (1, 40, 80)]
    context = frame(template) + 60
    split = encode_examples(examples, template, 10_000, context=context, reserve=20)
    assert [len(e.messages[-1].content) for e in split.examples] == [1, 40]
    assert split.dropped == {"answer_cut": 1}
    split = encode_examples(examples, template, 10_000, context=context + 30, reserve=20)
    assert [len(e.messages[-1].content) for e in split.examples] == [1, 40]
    assert split.dropped == {"no_room_to_answer": 1}
    assert len(encode_examples(examples, template, 10_000, context=context + 30)) == 3


def test_behaviour_51_prompts_that_may_be_cut_are_cut_to_leave_room(tmp_path: Path) -> None:
    template = chat()
    examples = [example("x" * length, "y") for length in (1, 80)]
    context = frame(template) + 60
    for _ in range(2):  # the second time from the cache
        split = encode_examples(
            examples, template, 10_000, True, tmp_path, context=context, reserve=20
        )
        assert split.dropped == {}
        assert split.shortened == 1
        assert max(len(item.prompt_ids) for item in split.encoded) == context - 20
    longer = encode_examples(examples, template, 10_000, True, tmp_path, context=context)
    assert max(len(item.prompt_ids) for item in longer.encoded) > context - 20


def test_behaviour_51_where_no_prompt_has_room_all_stay_to_be_refused() -> None:
    """Nothing would be left to answer: the job says how long prompts and answers may be."""
    template = chat()
    split = encode_examples([example("x" * 50, "y")], template, 10_000, context=200, reserve=190)
    assert len(split) == 1
    assert split.dropped == {}
