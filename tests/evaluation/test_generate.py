from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig as HfGenerationConfig
from transformers import PreTrainedModel, RepetitionPenaltyLogitsProcessor

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.errors import EvaluationError
from sizewise.evaluation import generate
from sizewise.evaluation.generate import (
    ConfidenceRecorder,
    Generated,
    RepetitionPenalty,
    SeededChoice,
    generate_batch,
)
from sizewise.evaluation.text import decode_answer
from sizewise.models.base import load_base

from .helpers import VOCAB, StubSplit, StubTemplate

GREEDY = GenerationConfig(max_new_tokens=12)
SAMPLING = GenerationConfig(
    max_new_tokens=12, do_sample=True, temperature=0.8, top_p=0.9, top_k=50, seed=3
)


def prompts(split: StubSplit) -> list[list[int]]:
    return [item.prompt_ids for item in split.encoded]


def one_by_one(
    model: PreTrainedModel, split: StubSplit, template: StubTemplate, config: GenerationConfig
) -> list[Generated]:
    return [
        generate_batch(model, [item.prompt_ids], template, config, [example.id])[0]
        for item, example in zip(split.encoded, split.examples, strict=True)
    ]


def together(
    model: PreTrainedModel, split: StubSplit, template: StubTemplate, config: GenerationConfig
) -> list[Generated]:
    ids = [example.id for example in split.examples]
    return generate_batch(model, prompts(split), template, config, ids)


def ids_of(answers: list[Generated]) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


