#!/usr/bin/env python3
"""Transcribe a raw list by a Whisper of Hugging Face's, with its own decoder: what a model made of its encoder is measured by.

    python local/decode_whisper.py --whisper openai/whisper-tiny.en --test_data test/raw.list --result_dir decode/whisper

Greedy, no timestamps, windows of 30 s as Whisper was trained; fp32. Writes ``RESULT_DIR/whisper/text`` as ``osum recognize``
does, for ``osum score --mode whisper``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parent.parent))  # it runs uninstalled too

from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.index import audio_source
from wenet_osum.errors import run_main
from wenet_osum.fileio import atomic_write, read_lines

RATE = 16000
LONGEST = 30.0  # seconds


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description="Whisper's own transcripts of a raw list.")
    p.add_argument("--whisper", required=True, help="folder or hub id, Hugging Face's form")
    p.add_argument("--test_data", required=True, help="raw list")
    p.add_argument("--result_dir", required=True, type=Path)
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--num_threads", type=int, default=0, help="0: torch's choice")
    return p.parse_args(argv)


def opening(tokenizer: Any) -> list[int]:
    """The ids that a transcript without timestamps begins behind; a multilingual Whisper is told that it is English."""
    vocabulary = tokenizer.get_vocab()
    names = ["<|startoftranscript|>", "<|notimestamps|>"]
    if "<|en|>" in vocabulary and "<|zh|>" in vocabulary and len(vocabulary) > 51864:
        names[1:1] = ["<|en|>", "<|transcribe|>"]
    return [vocabulary[name] for name in names]


def transcribe(waves: list[Any], model: Any, features: Any, tokenizer: Any) -> list[str]:
    """One text for each of the samples (n,) at ``RATE``."""
    inputs = features(waves, sampling_rate=RATE, return_tensors="pt").input_features
    begin = opening(tokenizer)
    ids = torch.tensor([begin] * len(waves))
    with torch.no_grad():
        out = model.generate(
            inputs,
            decoder_input_ids=ids,
            do_sample=False,
            num_beams=1,
            max_length=200,
            return_timestamps=False,
        )
    ends = model.config.eos_token_id
    texts = []
    for row in out.tolist():
        row = row[len(begin) :] if row[: len(begin)] == begin else row
        texts.append(
            tokenizer.decode(row[: row.index(ends)] if ends in row else row, skip_special_tokens=True)
        )
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    args = get_args(argv)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    model: Any = WhisperForConditionalGeneration.from_pretrained(args.whisper, dtype=torch.float32).eval()
    features = WhisperFeatureExtractor.from_pretrained(args.whisper)
    tokenizer = AutoTokenizer.from_pretrained(args.whisper)
    samples = [json.loads(line) for _, line in read_lines(args.test_data)]
    rows = []
    for start in tqdm(range(0, len(samples), args.batch_size), desc="Whisper"):
        some = samples[start : start + args.batch_size]
        waves = [load_audio(audio_source(s), s.get("start"), s.get("end"), RATE, s["key"], 0) for s in some]
        texts = transcribe([w[: int(LONGEST * RATE)] for w in waves], model, features, tokenizer)
        rows += [f"{s['key']} {' '.join(text.split())}".rstrip() for s, text in zip(some, texts)]
    with atomic_write(args.result_dir / "whisper" / "text") as f:
        f.writelines(f"{row}\n" for row in rows)
    return 0


if __name__ == "__main__":
    run_main(main)
