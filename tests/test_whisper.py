"""Whisper's weights in every published form compute what Hugging Face's Whisper computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import build, stage1_config, stage2_config
from safetensors.torch import load_file, save_file
from test_features import reference
from torch import Tensor

from wenet_osum.checkpoint.weights import init_modules, save_checkpoint
from wenet_osum.checkpoint.whisper import form_of
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.errors import OsumError

VOCAB = 60
FORMS = ["hugging_face", "hugging_face_sharded", "openai", "wenet", "pytorch_bin"]
SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 4}
# Parts of a Hugging Face key -> openai-whisper's (transformers' and openai's own sources), encoder and decoder.
OPENAI = {
    **{"layers": "blocks", "q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"},
    **{"self_attn": "attn", "self_attn_layer_norm": "attn_ln", "encoder_attn": "cross_attn"},
    **{
        "encoder_attn_layer_norm": "cross_attn_ln",
        "final_layer_norm": "mlp_ln",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
    },
    **{"embed_tokens": "token_embedding"},
}
# openai-whisper's -> WeNet's; two norms are named by side.
WENET = {
    **{
        "conv1": "embed.conv.0",
        "conv2": "embed.conv.2",
        "token_embedding": "embed.0",
        "ln_post": "after_norm",
    },
    **{"query": "linear_q", "key": "linear_k", "value": "linear_v", "out": "linear_out", "attn": "self_attn"},
    **{"cross_attn": "src_attn", "attn_ln": "norm1", "cross_attn_ln": "norm2", "ln": "after_norm"},
}


def whisper(bins: int = 80, **changes: Any) -> Any:
    """A small Whisper of Hugging Face's whose weights are all random, norms and biases too."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    shape = {"vocab_size": VOCAB, "num_mel_bins": bins, "max_target_positions": 448}
    config = WhisperConfig(**{**shape, **SIZES, **HEADS, **special, **changes})
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.dim() > 1 else 0.2) + (p if p.dim() == 1 else 0))
    return model


def to_openai(key: str) -> str:
    parts = [OPENAI.get(part, part) for part in key.removeprefix("model.").split(".")]
    name = ".".join(parts).replace("embed_positions.weight", "positional_embedding")
    return name.replace("encoder.layer_norm", "encoder.ln_post").replace("decoder.layer_norm", "decoder.ln")


def to_wenet(key: str) -> str:
    side = key.split(".")[0]
    name = key.replace(".blocks.", f".{side}s.").replace("mlp.0", "feed_forward.w_1")
    name = name.replace("mlp.2", "feed_forward.w_2").replace(
        "mlp_ln", "norm2" if side == "encoder" else "norm3"
    )
    name = name.replace("encoder.positional_embedding", "encoder.embed.pos_enc.pe")
    name = name.replace("decoder.positional_embedding", "decoder.embed.1.pe")
    return ".".join(WENET.get(part, part) if part != "embed" else part for part in name.split("."))