@pytest.mark.parametrize("config", [GREEDY, SAMPLING], ids=["greedy", "sampling"])
@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_batch_of_eight_equals_batches_of_one(family, config, split, template, request) -> None:
    model = request.getfixturevalue(family)
    single, batched = (f(model, split, template, config) for f in (one_by_one, together))
    assert ids_of(batched) == ids_of(single)
    assert [a.text for a in batched] == [a.text for a in single]
    for one, many in zip(single, batched, strict=True):
        assert many.token_log_prob == pytest.approx(one.token_log_prob, abs=1e-3)
    assert len(set(ids_of(single))) > 4, "the model says the same to everything"


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_batch_size_does_not_matter_when_quantised(
    method, causal, split, template, tmp_path: Path
) -> None:
    causal.save_pretrained(tmp_path)
    model = load_base(
        ModelConfig(name="tiny", path=str(tmp_path), dtype="float32"),
        QuantizationConfig(method=method, compute_dtype="float32"),
    )
    single, batched = (f(model, split, template, GREEDY) for f in (one_by_one, together))
    assert ids_of(batched) == ids_of(single)


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_greedy_equals_plain_generate(family, split, template, request) -> None:
    model = request.getfixturevalue(family)
    for item, answer in zip(split.encoded, together(model, split, template, GREEDY), strict=True):
        expected = model.generate(
            torch.tensor([item.prompt_ids]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=list(template.stop_ids),
            pad_token_id=0,
            decoder_start_token_id=0 if family == "seq2seq" else None,
        )[0].tolist()
        skip = 1 if family == "seq2seq" else len(item.prompt_ids)
        assert list(answer.token_ids) == expected[skip:]


def test_every_end_of_turn_token_ends_an_answer(causal, split, template) -> None:
    free = together(causal, split, StubTemplate(template.tokenizer, (VOCAB - 1,)), GREEDY)
    stops = {free[0].token_ids[4], free[3].token_ids[6]}
    stopped = together(causal, split, StubTemplate(template.tokenizer, tuple(stops)), GREEDY)
    for long, short in zip(free, stopped, strict=True):
        end = next((i for i, token in enumerate(long.token_ids) if token in stops), None)
        assert short.finished == (end is not None)
        assert short.token_ids == long.token_ids[: 12 if end is None else end + 1]
    assert len({answer.token_ids[-1] for answer in stopped if answer.finished}) > 1


def test_defaults_of_the_model_do_not_leak_in(causal, split, template) -> None:
    expected = ids_of(together(causal, split, template, GREEDY))
    own = HfGenerationConfig(
        repetition_penalty=5.0, do_sample=True, temperature=9.0, num_beams=3, max_length=2,
        no_repeat_ngram_size=1, suppress_tokens=list(range(2, 200)), min_new_tokens=9,
    )  # fmt: skip
    causal.generation_config = own
    assert ids_of(together(causal, split, template, GREEDY)) == expected
    assert causal.generation_config is own


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_confidence_is_the_mean_log_probability(family, split, template, request) -> None:
    model = request.getfixturevalue(family)
    answers = together(model, split, template, GREEDY)
    for item, answer in zip(split.encoded, answers, strict=True):
        new = torch.tensor(answer.token_ids)
        if family == "seq2seq":
            decoder = torch.cat([torch.tensor([0]), new[:-1]])[None]
            inputs = {"input_ids": torch.tensor([item.prompt_ids]), "decoder_input_ids": decoder}
            logits = model(**inputs).logits[0]
        else:
            row = torch.tensor([[*item.prompt_ids, *answer.token_ids]])
            logits = model(row).logits[0, len(item.prompt_ids) - 1 : -1]
        log_probs = logits.log_softmax(-1).gather(1, new[:, None])
        assert answer.token_log_prob == pytest.approx(float(log_probs.detach().mean()), abs=1e-3)


@pytest.mark.parametrize("held", [1, 2, 5])
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_steps_that_are_taken_back_do_not_count(
    held: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the probabilities of one step, of two or of all are computed together."""
    monkeypatch.setattr(generate, "MOST_HELD", held * 2 * 7)
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 7, generator=generator) for _ in range(5)]
    tokens = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 0]])
    recorder = ConfidenceRecorder()
    for step, scores in enumerate(logits):
        assert recorder(tokens[:, :step], scores) is scores
        assert len(recorder._held) <= held
    every = torch.stack(
        [x.log_softmax(-1).gather(1, tokens[:, i, None])[:, 0] for i, x in enumerate(logits)], 1
    )
    assert torch.allclose(recorder.log_probs(tokens[:, :kept]), every[:, :kept], atol=1e-6)


def test_another_seed_samples_another_answer(causal, split, template) -> None:
    other = GenerationConfig(**{**vars(SAMPLING), "seed": 4})
    first = ids_of(together(causal, split, template, SAMPLING))
    assert first == ids_of(together(causal, split, template, SAMPLING))
    assert first != ids_of(together(causal, split, template, other))
    state = torch.random.get_rng_state()
    together(causal, split, template, SAMPLING)
    assert torch.equal(state, torch.random.get_rng_state())


def test_sampled_tokens_follow_their_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    names = [f"example {i}" for i in range(4000)]
    choice = SeededChoice(names, steps=1, seed=0)
    scores = choice(torch.zeros(4000, 1), probabilities.log().expand(4000, -1))
    shares = scores.argmax(-1).bincount(minlength=4) / 4000
    assert shares[1] == 0
    assert torch.allclose(shares, probabilities, atol=0.03)


def test_repetition_penalty_is_the_usual_one_and_ignores_padding() -> None:
    scores = torch.randn(1, 10, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[4, 7, 4]])
    expected = RepetitionPenaltyLogitsProcessor(1.5)(tokens, scores.clone())
    assert torch.equal(RepetitionPenalty(1.5, torch.ones(1, 2))(tokens, scores), expected)
    padded = torch.tensor([[0, 0, 4, 7, 4]])
    mask = torch.tensor([[0, 0, 1, 1]])
    assert torch.equal(RepetitionPenalty(1.5, mask)(padded, scores), expected)


def test_repetition_penalty_does_not_depend_on_the_batch(causal, split, template) -> None:
    config = GenerationConfig(max_new_tokens=12, repetition_penalty=1.8)
    single, batched = (f(causal, split, template, config) for f in (one_by_one, together))
    assert ids_of(batched) == ids_of(single)
    assert ids_of(batched) != ids_of(together(causal, split, template, GREEDY))


def test_modes_of_modules_are_restored(causal, split, template) -> None:
    causal.train()
    causal.model.layers[0].eval()
    before = [module.training for module in causal.modules()]
    together(causal, split, template, GREEDY)
    assert [module.training for module in causal.modules()] == before


def test_labels_are_never_decoded(template) -> None:
    with pytest.raises(EvaluationError, match="-100"):
        decode_answer(template, [5, -100])


def test_an_empty_prompt_is_refused(causal, template) -> None:
    with pytest.raises(EvaluationError, match="no tokens"):
        generate_batch(causal, [[5], []], template, GREEDY)
