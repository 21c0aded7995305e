"""Point 18 through a whole job: added tokens and whole modules, trained, evaluated and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from sizewise.composition.compose import compose_run
from sizewise.job.run import run_job
from sizewise.record.directories import RunDir
from sizewise.release.export import export_run

SMALL = (
    "model=nano", "logger=none", "trainer.accelerator=cpu", "trainer.max_steps=2",
    "trainer.progress_bar=false", "dataset.max_train=8", "dataset.max_validation=4",
    "dataset.max_test=4", "generation.max_new_tokens=4", "lora.r=2", "optimizer.lr=0.05",
)  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ("model.added_tokens=[Patient]",),
        ("lora.modules_to_save=[embed_tokens]", "lora.target=[q_proj,v_proj]",
         "lora.layers_to_transform=[0]", "+lora.rank_pattern={q_proj:1}"),
    ],
    ids=["added tokens", "whole modules"],
)  # fmt: skip
def test_point_18_what_was_trained_is_what_is_exported(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    cfg = compose_run([*SMALL, *options, f"paths.cache={tmp_path}/cache"])
    outcome = run_job(cfg, tmp_path / "run")
    assert outcome.tuned is not None
    assert (RunDir(tmp_path / "run").adapter / "adapter_model.safetensors").is_file()
    for merged in (False, True):
        done = export_run(tmp_path / "run", tmp_path / f"merged-{merged}", merged, examples=2)
        assert done.report is not None
        assert done.report.equal_texts == done.report.examples == 2
        assert done.report.nll_after == pytest.approx(done.report.nll_before, rel=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged-True")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged-True")
    assert len(tokenizer) <= plain.get_input_embeddings().num_embeddings
    for token in cfg.model.added_tokens:
        assert tokenizer.tokenize(token) == [token]