def write(model: Any, form: str, folder: Path) -> Path:
    """The model's file or folder in one of the published forms."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: t.clone() for k, t in model.state_dict().items()}
    openai = {to_openai(k): t for k, t in state.items() if k != "proj_out.weight"}
    if form.startswith("hugging_face"):
        model.save_pretrained(folder, **({"max_shard_size": "30KB"} if form.endswith("sharded") else {}))
        assert (folder / "model.safetensors.index.json").exists() == form.endswith("sharded")
        return folder
    path = folder / "model.pt"
    if form == "openai":
        c = model.config
        dims = {"n_audio_head": c.encoder_attention_heads, "n_text_head": c.decoder_attention_heads}
        torch.save({"dims": {**dims, "n_mels": c.num_mel_bins}, "model_state_dict": openai}, path)
    elif form == "wenet":
        wenet = {to_wenet(k): t for k, t in openai.items()}
        wenet = {k: t[None] if k.endswith(".pe") else t for k, t in wenet.items()}
        assert "encoder.encoders.1.feed_forward.w_2.bias" in wenet and "decoder.embed.1.pe" in wenet
        torch.save(wenet, path)
    else:
        torch.save(state, path)
    return path


def ours(bins: int = 80, seed: int = 1, **encoder: Any) -> Any:
    """Stage 1 of the same sizes, with other random weights."""
    config = stage1_config(
        decoder_conf={"attention_heads": 4, "linear_units": 40, "num_blocks": 3, "dropout_rate": 0.0},
        input_dim=bins,
        ctc="none",
        model_conf={"max_new_tokens": 12},
    )
    config["encoder_conf"].update(encoder)
    return build(config, VOCAB, seed=seed)


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def truths(model: Any, feats: Tensor) -> Tensor:
    """Hugging Face's encoder layers over feats (1, T, F) at true length; its own forward insists on 30 s."""
    e = model.model.encoder
    x = torch.nn.functional.gelu(e.conv1(feats.transpose(1, 2)))
    x = torch.nn.functional.gelu(e.conv2(x)).transpose(1, 2)
    x = x + e.embed_positions.weight[: x.size(1)]
    for layer in e.layers:
        out = layer(x, None)
        x = out[0] if isinstance(out, tuple) else out
    return e.layer_norm(x)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_whisper_parity_of_every_form(tmp_path: Path, form: str):
    theirs, model = whisper(), ours()
    count = init_modules(model, write(theirs, form, tmp_path), ["encoder.", "decoder."])
    assert count == len(model.state_dict())
    feats = torch.randn(2, 3000, 80)
    hs, mask = model.encoder(feats, torch.tensor([3000, 3000]))
    expected = theirs.model.encoder(feats.transpose(1, 2)).last_hidden_state
    assert difference(hs, expected) <= 1e-4 and float(expected.std()) > 0.1
    ids = torch.randint(0, VOCAB, (2, 9))
    logits = theirs(input_features=feats.transpose(1, 2), decoder_input_ids=ids).logits
    hidden, past = model.decoder(ids[:, :6], model.decoder.memory(hs), mask)
    rest, _ = model.decoder(ids[:, 6:7], model.decoder.memory(hs), mask, past)
    got = model.decoder.logits(torch.cat([hidden, rest], dim=1))
    assert difference(got, logits[:, :7]) <= 1e-4 and float(logits.std()) > 0.1


@pytest.mark.parametrize("bins", [80, 128])
@torch.no_grad()
def test_whisper_parity_at_true_length(tmp_path: Path, bins: int):
    theirs, model = whisper(bins), ours(bins)
    init_modules(model, write(theirs, "hugging_face", tmp_path), ["encoder."])
    feats = torch.randn(1, 3000, bins)
    whole, _ = model.encoder(feats, torch.tensor([3000]))
    assert difference(whole, theirs.model.encoder(feats.transpose(1, 2)).last_hidden_state) <= 1e-4
    lengths = [2999, 777, 100, 1]
    together, mask = model.encoder(feats.expand(4, -1, -1), torch.tensor(lengths))
    for row, frames in enumerate(lengths):
        expected = truths(theirs, feats[:, :frames])
        alone, _ = model.encoder(feats[:, :frames], torch.tensor([frames]))
        assert difference(alone, expected) <= 1e-4
        assert difference(together[row : row + 1, : int(mask[row].sum())], expected) <= 1e-4


@pytest.mark.parametrize("bins", [80, 128])
def test_whisper_parity_log_mel(bins: int):
    """On 30 s there is nothing to pad, so that ours, openai-whisper's formula and transformers' must agree."""
    from transformers import WhisperFeatureExtractor

    rng = np.random.default_rng(bins)
    wave = 0.2 * rng.standard_normal(480000) + 0.3 * np.sin(np.arange(480000) * 0.4)
    wave[160000:320000] *= 1e-5  # so that the floor is reached
    wave = wave.astype(np.float32)
    feats = log_mel_spectrogram(wave, num_mel_bins=bins).numpy()
    theirs = WhisperFeatureExtractor(feature_size=bins)(wave, sampling_rate=16000)["input_features"][0].T
    assert feats.shape == theirs.shape == (3000, bins)
    assert np.abs(feats - theirs).max() <= 1e-4
    assert np.abs(feats - reference(wave, bins)).max() <= 1e-4


