from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tools.embedded_models.tokenizer import train_tokenizer

from sizewise.commands.explore import explore_command
from sizewise.commands.plan import plan_command
from sizewise.commands.release import export_command, generate_command, pairs
from sizewise.composition.compose import compose_config, compose_run
from sizewise.config import GenerationConfig, to_run_config
from sizewise.data.example import Message
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.table import Encoded
from sizewise.errors import ConfigError, EvaluationError, ModelError
from sizewise.job.data import load_splits
from sizewise.job.run import run_job
from sizewise.models.tiny import save_tiny_checkpoint
from sizewise.models.tokenizer import load_template
from sizewise.release.card import write_card
from sizewise.release.export import export_run, push
from sizewise.release.generate import conversation, load_run_model, open_run
from sizewise.release.merging import answer_all

SMALL = (
    "model=nano",
    "lora.r=4",
    "logger=none",
    "callbacks=none",
    "dataset.max_train=48",
    "dataset.max_validation=8",
    "dataset.max_test=8",
    "trainer.max_epochs=2",
    "trainer.progress_bar=false",
    "optimizer.lr=1e-2",
    "generation.max_new_tokens=8",
    "evaluation.timed_answers=0",
)
FEW = ("dataset.max_train=8", "dataset.max_validation=2", "dataset.max_test=4",
       "trainer.max_epochs=1")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")

    def make(name, *more):
        cfg = compose_run([*SMALL, f"paths.cache={root / 'cache'}", *more])
        run_job(cfg, root / name)
        return root / name

    return make


@pytest.fixture(scope="module")
def tuned(runs):
    return runs("fp32")


@pytest.fixture(scope="module")
def untouched(runs):
    return runs("untouched", "lora=none", *FEW)


@pytest.fixture(scope="module")
def full(runs):
    return runs("full", "lora=full", *FEW)


def test_a_merged_export_of_an_fp32_run_says_the_same_in_plain_transformers(tuned, tmp_path):
    done = export_run(tuned, tmp_path / "merged", merged=True, examples=8)
    assert done.report.equal_texts == done.report.examples == 8
    assert done.report.nll_after == pytest.approx(done.report.nll_before, rel=1e-4)
    assert not list((tmp_path / "merged").glob("adapter*"))


