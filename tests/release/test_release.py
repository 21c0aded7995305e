from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sizewise.commands.release import export_command, generate_command, pairs
from sizewise.config import GenerationConfig
from sizewise.config.compose import compose_run
from sizewise.data.encode import Encoded, EncodedSplit
from sizewise.data.example import Message
from sizewise.errors import ConfigError, ModelError
from sizewise.release.card import write_card
from sizewise.release.export import export_run
from sizewise.release.hub import push
from sizewise.release.loading import load_run_model, load_run_template, open_run
from sizewise.release.merging import answer_all
from sizewise.run import run_job

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
)


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

    from sizewise.embedded.ladder import embedded_model_path

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
    done = export_run(runs("nf4", "quantization=nf4"), tmp_path / "merged", merged=True, examples=8)
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


def test_a_run_that_trained_nothing_has_nothing_to_export(runs, tmp_path):
    with pytest.raises(ModelError, match="trained nothing"):
        export_run(runs("zero", "lora=none"), tmp_path / "out", examples=0)


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
        asked.append(load_run_template(open_run(tuned)).tokenizer.decode(prompts[0]))
        return [SimpleNamespace(text="E11.9")]

    monkeypatch.setattr("sizewise.commands.release.generate_batch", answer)
    generate_command([f"run={tuned}", "My head hurts."], base=False)
    assert capsys.readouterr().out == "E11.9\n"
    assert "My head hurts.\n\nWhich ICD-10-CM code fits this visit?" in asked[0]


def test_the_base_of_a_fully_trained_run_answers_too(runs, capsys):
    """Its weights are no longer in the trained model: they are loaded again."""
    full = runs("full", "lora=full", "dataset.max_train=8", "trainer.max_epochs=1")
    untouched = runs("untouched", "lora=none")
    question = "My head hurts on one side."
    generate_command([f"run={full}", question], base=True)
    base, tuned = capsys.readouterr().out.splitlines()[:2]
    generate_command([f"run={untouched}", question], base=False)
    assert base == f"base:  {capsys.readouterr().out.strip()}"
    assert tuned.startswith("tuned: ")


def test_export_and_run_are_compared_greedily(tuned):
    template, model = load_run_template(open_run(tuned)), load_run_model(open_run(tuned))
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


def test_wrong_words_are_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="push_to"):
        pairs(["pushto=x"], ("run", "push_to"))
    with pytest.raises(ConfigError, match="run= is missing"):
        export_command(["merge=true"])
    with pytest.raises(ConfigError, match="neither true nor false"):
        export_command([f"run={tmp_path}", "merge=maybe"])
