"""``osum info``: the shipped configs counted without weights, and its estimate of memory against torch's."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    LLM,
    build,
    command,
    one_error_line,
    random_batch,
    run_config,
    stage1_config,
    stage2_config,
)

from wenet_osum.bin import info
from wenet_osum.models.head import CHUNK
from wenet_osum.models.memory import Load, training, weight_bytes

CONF = Path(__file__).parent.parent / "conf"
TEXT, ROWS, FRAMES = 60, 4, 400


def count(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[str, dict[str, list[int]]]:
    """What the command prints, and the whole numbers of each line by the line's first words."""
    capsys.readouterr()
    assert command(info.main, *argv) == 0
    out = capsys.readouterr().out
    rows = (re.match(r" *(\S.*?)  +([\d,]+) +([\d,]+)(  |$)", line) for line in out.splitlines())
    return out, {m[1]: [int(m[2].replace(",", "")), int(m[3].replace(",", ""))] for m in rows if m}


def test_paper_model_has_the_releases_parameters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Part by part, the figures counted on the released model; its hub is out of reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    out, rows = count(capsys, CONF / "whisper_medium_qwen2_7b.yaml")
    assert rows == {
        "encoder": [305_680_384, 305_680_384],
        "adapter": [9_440_256 + 38_849_536 + 3_673_600 + 7_168] * 2,
        "down_sample": [9_440_256] * 2,
        "transformer": [38_849_536] * 2,
        "project": [3_673_600] * 2,
        "speech_bounds": [2 * 3584] * 2,
        "llm": [7_615_616_512, 0],
        "lora": [15_138_816] * 2,
        "total": [7_988_406_272, 372_789_760],
        "speech token rows 0 to 4,096 of 4,099": [14_690_816 - 7_168] * 2,
        "speaker_head (never called)": [14_687_745] * 2,
        "ln_speech (never called)": [2_048] * 2,
        "total as released": [8_017_779_713, 402_163_201],
    }
    assert "8.02 B, 402 M learn" in out and "7.99 B, 372.8 M learn" in out
    first = "model_conf.trainable=[adapter]"
    out, rows = count(capsys, CONF / "whisper_medium_qwen2_7b.yaml", "--override_config", first)
    assert rows["total"] == [7_988_406_272, 51_970_560] and rows["total as released"][1] == 81_344_001


@pytest.mark.parametrize(
    ("name", "part", "parameters"),
    [  # the published models' sizes; Whisper's less its encoder's fixed positions
        ("whisper_medium_stage1", "total", 763_857_920 - 1500 * 1024),
        ("whisper_small_qwen2_0.5b", "llm", 494_032_768),
        ("whisper_tiny_smollm2_135m", "llm", 134_515_008),
    ],
)
def test_shipped_configs_are_counted(
    name: str, part: str, parameters: int, capsys: pytest.CaptureFixture[str]
):
    out, rows = count(capsys, CONF / f"{name}.yaml")
    assert rows[part][0] == parameters and "as released" not in out


def test_vocabulary_of_the_tokenizer_and_static_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = run_config(tmp_path, stage2_config(ctc="none"))
    out, rows = count(capsys, config)
    units = len((tmp_path / "units.txt").read_text(encoding="utf-8").splitlines())
    with_more = stage2_config(ctc="none", decoder_conf={"llm_config": {**LLM, "vocab_size": units + 10}})
    _, more = count(capsys, run_config(tmp_path, with_more))
    assert more["llm"][0] - rows["llm"][0] == 2 * 10 * 32  # embedding and output rows
    assert f"a batch of {3 * 30} s" in out


def test_bad_input_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lost = stage2_config(decoder_conf={"llm": "./no/where"})
    for config, words in (
        (tmp_path / "none.yaml", "no such config"),
        (run_config(tmp_path, lost), "decoder_conf.llm: './no/where' cannot be loaded"),
    ):
        capsys.readouterr()
        assert command(info.main, config) == 1
        assert words in one_error_line(capsys.readouterr().err)


# --- memory ---

WHISPER = {"attention_heads": 2, "linear_units": 512, "num_blocks": 4, "dropout_rate": 0.1}


def wide(stage: int, checkpointing: bool) -> Any:
    encoder = {**WHISPER, "output_size": 128, "gradient_checkpointing": checkpointing}
    if stage == 1:
        return build(
            stage1_config(encoder_conf=encoder, ctc="none", model_conf={}, decoder_conf=WHISPER)
        ).train()
    llm = {**LLM, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4}
    adapter = {**WHISPER, "gradient_checkpointing": checkpointing}
    config = stage2_config(
        encoder_conf=encoder,
        ctc="none",
        model_conf={"adapter": "osum", "adapter_conf": adapter},
        decoder_conf={"llm_config": llm, "lora": {}, "gradient_checkpointing": checkpointing},
    )
    return build(config).train()


def saved_by_torch(model: Any, half: bool) -> int:
    """Bytes that one forward pass keeps for the backward pass, weights aside."""
    batch = random_batch([FRAMES] * ROWS)
    batch["target"], batch["prompt"] = torch.randint(4, 60, (ROWS, TEXT)), torch.randint(4, 60, (ROWS, 20))
    batch["target_weights"] = torch.ones(ROWS, TEXT + 1)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    cast = torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), cast:
        model(batch, torch.device("cpu"))
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", [1, 2])
def test_estimate_of_activations_is_what_torch_keeps(stage: int, half: bool):
    model = wide(stage, False)
    kinds = training(model, Load(FRAMES * ROWS, TEXT * ROWS, ROWS), half)
    estimate = kinds["activations"] + kinds["half-precision copies"]
    assert estimate == pytest.approx(saved_by_torch(model, half), rel=0.15)


def test_estimate_knows_checkpointing_freezing_and_bits():
    load = Load(FRAMES * ROWS, TEXT * ROWS, ROWS)
    plain, checkpointed = wide(2, False), wide(2, True)
    assert (
        training(checkpointed, load, False)["activations"] < 0.5 * training(plain, load, False)["activations"]
    )
    whole = training(plain, load, False)
    plain.set_trainable(["adapter"])
    first = training(plain, load, False)
    learns = sum(p.numel() for p in plain.parts()["adapter"])
    assert first["gradients and AdamW"] == 12 * learns < whole["gradients and AdamW"]
    assert first["activations"] < whole["activations"]  # nothing is kept for a frozen encoder
    layers = plain.decoder.causal_lm.base_model.layers
    matrices = sum(
        p.numel() for n, p in layers.named_parameters() if "proj" in n and "lora_" not in n and p.dim() > 1
    )
    saved = weight_bytes(plain) - weight_bytes(plain, "4bit")
    assert saved == pytest.approx(matrices * (4 - 0.52))


def test_estimate_of_logits_is_a_chunk_of_them():
    """However long the answers; a head that learns has its gradient beside them."""
    model, rows = wide(2, False), 60
    few, many = (training(model, Load(FRAMES, n, 1), False)["logits"] for n in (10, 10**9))
    assert (few, many) == (10 * rows * 4.0, CHUNK * 4.0)
    model.set_trainable(["llm"])
    assert training(model, Load(FRAMES, 10, 1), True)["logits"] == 10 * rows * 6.0 + rows * 128 * 4.0
