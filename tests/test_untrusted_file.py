"""Files of strangers: what is cut off, misshapen or holds code is refused in one line, and nothing is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import command, one_error_line, write_corpus
from osum_reference import EOS, LLM, release_state
from safetensors.torch import load_file, save_file

from wenet_osum.bin import convert, recognize

SHAPES = {
    "encoder.safetensors": "encoder.encoders.0.self_attn.linear_q.weight",
    "adapter.safetensors": "adapter.project.weight",
    "lora/adapter_model.safetensors": "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
    "llm/model.safetensors": "model.layers.0.mlp.up_proj.weight",
}


class Code:
    """A pickle that runs a command when it is opened."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


def from_osum(folder: Path) -> list[str]:
    (folder / "llm.json").write_text(json.dumps(LLM), encoding="utf-8")
    sizes = ["--llm-config", f"{folder}/llm.json", "--eos-id", str(EOS), "--encoder-heads", "2"]
    return ["--from", "osum", f"{folder}/infer.pt", f"{folder}/model", *sizes, "--lora-alpha", "12"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, hf_folder: Path) -> Path:
    """A model folder, with a tokenizer, so that every command reads it."""
    folder = tmp_path_factory.mktemp("untrusted")
    torch.save(release_state(), folder / "infer.pt")
    convert.main(from_osum(folder))
    shutil.copytree(hf_folder, folder / "model" / "tokenizer")
    return folder / "model"


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(converted, tmp_path / "model"))


def refused(capsys, folder: Path, *outputs: str) -> str:
    """The one line of ``osum convert --to osum``, the same for the other targets."""
    lines = set()
    for i, argv in enumerate((["--to", "osum"], ["--to", "hf"], ["--merge-lora"])):
        assert command(convert.main, *argv, folder, folder.parent / f"out{i}") == 1
        lines.add(one_error_line(capsys.readouterr().err))
        assert not (folder.parent / f"out{i}").exists()
    assert len(lines) == 1, lines
    return lines.pop()


@pytest.mark.parametrize("file", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_untrusted_file_truncated(folder: Path, capsys, file: str, share: float):
    path = folder / file
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert f"{path}: not a whole safetensors file" in refused(capsys, folder)


@pytest.mark.parametrize("file", SHAPES)
def test_untrusted_file_misshapen(folder: Path, capsys, file: str):
    path, name = folder / file, SHAPES[file]
    tensors = {n: t.clone() for n, t in load_file(path).items()}
    save_file({**tensors, name: tensors[name][:-1].clone()}, path)
    line = refused(capsys, folder)
    assert f"is {tuple(tensors[name][:-1].shape)}, the model has {tuple(tensors[name].shape)}" in line
    save_file({n: t for n, t in tensors.items() if n != name}, path)
    assert "missing" in refused(capsys, folder)
    save_file({**tensors, "talker.weight": torch.ones(3)}, path)
    assert "talker.weight" in refused(capsys, folder)


@pytest.mark.parametrize("file", ["encoder.safetensors", "llm/model.safetensors"])
def test_untrusted_file_in_decoding(folder: Path, tmp_path: Path, capsys, file: str):
    path, name = folder / file, SHAPES[file]
    args = [
        "--checkpoint",
        folder,
        "--test_data",
        write_corpus(tmp_path / "data", 1),
        "--modes",
        "llm_greedy",
    ]
    args += ["--result_dir", tmp_path / "result", "--override_config", "vocab_size=null"]
    tensors = {n: t.clone() for n, t in load_file(path).items()}
    save_file({**tensors, name: tensors[name][:-1].clone()}, path)
    assert command(recognize.main, *args) == 1
    one_error_line(capsys.readouterr().err)
    path.write_bytes(path.read_bytes()[:200])
    assert command(recognize.main, *args) == 1
    one_error_line(capsys.readouterr().err)


def test_untrusted_file_header(folder: Path, capsys):
    """A header that claims more than the file has, and one that is no JSON."""
    path = folder / "adapter.safetensors"
    for header in ((2**62).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"\xff\xfe{{"):
        path.write_bytes(header)
        assert "not a whole safetensors file" in refused(capsys, folder)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("llm/config.json", "{", "not JSON"),
        ("llm/config.json", '{"model_type": "nothing"}', "no config of a causal LM"),
        ("llm/model.safetensors.index.json", '{"weight_map": {"a": "../../infer.pt"}}', "files beside it"),
        ("llm/model.safetensors.index.json", '{"weight_map": {"a": "gone.safetensors"}}', "no such file"),
        ("lora/adapter_config.json", '{"r": 64, "lora_alpha": 12}', "r is 64"),
        ("config.yaml", "model: osum\nextra: 1\n", "unknown key"),
    ],
)
def test_untrusted_file_of_settings(folder: Path, capsys, file: str, content: str, line: str):
    (folder / file).write_text(content, encoding="utf-8")
    assert line in refused(capsys, folder)


def pickles(target: Path) -> dict[str, Any]:
    """Ways to hide code in what claims to be a checkpoint."""

    def torch_file(path: Path) -> None:
        torch.save({"encoder.after_norm.bias": Code(target)}, path)

    def old_torch_file(path: Path) -> None:
        torch.save({"a": Code(target)}, path, _use_new_zipfile_serialization=False)

    def plain(path: Path) -> None:
        path.write_bytes(pickle.dumps(Code(target)))

    def hand_made(path: Path, content: bytes = pickle.dumps(Code(target))) -> None:
        torch.save({"a": torch.ones(1)}, path)
        with zipfile.ZipFile(path) as given:
            members = {n: given.read(n) for n in given.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
            for name, given_content in members.items():
                out.writestr(name, content if name.endswith("data.pkl") else given_content)

    def damaged(path: Path) -> None:  # asks for a memo entry that was never stored
        hand_made(path, b"\x80\x02h\x05.")

    return {
        "damaged": damaged,
        "torch": torch_file,
        "old torch": old_torch_file,
        "plain": plain,
        "hand made": hand_made,
    }


@pytest.mark.parametrize("kind", ["torch", "old torch", "plain", "hand made", "damaged"])
def test_untrusted_file_with_code(tmp_path: Path, capsys, kind: str):
    target = tmp_path / "ran"
    pickles(target)[kind](tmp_path / "infer.pt")
    assert command(convert.main, *from_osum(tmp_path)) == 1
    line = one_error_line(capsys.readouterr().err)
    assert str(tmp_path / "infer.pt") in line and "weights_only" not in line
    if kind in ("torch", "hand made"):
        assert "may run code" in line
    assert not target.exists() and not (tmp_path / "model").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_untrusted_file_truncated_checkpoint(tmp_path: Path, capsys, share: float):
    path = tmp_path / "infer.pt"
    torch.save(release_state(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert command(convert.main, *from_osum(tmp_path)) == 1
    assert "not a whole checkpoint" in one_error_line(capsys.readouterr().err)