@torch.no_grad()
def test_whisper_parity_position_table_is_the_files(tmp_path: Path):
    """A trained or half-precision table is taken as it is, not computed again."""
    theirs, model = whisper().half(), ours()
    init_modules(model, write(theirs, "hugging_face", tmp_path), ["encoder."])
    table = theirs.model.encoder.embed_positions.weight.float()
    assert torch.equal(model.encoder.embed.pos_enc.pe[0], table)
    assert model.encoder.embed.pos_enc.pe.dtype == torch.float32


def test_whisper_parity_stage_2_takes_the_encoder_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    theirs, model = whisper(), build(stage2_config(), seed=1)
    adapter = model.adapter.project.weight.clone()
    with caplog.at_level("INFO"):
        init_modules(model, write(theirs, "hugging_face", tmp_path), ["encoder."])
    assert torch.equal(
        model.encoder.encoders[1].norm2.bias, theirs.model.encoder.layers[1].final_layer_norm.bias
    )
    assert torch.equal(model.adapter.project.weight, adapter)
    decoder = sum(k.startswith("model.decoder.") for k in theirs.state_dict())
    assert f"left: {decoder} under decoder." in caplog.text


@pytest.mark.parametrize(
    ("changes", "encoder", "words"),
    [
        ({"encoder_attention_heads": 4}, {}, r"encoder_conf\.attention_heads: is 2, .* has 4"),
        ({"encoder_layers": 1}, {}, r"encoder\.encoders\.1\..* is missing; make encoder_conf the same"),
        ({"encoder_layers": 3}, {}, r"encoder\.encoders\.2\..*, the model has nothing"),
        ({"max_source_positions": 750}, {}, r"pe is \(1, 750, 32\).*max_positions"),
        ({"num_mel_bins": 128}, {}, r"conv\.0\.weight is \(32, 128, 3\).*mel bins"),
        ({"vocab_size": 61}, {}, r"decoder\.embed\.weight is \(61, 32\).*own tokenizer"),
        ({}, {"conv_strides": [2, 2]}, r"conv_strides: is \[2, 2\], Whisper has \[1, 2\]"),
    ],
)
def test_bad_input_whisper_of_another_shape(tmp_path: Path, changes: Any, encoder: Any, words: str):
    model = ours(**encoder)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for form in ("hugging_face", "openai"):
        path = write(whisper(**changes), form, tmp_path / form)
        with pytest.raises(OsumError, match=words) as e:
            init_modules(model, path, ["encoder.", "decoder."])
        assert "\n" not in str(e.value)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_bad_input_whisper_keys_and_kinds(tmp_path: Path):
    folder = write(whisper(), "hugging_face", tmp_path / "hf")
    state = load_file(folder / "model.safetensors")

    def refused(words: str, change: dict[str, Tensor], drop: str = "") -> None:
        save_file({k: t for k, t in {**state, **change}.items() if k != drop}, folder / "model.safetensors")
        with pytest.raises(OsumError, match=words):
            init_modules(ours(), folder, ["encoder.", "decoder."])

    refused("norm1.bias is missing", {}, "model.encoder.layers.0.self_attn_layer_norm.bias")
    refused(r"encoder\.strange is \(1,\), the model has nothing", {"model.encoder.strange": torch.zeros(1)})
    refused("proj_out.weight is not the embedding", {"proj_out.weight": torch.zeros(VOCAB, 32)})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_audio"}))
    refused("is a 'qwen2_audio', not a Whisper", {})
    trained = torch.load(write(whisper(), "wenet", tmp_path / "wenet"), weights_only=True)
    trained["decoder.output_layer.weight"] = trained["decoder.embed.0.weight"]
    trained["decoder.output_layer.bias"] = torch.zeros(VOCAB)
    torch.save(trained, tmp_path / "wenet" / "model.pt")
    init_modules(ours(), tmp_path / "wenet" / "model.pt", ["decoder."])
    trained["decoder.output_layer.bias"][3] = 0.1
    torch.save(trained, tmp_path / "wenet" / "model.pt")
    with pytest.raises(OsumError, match="bias is not zero"):
        init_modules(ours(), tmp_path / "wenet" / "model.pt", ["decoder."])


