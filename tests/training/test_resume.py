"""An interrupted fit ends with exactly what an undisturbed one ends with."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from safetensors.torch import save_file
from tests.training.toys import (
    KillAt,
    KilledError,
    adapted,
    fit_toy,
    make_module,
    quantised_base,
    tiny_base,
    weights,
)

from sizewise.errors import TrainingError
from sizewise.record.directories import RunDir
from sizewise.training.checkpoint import read_best, read_checkpoint, write_checkpoint


def history(run_dir: Path) -> list[Any]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["values"]) for line in lines]


def stopper() -> EarlyStopping:
    return EarlyStopping("val_loss", patience=1, min_delta=0.02)


def state(run_dir: Path, module: Any, result: Any) -> dict[str, Any]:
    """Everything that has to be equal: weights, history, result without times."""
    facts = {k: v for k, v in vars(result).items() if k not in ("seconds", "peak_bytes")}
    return {"weights": weights(module), "history": history(run_dir), "facts": facts}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["facts"] == other["facts"]
    assert one["history"] == other["history"]
    assert one["weights"].keys() == other["weights"].keys() != set()
    for name, tensor in one["weights"].items():
        assert torch.equal(tensor, other["weights"][name]), name


def run_with_kills(run_dir: Path, kills: list[tuple[str, int]], **overrides: Any) -> dict[str, Any]:
    """Start again after each kill, with everything built anew as in a new process."""
    for kill in kills:
        with pytest.raises(KilledError):
            fit_toy(run_dir, callbacks=[KillAt(*kill)], **overrides)
    module, result = fit_toy(run_dir, **overrides)
    return state(run_dir, module, result)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the undisturbed fit ends; whoever changes it copies it."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> dict[str, Any]:
    module, result = fit_toy(finished)
    assert result.steps == 12
    return state(finished, module, result)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit that was killed late, with its checkpoints; whoever goes on copies it."""
    run_dir = tmp_path_factory.mktemp("killed")
    with pytest.raises(KilledError):
        fit_toy(run_dir, callbacks=[KillAt("on_train_batch_start", 17)])
    return run_dir


# 22 examples, 2 x 2 a step: 6 steps (11 micro-batches) an epoch; validation every 4 steps,
# checkpoints every 3, so that killings fall between them, on them and on the epoch's last step.
KILLS = [
    [("on_train_batch_start", 1)],
    [("on_validation_batch_start", 1)],
    [("on_train_batch_start", 6)],
    [("on_train_batch_start", 7)],
    [("on_train_batch_start", 8)],
    [("on_validation_batch_start", 4)],
    [("on_train_batch_start", 9)],
    [("on_train_batch_start", 12)],
    [("on_train_epoch_end", 1)],
    [("on_train_batch_start", 15)],
    [("on_before_optimizer_step", 9)],
    [("on_train_batch_start", 22)],
    [("on_train_end", 1)],
    [("on_train_batch_start", 9), ("on_train_batch_start", 3), ("on_validation_batch_start", 1)],
]


@pytest.mark.parametrize(
    "kills", KILLS, ids=lambda kills: "+".join(f"{h[3:]}{n}" for h, n in kills)
)
def test_killed_fit_ends_as_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, Any], kills: list[tuple[str, int]]
) -> None:
    assert_same(run_with_kills(tmp_path, kills), undisturbed)


@pytest.mark.parametrize("every", [1, 2])
def test_resume_from_every_step(tmp_path: Path, undisturbed: dict[str, Any], every: int) -> None:
    """With a checkpoint at every step, a fit killed over and over still ends the same."""
    kills = [("on_train_batch_start", 4)] * (6 if every == 1 else 4)
    assert_same(run_with_kills(tmp_path, kills, checkpoint_every=every), undisturbed)


