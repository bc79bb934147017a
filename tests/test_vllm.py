"""The plug-in for vLLM, as far as it can be tested without vLLM."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import vllm_stand_in
from helpers import write_wav
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_hf_export import model_folder, our_answers

from wenet_osum.bin import convert
from wenet_osum.dataset.audio import load_audio
from wenet_osum.errors import OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.vllm import register

# A finder that every import passes: it shows an import of vllm whether or not vllm is installed.
SCRIPT = """
import importlib, json, pkgutil, sys

class Watch:
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "vllm":
            self.asked.append(name)

sys.meta_path.insert(0, Watch())
import wenet_osum, wenet_osum.bin, wenet_osum.cli, wenet_osum.hf, wenet_osum.hf.export, wenet_osum.vllm
count = 0
for module in pkgutil.iter_modules(wenet_osum.bin.__path__):
    importlib.import_module("wenet_osum.bin." + module.name)
    count += 1
print(json.dumps({"bins": count, "asked": Watch.asked, "loaded": "vllm" in sys.modules}))
"""


def test_vllm_is_never_imported_by_default():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout.splitlines()[-1])
    assert out["bins"] > 10 and not out["loaded"] and out["asked"] == [], out


def test_vllm_missing_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(OsumError, match=r"^[^\n]*vllm is not installed; pip install wenet_osum\[vllm\]$"):
        register()


def test_vllm_broken_install_keeps_its_own_words(monkeypatch: pytest.MonkeyPatch):
    """An error inside vLLM is not taken for its absence."""
    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in.ModuleType("vllm"))
    with pytest.raises(ImportError, match="ModelRegistry"):
        register()


@pytest.fixture(scope="module")
def plugin():
    """``wenet_osum.vllm.model`` over the stand-in, found as vLLM finds it: entry point, register, name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in vllm_stand_in.modules().items():
            patch.setitem(sys.modules, name, module)
        for name in ("wenet_osum.vllm.model", "wenet_osum.vllm.processor"):
            patch.delitem(sys.modules, name, raising=False)
        pyproject = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
        entry = re.search(
            r'\[project\.entry-points\."vllm\.general_plugins"\]\nosum = "(.+):(.+)"\n', pyproject
        )
        assert entry, "no entry point"
        getattr(importlib.import_module(entry[1]), entry[2])()
        module, name = vllm_stand_in.ModelRegistry.models["OsumForConditionalGeneration"].split(":")
        yield getattr(importlib.import_module(module), name)
        for name in ("wenet_osum.vllm.model", "wenet_osum.vllm.processor"):
            del sys.modules[name]


@pytest.fixture(scope="module", params=["osum", "linear", "tied"])
def loaded(request: pytest.FixtureRequest, plugin: Any, hf_folder: Path, tmp_path_factory) -> Any:
    """A model folder, the plug-in's model and its processor from the folder's export."""
    from transformers import AutoConfig, AutoProcessor

    work = tmp_path_factory.mktemp(request.param)
    tied = {"tie_word_embeddings": True} if request.param == "tied" else {}
    adapter = "linear" if request.param == "linear" else "osum"
    folder = model_folder(work / "run", hf_folder, adapter, **tied)
    convert.main(["--to", "hf", str(folder), f"{work}/hf"])
    config = AutoConfig.from_pretrained(work / "hf")
    assert config.architectures == ["OsumForConditionalGeneration"]  # as registered
    model = plugin(vllm_config=SimpleNamespace(model_config=SimpleNamespace(hf_config=config)))
    tensors = load_file(work / "hf" / "model.safetensors")
    assert not [n for n in tensors if "lora_" in n]
    assert model.load_weights(iter(tensors.items())) == set(tensors)
    processor, info, dummy = plugin.parts
    reader = AutoProcessor.from_pretrained(work / "hf")
    about = info(SimpleNamespace(get_hf_processor=lambda typ: reader))
    return SimpleNamespace(
        folder=folder,
        model=model.eval(),
        processor=processor(about),
        dummy=dummy(about),
        info=about,
        reader=reader,
    )


