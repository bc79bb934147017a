"""examples/osum/run_mini.sh whole, by the commands of docs/training.md, with a Whisper and a language model of a few thousand random weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import build, stage2_config
from test_mini_corpus import make_wordnet
from test_prepare_asterisk import make_package
from test_readme import shell
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[1]
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
WHISPER = {"attention_heads": 2, "linear_units": 48, "num_blocks": 2, "dropout_rate": 0.0}
ENCODER = {**WHISPER, "output_size": 32, "positional_dropout_rate": 0.0}
ADAPTER = {"attention_heads": 2, "linear_units": 48, "num_blocks": 1}


def make_tokenizer(folder: Path, *special: str) -> int:
    """A byte-level tokenizer without merges; its size."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", *special)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def make_whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    size = make_tokenizer(folder, "<|startoftranscript|>", "<|notimestamps|>")
    ids = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256, "decoder_start_token_id": 257}
    sides = {
        f"{side}_{name}": n
        for side in ("encoder", "decoder")
        for name, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 48))
    }
    config = WhisperConfig(vocab_size=size, d_model=32, num_mel_bins=80, **sides, **ids)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def make_llm(folder: Path) -> None:
    size = make_tokenizer(folder)
    shape = {"model_type": "llama", "vocab_size": size, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = build(stage2_config(decoder_conf={"llm_config": {**shape, **heads}}), vocab_size=size)
    model.decoder.causal_lm.save_pretrained(folder)


def make_config(name: str, path: Path, **sections: Any) -> Path:
    """A config of conf/ in the size of these models."""
    config = yaml.safe_load((ROOT / "conf" / name).read_text(encoding="utf-8"))
    config.update(encoder_conf=ENCODER, save_interval=None, state_interval=None, log_interval=1)
    config["dataset_conf"].update(batch_conf={"batch_type": "static", "batch_size": 8}, time_step=0.1)
    for key, value in sections.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return path


def test_words_and_stage_2_are_one_model():
    """The one is taken up by the other."""
    words, stage2 = (
        yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("whisper_tiny_words", "whisper_tiny_smollm2_135m")
    )
    for key in ("model", "encoder", "encoder_conf", "decoder", "decoder_conf", "ctc", "tokenizer"):
        assert words[key] == stage2[key]
    assert words["model_conf"]["adapter_conf"] == stage2["model_conf"]["adapter_conf"]


@pytest.mark.slow
@pytest.mark.integration
def test_run_mini(tmp_path: Path):
    make_whisper(tmp_path / "whisper")
    make_llm(tmp_path / "llm")
    make_wordnet(tmp_path / "root")
    texts = {f"s-{i}": f"please hold the line number {w}" for i, w in enumerate("abcdefghijklmnopqrstuvwxyz")}
    for lang, voice in (("en", "en_US_f_Allison"), ("it", "it_IT_m_Carlo")):
        make_package(tmp_path / "root", lang, voice, texts, list(texts), gz=True)
    stage1 = make_config(
        "whisper_tiny_stage1.yaml",
        tmp_path / "stage1.yaml",
        decoder_conf=WHISPER,
        tokenizer_conf={"special_tokens": {"sos": 257, "eos": 256}},
        vocab_size=259,
    )
    model: dict[str, Any] = {
        "model_conf": {"adapter_conf": ADAPTER, "max_new_tokens": 12},
        "decoder_conf": {"llm_config": None},
    }
    words = make_config("whisper_tiny_words.yaml", tmp_path / "words.yaml", **model, max_epoch=2)
    stage2 = make_config(
        "whisper_tiny_smollm2_135m.yaml",
        tmp_path / "stage2.yaml",
        **model,
        max_epoch=3,
        phases=[
            {"steps": 2, "trainable": ["adapter", "ctc"]},
            {"trainable": ["adapter", "encoder", "lora", "ctc"]},
        ],
        cv_decode_conf={"utterances": 2},
    )
    recipe = tmp_path / "examples/osum"
    recipe.mkdir(parents=True)
    for name in ("run_mini.sh", "path.sh", "parse_options.sh", "stoppable.sh"):
        (recipe / name).symlink_to(ROOT / "examples/osum" / name)
    for name in ("conf", "local"):
        (recipe / name).symlink_to(ROOT / name)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    blocks = re.findall(
        r"^```bash\n(.*?)^```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), re.M | re.S
    )
    train, learning = blocks
    options = (
        f" --whisper {tmp_path}/whisper --llm {tmp_path}/llm --root {tmp_path}/root "
        f"--asterisk_root {tmp_path}/root --languages en,it --stage1_config {stage1} --words_config {words} "
        f"--train_config {stage2} --num_threads 1 "
        "--corpus_options '--engines espeak --train 30 --dev 4 --test 20' --mini_weight1 1 --people_weight1 1 --people_weight 1"
    )
    shell(train.rstrip() + options, tmp_path)
    folder = recipe / "exp/mini"
    for name, tasks in (
        ("people", {"asr", "sgc"}),
        ("mini", {"asr", "sgc", "srwt"}),
        ("others", {"sgc_only"}),
    ):
        scores = json.loads((folder / f"scores_{name}.json").read_text(encoding="utf-8"))
        assert set(scores) >= tasks and all(scores[t]["counts"]["missing"] == 0 for t in tasks)
    for name in ("people", "mini"):
        whisper = json.loads((folder / f"whisper_{name}.json").read_text(encoding="utf-8"))["asr"]
        ours = json.loads((folder / f"scores_{name}.json").read_text(encoding="utf-8"))["asr"]
        assert (
            whisper["counts"]["utterances"] == ours["counts"]["utterances"]
            and whisper["normalizer"] == ours["normalizer"]
        )
    assert "swapped/loss_llm" in (folder / "log.jsonl").read_text(encoding="utf-8")
    table = shell(learning, recipe).splitlines()
    assert table[0].split()[:5] == ["step", "train", "dev", "swapped", "heard"] and "asr/wer" in table[0]
    assert len(table) == 4  # three epochs