@pytest.mark.parametrize("form", ["wenet", "wenet_osum"])
def test_bad_input_heads_of_the_train_yaml_beside(tmp_path: Path, form: str):
    """A number of heads fits every shape; WeNet's files tell it in the config that lies beside them."""
    path = tmp_path / "model.pt"
    if form == "wenet":
        write(whisper(), form, tmp_path)
    else:
        save_checkpoint(ours(), path, {})
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"encoder_conf": {"attention_heads": 4}}))
    with pytest.raises(OsumError, match=r"encoder_conf\.attention_heads: is 2, .* has 4"):
        init_modules(ours(), path, ["encoder."])
    init_modules(ours(), path, ["decoder."])


def test_bad_input_hub_id_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = r"--enc_init: 'someone/whisper-nano' is no local folder.*hf download someone/whisper-nano"
    with pytest.raises(OsumError, match=words) as e:
        init_modules(ours(), "someone/whisper-nano", ["encoder."])
    assert "\n" not in str(e.value)


# --- files of unknown hands ---


class Bomb:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch exploded",)


@pytest.mark.parametrize("content", [Bomb(), {"dims": {}, "model_state_dict": {"a": Bomb()}}, [Path("x")]])
def test_untrusted_file_pickle_with_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(
        OsumError, match=r"a\.pt: holds Python objects besides tensors \(\S+\), which may run code"
    ) as e:
        init_modules(ours(), tmp_path / "a.pt", ["encoder."])
    assert "\n" not in str(e.value) and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.999])
def test_untrusted_file_truncated_safetensors_is_refused(tmp_path: Path, keep: float):
    path = write(whisper(), "hugging_face", tmp_path) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    for name in (tmp_path, path):
        with pytest.raises(OsumError, match=r"model\.safetensors: not a whole safetensors file") as e:
            init_modules(ours(), name, ["encoder."])
        assert "\n" not in str(e.value)


def test_untrusted_file_misshapen_safetensors_is_refused(tmp_path: Path):
    path = write(whisper(), "hugging_face", tmp_path) / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = "model.encoder.conv1.bias"

    def store(**changes: Any) -> None:
        text = json.dumps({**header, name: {**header[name], **changes}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])

    start, end = header[name]["data_offsets"]
    for changes in ({"shape": [33]}, {"data_offsets": [start, end + 4]}, {"data_offsets": [0, 1 << 40]}):
        store(**changes)
        with pytest.raises(OsumError, match=r"model\.safetensors: not a whole safetensors file"):
            init_modules(ours(), tmp_path, ["encoder."])
    store(shape=[4, 8])  # whole, but not a Whisper's
    with pytest.raises(OsumError, match=r"conv\.0\.bias is \(4, 8\), the model has \(32,\)"):
        init_modules(ours(), tmp_path, ["encoder."])


def test_untrusted_file_shards_that_do_not_fit_their_index(tmp_path: Path):
    folder = write(whisper(), "hugging_face_sharded", tmp_path)
    index = folder / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    names = sorted(set(whole["weight_map"].values()))

    def refused(weight_map: Any, words: str) -> None:
        index.write_text(json.dumps({**whole, "weight_map": weight_map}))
        with pytest.raises(OsumError, match=words):
            init_modules(ours(), folder, ["encoder."])

    first = next(iter(whole["weight_map"]))
    moved = {**whole["weight_map"], first: next(n for n in names if n != whole["weight_map"][first])}
    refused(moved, "not in both")
    refused(
        {**whole["weight_map"], first: "../outside.safetensors"},
        "no weight_map from names to files beside it",
    )
    refused(None, "no weight_map")
    index.write_text("{")
    with pytest.raises(OsumError, match="not JSON"):
        init_modules(ours(), folder, ["encoder."])
    index.write_text(json.dumps(whole))
    (folder / names[0]).unlink()
    with pytest.raises(OsumError, match=f"{names[0]}: no such file"):
        init_modules(ours(), folder, ["encoder."])


def test_another_model_of_wenets_is_no_whisper():
    """A transformer ASR model has Whisper's key names; its convolutions run over two dimensions."""
    conv = {
        "encoder.embed.conv.0.weight": torch.zeros(4, 1, 3, 3),
        "decoder.embed.0.weight": torch.zeros(5, 4),
    }
    assert form_of(conv) == "wenet_osum"
    assert form_of({**conv, "encoder.embed.conv.0.weight": torch.zeros(4, 80, 3)}) == "WeNet Whisper"