def processed(loaded: Any, wave: Any) -> tuple[torch.Tensor, list[int]]:
    """The features of one utterance (1, T, F) and the tokens that replace its audio token."""
    hf = loaded.processor._call_hf_processor({"audio": [wave]}, {})
    assert set(loaded.processor._get_mm_fields_config(hf, {})) == set(hf)
    out = SimpleNamespace(get_data=lambda: hf)
    (update,) = loaded.processor._get_prompt_updates(None, {}, out)
    assert update.target == [loaded.reader.audio_token_id]
    return hf["input_features"], update.replacement(0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(samples=st.integers(800, 480_000))
def test_vllm_placeholders_are_the_rows_of_the_speech(loaded, samples: int):
    """From 0.05 to 30 s: as many tokens as encoder and adapter give rows, or vLLM refuses the prompt."""
    check_count(loaded, samples)


@pytest.mark.parametrize("samples", [401, 559, 560, 800, 1279, 1280, 1281, 16000, 479_999, 480_000])
def test_vllm_placeholders_at_the_edges(loaded, samples: int):
    check_count(loaded, samples)


def check_count(loaded: Any, samples: int) -> None:
    features, tokens = processed(loaded, np.zeros(samples, dtype=np.float32))
    with torch.no_grad():
        (rows,) = loaded.model.embed_multimodal(input_features=features)
    assert len(rows) == len(tokens) and set(tokens) == {loaded.reader.audio_token_id}


def test_vllm_dummy_is_the_longest(loaded):
    (wave,) = loaded.dummy.get_dummy_mm_data(512, {"audio": 1}, {})["audio"]
    assert len(wave) == 480_000 and loaded.dummy.get_dummy_text({"audio": 1}) == "<|audio|>"
    assert len(processed(loaded, wave)[1]) >= 377
    assert loaded.dummy.get_dummy_mm_data(512, {}, {}) == {"audio": []}
    parser = loaded.info.get_data_parser()
    assert (parser.target_sr, parser.target_channels) == (16000, 1)


def test_vllm_batch_of_speech_is_its_singles(loaded):
    """vLLM hands over utterances of several requests at once, stacked where they are equally long."""
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) for n in (4000, 9000, 1500)]
    features = [processed(loaded, w)[0][0] for w in waves]
    with torch.no_grad():
        together = loaded.model.embed_multimodal(input_features=features)
        alone = [loaded.model.embed_multimodal(input_features=f[None])[0] for f in features]
    for a, b in zip(together, alone):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert loaded.model.embed_multimodal() == []


def test_vllm_layout_gives_our_tokens(loaded, tmp_path: Path):
    """Greedy over the plug-in's embed, forward and logits, token for token our own."""
    wavs = [write_wav(tmp_path / f"{i}.wav", s, seed=i) for i, s in enumerate((0.83, 0.05, 1.29))]
    text = load_tasks()["asr"].prompt("en", 0) + loaded.reader.audio_token
    answers = []
    for wav in wavs:
        features, tokens = processed(loaded, load_audio(str(wav)))
        ids = loaded.reader.tokenizer.encode(text, add_special_tokens=False)[:-1] + tokens
        answer: list[int] = []
        with torch.no_grad():
            rows = loaded.model.embed_multimodal(input_features=features)
            while len(answer) < 12 and 256 not in answer:
                whole = torch.tensor(ids + answer)
                mask = whole == loaded.reader.audio_token_id
                embeds = loaded.model.embed_input_ids(whole, rows, is_multimodal=mask)
                hidden = loaded.model(None, torch.arange(len(whole)), inputs_embeds=embeds)
                answer.append(int(loaded.model.compute_logits(hidden)[-1].argmax()))
        answers.append([t for t in answer if t != 256])
    assert answers == our_answers(loaded.folder, wavs)


def test_vllm_audio_token_without_speech_is_embedded(loaded):
    """The token lies behind the LLM's last row here; a request must not be able to stop the engine with it."""
    table = loaded.model.language_model.get_input_embeddings()
    assert loaded.reader.audio_token_id >= len(table.weight)
    out = loaded.model.embed_input_ids(torch.tensor([5, loaded.reader.audio_token_id]))
    assert torch.equal(out[0], table.weight[5]) and out.shape == (2, table.weight.size(1))


def test_vllm_bad_input(loaded, plugin):
    with pytest.raises(ValueError, match="takes none"):
        loaded.processor._call_hf_processor({"audio": [np.zeros(800)]}, {"truncation": True})
    with pytest.raises(ValueError, match="has 100 samples"):
        processed(loaded, np.zeros(100))
    with pytest.raises(ValueError, match="hears audio only"):
        plugin.get_placeholder_str("image", 1)
    assert plugin.get_placeholder_str("audio", 1) == loaded.reader.audio_token
    assert loaded.info.get_supported_mm_limits() == {"audio": 1}


AUDIO = {"type": "audio"}


@pytest.mark.parametrize(
    ("messages", "result"),
    [
        ([[AUDIO, {"type": "text", "text": "what?"}]], "what?<|audio|>"),
        ([[{"type": "text", "text": "a "}, AUDIO, {"type": "text", "text": "b"}]], "a b<|audio|>"),
        ([[{"type": "text", "text": "what?"}]], None),
        ([[AUDIO, AUDIO]], None),
        (["what?"], None),
        ([[AUDIO], [AUDIO]], None),
    ],
)
def test_chat_template_of_the_export(loaded, messages, result: str | None):
    """Engines fill it in; the question comes before the speech, and what OSUM does not answer is refused."""
    from jinja2.exceptions import TemplateError

    chat = [{"role": "user", "content": content} for content in messages]
    template = loaded.reader.chat_template
    if result is None:
        with pytest.raises(TemplateError, match="one message|one audio"):
            loaded.reader.tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False)
    else:
        text = loaded.reader.tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False)
        assert text == result