def test_tied_embeddings_survive_the_merge(tuned, tmp_path):
    from transformers import AutoModelForCausalLM

    export_run(tuned, tmp_path / "merged", merged=True, examples=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    head, embedding = model.lm_head.weight, model.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr()


def test_the_adapter_loads_with_plain_peft(tuned, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sizewise.models.sources import embedded_model_path

    done = export_run(tuned, tmp_path / "adapter", examples=8)
    assert done.report.equal_texts == 8
    base = AutoModelForCausalLM.from_pretrained(embedded_model_path("nano"), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    before = base(ids).logits
    after = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(ids).logits
    assert not torch.allclose(before, after, atol=1e-4)


def test_the_merge_of_a_quantised_run_goes_into_full_weights_and_is_measured(runs, tmp_path):
    run = runs("nf4", "quantization=nf4", *FEW)
    done = export_run(run, tmp_path / "merged", merged=True, examples=4)
    assert done.report.base_dtype == "float32"
    assert done.report.trained_on == "nf4"
    assert done.report.nll_after != done.report.nll_before
    assert "quantization" not in (tmp_path / "merged" / "config.json").read_text()


def test_the_card_names_base_data_results_and_limits(tuned, tmp_path):
    export_run(tuned, tmp_path / "adapter", examples=0)
    card = (tmp_path / "adapter" / "README.md").read_text()
    for word in ("embedded:nano", "icd10_dialogues", "Apache-2.0", "icd10/exact_match",
                 "not a medical device", "| 48 / 8 / 8"):  # fmt: skip
        assert word in card
    assert "{{" not in card
    assert "training answers" not in card


def test_the_card_says_who_wrote_the_training_answers(tuned, tmp_path):
    run = open_run(tuned)
    facts = {"kept": 40, "model": "mini", "path": str(tmp_path / "mini"), "answers_from": "both"}
    data = replace(run.outcome.data, report={**run.outcome.data.report, "teacher": facts})
    run = replace(run, outcome=replace(run.outcome, data=data))
    card = write_card(run, tmp_path, False, None).read_text()
    assert "| 40 written by the model mini (`mini`), beside those of the data |" in card


def test_the_card_does_not_hide_a_split_that_leaks(tuned, tmp_path):
    run = open_run(tuned)
    assert "groups kept apart" in write_card(run, tmp_path, False, None).read_text()
    data = replace(run.outcome.data, report={**run.outcome.data.report, "shared_groups": 3})
    leaking = replace(run, outcome=replace(run.outcome, data=data))
    card = write_card(leaking, tmp_path, False, None).read_text()
    assert "3 groups are in more than one" in card
    assert "kept apart" not in card


def test_a_folder_that_holds_something_is_not_overwritten(tuned, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(ModelError, match="not empty"):
        export_run(tuned, tmp_path / "out", examples=0)
    with pytest.raises(ModelError, match="is a file"):
        export_run(tuned, tmp_path / "out" / "mine.txt", examples=0)


def test_an_export_that_fails_leaves_nothing_and_can_be_repeated(tuned, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("sizewise.release.export.write_card", fail)
        with pytest.raises(OSError, match="disk is full"):
            export_run(tuned, tmp_path / "out", examples=0)
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    export_run(tuned, tmp_path / "out", examples=0)
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_trained_nothing_has_nothing_to_export(untouched, tmp_path):
    with pytest.raises(ModelError, match="trained nothing"):
        export_run(untouched, tmp_path / "out", examples=0)


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory):
    texts = [f"A patient, {n} years old, coughs for {n % 9} days." for n in range(90)]
    folder = tmp_path_factory.mktemp("bases") / "tiny_t5"
    folder.mkdir()
    save_tiny_checkpoint(folder, "t5", train_tokenizer(texts, 512))
    return folder


@pytest.fixture(scope="module")
def seq2seq(runs, tiny_t5):
    return runs("t5", "model=local", f"model.path={tiny_t5}", "model.family=seq2seq", *FEW)


def test_a_merged_seq2seq_model_answers_in_plain_transformers(seq2seq, tmp_path):
    """Its generation settings have to name the token that answers begin after."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    export_run(seq2seq, tmp_path / "merged", merged=True, examples=0)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    new_ids = model.generate(**tokenizer("A patient coughs", return_tensors="pt"))
    assert new_ids.shape[1] > 1


def test_no_release_tells_where_the_base_lay(tuned, seq2seq, tiny_t5, tmp_path):
    for number, (run, merged) in enumerate(((tuned, False), (seq2seq, False), (seq2seq, True))):
        folder = tmp_path / str(number)
        export_run(run, folder, merged=merged, examples=0)
        for file in folder.iterdir():
            content = file.read_bytes()
            assert str(tiny_t5.parent).encode() not in content, file
            assert b"/embedded/models/nano" not in content, file
    named = json.loads((tmp_path / "0" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "embedded:nano"
    card = (tmp_path / "1" / "README.md").read_text()
    assert "tiny_t5, specialised" in card
    assert "base_model:" not in card


def test_a_fully_trained_model_is_exported_whole(full, tmp_path):
    from transformers import AutoModelForCausalLM

    done = export_run(full, tmp_path / "out", examples=4)
    assert done.report.equal_texts == 4
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "adapter" not in card
    assert "library_name: transformers" in card
    assert "lora" not in card.split("# ")[0]


def test_an_evaluation_answers_with_what_it_scored_and_is_not_exported(tuned, tmp_path, capsys):
    asked = [f"run='{tuned}'", "logger=none", "evaluation.timed_answers=0"]
    config = compose_config(asked, "evaluate")
    again = tmp_path / "again"
    run_job(to_run_config(config), again)
    generate_command([f"run={tuned}", "My head hurts."], base=False)
    answer = capsys.readouterr().out
    generate_command([f"run={again}", "My head hurts."], base=False)
    assert capsys.readouterr().out == answer
    with pytest.raises(ModelError, match=f"is an evaluation.*run={tuned}"):
        export_run(again, tmp_path / "out", examples=0)


def test_a_run_in_bf16_is_loaded_in_bf16(runs, tmp_path):
    """The weights that were scored: others give other answers."""
    run = open_run(runs("bf16", "trainer.precision=bf16-true", *FEW))
    dtypes = {p.dtype for p in load_run_model(run).parameters()}
    assert dtypes == {torch.bfloat16}
    assert run.outcome.model.dtype == "bfloat16"


@pytest.mark.parametrize("style", ["turns", "text"])
def test_a_question_is_put_with_the_worked_examples_of_the_run(runs, tmp_path, style):
    shown = ("dataset.few_shot=2", f"dataset.few_shot_style={style}", "lora=none")
    run = open_run(runs(f"shown_{style}", *shown, *FEW))
    test = load_splits(run.cfg.dataset).test[0]
    bare = replace(run.cfg.dataset, few_shot=0)
    alone = next(e for e in load_splits(bare).test if e.id == test.id)
    wording = run.cfg.dataset.prompt.partition("{dialogue}")[2]
    question = alone.messages[-1].content.removesuffix(wording)
    assert conversation(run, question) == test.messages


def test_the_card_says_that_worked_examples_are_missing(tuned, tmp_path):
    run = open_run(tuned)
    assert "worked examples" not in write_card(run, tmp_path, False, None).read_text()
    dataset = replace(run.cfg.dataset, few_shot=2)
    shown = replace(run, cfg=replace(run.cfg, dataset=dataset))
    assert "with 2 worked examples" in write_card(shown, tmp_path, False, None).read_text()


def test_a_question_without_room_is_one_clear_error(tuned):
    with pytest.raises(EvaluationError, match="tokens as it is put to nano"):
        generate_command([f"run={tuned}", "hello " * 5000], base=False)


def test_one_question_is_answered_by_base_and_tuned(tuned, capsys):
    generate_command([f"run={tuned}", "My head hurts on one side."], base=True)
    base, answer = capsys.readouterr().out.splitlines()[:2]
    assert base.startswith("base: ")
    assert answer.startswith("tuned: ")
    with pytest.raises(ConfigError, match="one question"):
        generate_command([f"run={tuned}"], base=False)


def test_a_question_is_put_into_the_words_of_training(tuned, capsys, monkeypatch):
    asked = []

    def answer(model, prompts, *_):
        asked.append(load_template(open_run(tuned).cfg.model).tokenizer.decode(prompts[0]))
        return [SimpleNamespace(text="E11.9")]

    monkeypatch.setattr("sizewise.commands.release.generate_batch", answer)
    generate_command([f"run={tuned}", "My head hurts."], base=False)
    assert capsys.readouterr().out == "E11.9\n"
    assert "My head hurts.\n\nWhich ICD-10-CM code fits this visit?" in asked[0]


def test_the_base_of_a_fully_trained_run_answers_too(full, untouched, capsys):
    """Its weights are no longer in the trained model: they are loaded again."""
    question = "My head hurts on one side."
    generate_command([f"run={full}", question], base=True)
    base, tuned = capsys.readouterr().out.splitlines()[:2]
    generate_command([f"run={untouched}", question], base=False)
    assert base == f"base:  {capsys.readouterr().out.strip()}"
    assert tuned.startswith("tuned: ")


def test_export_and_run_are_compared_greedily(tuned):
    template, model = load_template(open_run(tuned).cfg.model), load_run_model(open_run(tuned))
    prompts = [template.prompt_ids((Message("user", text),)) for text in ("My head.", "My arm.")]
    encoded = tuple(Encoded(ids, [template.end_of_turn]) for ids in prompts)
    split = EncodedSplit(encoded, ())
    texts = [
        answer_all(model, split, template, GenerationConfig(max_new_tokens=8, **how)).texts
        for how in ({}, {"do_sample": True, "temperature": 50.0})
    ]
    assert texts[0] == texts[1]


class Hub(SimpleNamespace):
    """A hub that remembers what it was asked."""

    def __init__(self, private):
        super().__init__(private=private, calls=[])

    def whoami(self):
        return {"name": "me"}

    def model_info(self, repo_id):
        from huggingface_hub.errors import RepositoryNotFoundError

        if self.private is None:
            response = SimpleNamespace(headers={}, status_code=404, request=None)
            raise RepositoryNotFoundError("none", response=response)
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo_id, private, repo_type):
        self.calls.append(("create", private))

    def upload_folder(self, repo_id, folder_path):
        self.calls.append(("upload", repo_id))
        return f"address of {repo_id}"


def test_private_weights_are_never_pushed_to_a_public_repository(tmp_path):
    hub = Hub(private=False)
    with pytest.raises(ModelError, match="public repository"):
        push(tmp_path, "me/there", private=True, api=hub)
    assert hub.calls == []
    assert push(tmp_path, "me/there", private=False, api=hub) == "address of me/there"


def test_a_new_repository_is_made_as_private_as_asked(tmp_path):
    hub = Hub(private=None)
    push(tmp_path, "me/new", private=True, api=hub)
    assert hub.calls == [("create", True), ("upload", "me/new")]


def test_a_push_that_fails_says_what_to_do(tmp_path):
    class Broken:
        def whoami(self):
            raise OSError("no network")

    with pytest.raises(ModelError, match="hf auth login"):
        push(tmp_path, "me/new", api=Broken())


def test_a_baseline_without_a_language_model_is_named_as_such(tuned, monkeypatch):
    for ask in (plan_command, lambda words: explore_command(words, None, 1)):
        with pytest.raises(ConfigError, match="model=majority has no weights"):
            ask(["model=majority"])
    run = open_run(tuned)
    baseline = replace(run, cfg=replace(run.cfg, model=replace(run.cfg.model, family="classical")))
    monkeypatch.setattr("sizewise.commands.release.open_run", lambda *_: baseline)
    with pytest.raises(ConfigError, match="nothing to ask"):
        generate_command([f"run={tuned}", "My head hurts."], base=False)


def test_wrong_words_are_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="push_to"):
        pairs(["pushto=x"], ("run", "push_to"))
    with pytest.raises(ConfigError, match="run= is missing"):
        export_command(["merge=true"])
    with pytest.raises(ConfigError, match="neither true nor false"):
        export_command([f"run={tmp_path}", "merge=maybe"])
    with pytest.raises(ConfigError, match="names no repository"):
        export_command([f"run={tmp_path}", "push_to="])
