"""Plans of epochs: complete, deterministic, the same for all ranks; tensors and masks."""

from __future__ import annotations

import numpy as np
import pytest

from sizewise.data.batches.collate import IGNORED, collate_seq2seq, collate_training
from sizewise.data.batches.plan import count_batches, plan_epoch, plan_in_order
from sizewise.data.tokens.table import Encoded
from sizewise.errors import DataError

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(5, 300, 211).tolist()
ANSWERS = RNG.integers(1, 5, 211).tolist()


def plan(batch: int = 4, accumulate: int = 1, **kwargs: object):
    return plan_epoch(LENGTHS, ANSWERS, batch, accumulate, **kwargs)


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (4, 3), (16, 2), (500, 4)])
def test_every_example_once(batch: int, accumulate: int, grouping: bool) -> None:
    found = plan(batch, accumulate, length_grouping=grouping)
    assert sorted(i for micro in found for i in micro.indices) == list(range(211))
    assert len(found) == count_batches(211, batch)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert plan(seed=1, epoch=2) == plan(seed=1, epoch=2)
    assert plan(seed=1, epoch=2) != plan(seed=1, epoch=3)
    assert plan(seed=1, epoch=2) != plan(seed=2, epoch=2)


def test_planning_leaves_global_random_state_alone() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    plan()
    assert np.random.get_state()[1].tolist() == before


def padding(found: list, lengths: list[int]) -> float:
    padded = sum(max(lengths[i] for i in m.indices) * len(m.indices) for m in found)
    return padded / sum(lengths)


def test_grouping_by_length_saves_padding() -> None:
    assert padding(plan(8), LENGTHS) < 1.1 < padding(plan(8, length_grouping=False), LENGTHS)


def test_step_tokens_count_the_whole_step() -> None:
    found = plan(4, 3)
    steps = {m.step for m in found}
    assert steps == set(range(18))
    for step in steps:
        batches = [m for m in found if m.step == step]
        tokens = sum(ANSWERS[i] for m in batches for i in m.indices)
        assert {m.step_tokens for m in batches} == {tokens}
    assert [sum(m.step == step for m in found) for step in sorted(steps)] == [3] * 17 + [2]
    assert [len(m.indices) for m in found] == [4] * 52 + [3]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_steps_and_tokens(world: int) -> None:
    ranks = [plan(4, 2, rank=rank, world=world) for rank in range(world)]
    assert len({len(found) for found in ranks}) == 1
    assert len(ranks[0]) == count_batches(211, 4, world)
    seen = [i for found in ranks for m in found for i in m.indices]
    assert len(seen) == len(set(seen))
    assert 211 - len(seen) < world
    for moment in zip(*ranks, strict=True):
        assert len({(m.step, m.step_tokens, len(m.indices)) for m in moment}) == 1
    for step in {m.step for m in ranks[0]}:
        batches = [m for found in ranks for m in found if m.step == step]
        tokens = sum(ANSWERS[i] for m in batches for i in m.indices)
        assert {m.step_tokens for m in batches} == {tokens}


def test_the_longest_batch_comes_first_in_the_first_epoch() -> None:
    longest = LENGTHS.index(max(LENGTHS))
    assert longest in plan(8, epoch=0)[0].indices


def test_fewer_examples_than_ranks() -> None:
    with pytest.raises(DataError, match="3 training examples cannot be divided among 4 devices"):
        plan_epoch([1] * 3, [1] * 3, 1, world=4)


def test_evaluation_order_is_longest_first_and_complete() -> None:
    found = plan_in_order(LENGTHS, ANSWERS, 10)
    order = [i for m in found for i in m.indices]
    assert sorted(order) == list(range(211))
    assert [LENGTHS[i] for i in order] == sorted(LENGTHS, reverse=True)
    assert found[3].step_tokens == sum(ANSWERS[i] for i in found[3].indices)
    shares = [plan_in_order(LENGTHS, ANSWERS, 10, rank=r, world=2) for r in (0, 1)]
    assert sorted(i for part in shares for m in part for i in m.indices) == list(range(211))


def test_no_rank_stays_without_a_batch_to_validate_on() -> None:
    shares = [plan_in_order([5] * 9, [2] * 9, 4, rank=rank, world=2) for rank in (0, 1)]
    assert [[b.step_tokens for b in share] for share in shares] == [[8, 2], [8, 0]], "in step"
    shares = [plan_in_order([5, 9], [1, 2], 4, rank=rank, world=3) for rank in range(3)]
    assert [[m.indices for m in share] for share in shares] == [[(1, 0)]] * 3


ITEMS = [Encoded([5, 6, 7], [8, 2]), Encoded([5], [9, 9, 2])]


def test_training_batch_is_padded_on_the_right() -> None:
    batch = collate_training(ITEMS, 2, step_tokens=17, multiple=4)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2, 2, 2, 2], [5, 9, 9, 2, 2, 2, 2, 2]]
    x = IGNORED
    assert batch["labels"].tolist() == [[x, x, x, 8, 2, x, x, x], [x, 9, 9, 2, x, x, x, x]]
    assert (batch["step_tokens"], batch["tokens"], batch["answer_tokens"]) == (17, 9, 5)
    assert batch["answer_rows"].tolist() == [2, 3, 8, 9, 10]
    assert batch["answer_ids"].tolist() == [8, 2, 9, 9, 2]


def test_end_of_turn_is_learnt_where_padding_is_the_same_token() -> None:
    labels = collate_training(ITEMS, pad_token_id=2, step_tokens=5)["labels"]
    assert (labels == 2).sum() == 2
    assert (labels != IGNORED).sum() == 5


def test_a_batch_without_answers_raises() -> None:
    for collate in (collate_training, collate_seq2seq):
        with pytest.raises(DataError, match="no answer token"):
            collate([Encoded([1, 2], [])], 0, 1)


def test_seq2seq_batch_pads_each_side_by_itself() -> None:
    batch = collate_seq2seq(ITEMS, 0, step_tokens=5, multiple=1)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, 2, IGNORED], [9, 9, 2]]
    assert batch["answer_rows"].tolist() == [0, 1, 3, 4, 5]
    assert batch["answer_ids"].tolist() == [8, 2, 9, 9, 2]
    assert (batch["tokens"], batch["answer_tokens"]) == (9, 5)