def test_early_stopping_survives_a_kill(tmp_path: Path) -> None:
    """Patience that was used up before the kill still counts, and a stopped fit stays stopped."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = {"validate_every": 2, "lr": 0.3}
    module, result = fit_toy(whole, callbacks=[stopper()], **settings)
    assert result.stopped_early
    assert result.steps < 12
    for kill in (("on_validation_batch_start", 5), ("on_train_end", 1)):
        with pytest.raises(KilledError):
            fit_toy(cut, callbacks=[stopper(), KillAt(*kill)], **settings)
    again, resumed = fit_toy(cut, callbacks=[stopper()], **settings)
    assert_same(state(cut, again, resumed), state(whole, module, result))


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_quantised_base_resumes(tmp_path: Path, bits: str) -> None:
    def module() -> Any:
        return make_module(adapted(quantised_base(bits, tmp_path / "base")))

    model, result = fit_toy(tmp_path / "whole", module(), max_steps=7)
    with pytest.raises(KilledError):
        fit_toy(
            tmp_path / "cut", module(), callbacks=[KillAt("on_train_batch_start", 10)], max_steps=7
        )
    again, resumed = fit_toy(tmp_path / "cut", module(), max_steps=7)
    assert_same(state(tmp_path / "cut", again, resumed), state(tmp_path / "whole", model, result))


def test_validations_do_not_change_what_is_trained(tmp_path: Path) -> None:
    """Random state is kept around validations; the best weights are those of the last step."""
    few = fit_toy(tmp_path / "few", validate_every=50)[0]
    many = fit_toy(tmp_path / "many", validate_every=1, checkpoint_every=None)
    assert many[1].best_step == many[1].steps
    for name, tensor in weights(few).items():
        assert torch.equal(tensor, weights(many[0])[name])


def test_finished_fit_is_not_repeated(tmp_path: Path) -> None:
    module, result = fit_toy(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    fresh = make_module(adapted(tiny_base(), seed=9))
    again, read = fit_toy(tmp_path, fresh, callbacks=[KillAt("on_train_batch_start", 1)])
    assert read == result
    for name, tensor in weights(module).items():
        assert torch.equal(tensor, weights(again)[name])


def test_checkpoint_holds_the_adapter_and_no_base(tmp_path: Path) -> None:
    module, _ = fit_toy(tmp_path, keep_last_checkpoint=True)
    stored = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert stored["state_dict"].keys() == weights(module).keys()
    assert all("lora_" in name for name in stored["state_dict"])
    assert "hyper_parameters" not in stored


def test_checkpoint_of_another_adapter_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    with pytest.raises(KilledError):
        fit_toy(tmp_path, callbacks=[KillAt("on_train_batch_start", 12)])
    other = get_peft_model(tiny_base(), LoraConfig(r=2, target_modules=["q_proj", "o_proj"]))
    with pytest.raises(TrainingError, match="weights are missing"):
        fit_toy(tmp_path, make_module(other))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_a_weight(path: Path) -> None:
    """Change one bit of the largest part of an archive, and not of the padding between parts."""
    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    names = content[part.header_offset + 26 : part.header_offset + 30]
    start = part.header_offset + 30 + sum(struct.unpack("<HH", names))
    content[start + part.file_size // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path: Path) -> None:
    torch.save({"state_dict": KilledError("code")}, path)


def foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


DAMAGES = [
    *(("last.ckpt", way) for way in (flip_a_weight, cut, pickled, foreign)),
    *(("best.safetensors", way) for way in (flip, cut, Path.unlink)),
    ("last.ckpt", lambda path: path.write_bytes(b"")),
    ("best.safetensors", lambda path: path.write_bytes(b"")),
    (
        "best.safetensors",
        lambda path: path.write_bytes(path.read_bytes().replace(b"loss", b"lost")),
    ),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_start_and_says_so(
    tmp_path: Path,
    killed: Path,
    undisturbed: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Any,
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoints" / name)
    module, result = fit_toy(tmp_path)
    assert_same(state(tmp_path, module, result), undisturbed)
    (said,) = [r.message for r in caplog.records if "trained from the start" in r.message]
    assert name in said
    assert "\n" not in said


def test_a_checkpoint_of_an_earlier_version_goes_on(
    tmp_path: Path,
    killed: Path,
    undisturbed: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    last, best = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "checkpoints/best.safetensors"
    stored = read_checkpoint(last)
    del stored["sizewise_best"]
    torch.save(stored, last)
    record, tensors = read_best(best)
    save_file(tensors, best, metadata={"sizewise": json.dumps(record)})
    module, result = fit_toy(tmp_path)
    assert_same(state(tmp_path, module, result), undisturbed)
    assert "from the start" not in caplog.text


def other_loss(run_dir: Path) -> None:
    path = run_dir / "fit.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "best_val_loss": record["best_val_loss"] / 2}))


@pytest.mark.parametrize(
    "damage",
    [
        other_loss,
        lambda run_dir: (run_dir / "fit.json").write_text("{"),
        lambda run_dir: (run_dir / "fit.json").write_bytes(b"\xff"),
        lambda run_dir: flip(run_dir / "adapter" / "adapter_model.safetensors"),
        lambda run_dir: (run_dir / "adapter" / "adapter_model.safetensors").unlink(),
    ],
)
def test_a_damaged_adapter_or_record_of_a_fit_is_not_believed(
    tmp_path: Path,
    finished: Path,
    undisturbed: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    damage: Any,
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    answers = RunDir(tmp_path).predictions("tuned", "d")
    answers.parent.mkdir()
    answers.write_text("of the damaged adapter\n")
    damage(tmp_path)
    module, result = fit_toy(tmp_path)
    assert_same(state(tmp_path, module, result), undisturbed)
    (said,) = [r.message for r in caplog.records if "is damaged" in r.message]
    assert "\n" not in said
    assert not answers.exists()


def test_a_fit_of_an_earlier_version_is_not_repeated_unless_it_is_torn(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    _, result = fit_toy(tmp_path)
    record = json.loads((tmp_path / "fit.json").read_text())
    old = {key: value for key, value in record.items() if key not in ("adapter", "sha256")}
    (tmp_path / "fit.json").write_text(json.dumps(old))
    never = [KillAt("on_train_batch_start", 1)]
    assert (
        fit_toy(tmp_path, make_module(adapted(tiny_base(), seed=9)), callbacks=never)[1] == result
    )
    cut(tmp_path / "adapter" / "adapter_model.safetensors")
    assert_same(state(tmp_path, *fit_toy(tmp_path)), undisturbed)


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint({"step": 1}, path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sizewise.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint({"step": 2}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_bytes() == before


def test_fresh_start_forgets_an_older_best(tmp_path: Path) -> None:
    """KilledError before the first checkpoint, after the first validation."""
    with pytest.raises(KilledError):
        fit_toy(tmp_path, callbacks=[KillAt("on_train_batch_start", 1)])
    best = tmp_path / "checkpoints" / "best.safetensors"
    assert best.is_file()
    module, result = fit_toy(tmp_path, validate_at_start=False)
    assert result.best_step == 12
    assert module.val_loss == result.best_val_loss
