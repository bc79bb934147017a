"""An export in vLLM itself, offline and with chat messages: our own greedy tokens.

Runs where vLLM is installed, with this package beside it (its entry point is what vLLM finds).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import write_wav
from test_hf_export import model_folder, our_answers

from wenet_osum.bin import convert

pytestmark = [pytest.mark.slow, pytest.mark.integration]

# vLLM starts processes of its own, which import this file anew.
SCRIPT = """
import base64, json, sys
import soundfile

def main(folder, question, wavs):
    from vllm import LLM, SamplingParams

    llm = LLM(folder, dtype="float32", max_model_len=512, max_num_seqs=4, enforce_eager=True)
    greedy = SamplingParams(temperature=0, max_tokens=12)
    prompts, chats = [], []
    for wav in wavs:
        wave = soundfile.read(wav, dtype="float32")  # samples and rate
        prompts.append({"prompt": question + "<|audio|>", "multi_modal_data": {"audio": wave}})
        data = "data:audio/wav;base64," + base64.b64encode(open(wav, "rb").read()).decode()
        audio = {"type": "audio_url", "audio_url": {"url": data}}
        chats.append([{"role": "user", "content": [audio, {"type": "text", "text": question}]}])
    answers = {"generate": llm.generate(prompts, greedy), "chat": llm.chat(chats, greedy)}
    print()
    print(json.dumps({k: [list(r.outputs[0].token_ids) for r in rows] for k, rows in answers.items()}))

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("adapter", "llm"),
    [("osum", {"model_type": "qwen2"}), ("linear", {"model_type": "llama", "tie_word_embeddings": True})],
)
def test_vllm_engine_gives_our_tokens(adapter: str, llm: dict, tmp_path: Path, hf_folder: Path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from wenet_osum.tasks import load_tasks

    size = {
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_attention_heads": 2,
    }  # heads that it has kernels for
    folder = model_folder(tmp_path / "run", hf_folder, adapter, **size, **llm)
    convert.main(["--to", "hf", str(folder), f"{tmp_path}/hf"])
    wavs = [write_wav(tmp_path / f"{i}.wav", s, seed=i) for i, s in enumerate((0.83, 0.05, 1.29, 3.0))]
    (tmp_path / "ask.py").write_text(SCRIPT, encoding="utf-8")
    question = load_tasks()["asr"].prompt("en", 0)
    argv = [sys.executable, tmp_path / "ask.py", tmp_path / "hf", question, *wavs]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    line = next(row for row in done.stdout.splitlines() if row.startswith('{"generate"'))
    ours = our_answers(folder, wavs)
    assert len({tuple(row) for row in ours}) == 4
    for answers in json.loads(line).values():
        assert [[t for t in row if t != 256] for row in answers] == ours
