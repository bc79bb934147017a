"""Recordings of a minute and of two hours: memory, and what the cuts do to words.

    python benchmarks/long_audio.py --data_dir data/tiny/kaldi/test --checkpoint exp/tiny/final.pt --config exp/tiny/train.yaml

The utterances of a Kaldi dir with a ``ctm``, one after the other with pauses of 0.1 to 1 s drawn between them, again
and again until the recording is long enough. A word counts as lost or doubled when its time lies not wholly in just
one piece. Memory is the peak of ``osum transcribe`` as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from wenet_osum.decode.cut import RATE, pieces

MEASURED = """
import json, resource, sys
from wenet_osum.bin.transcribe import main
status = main(sys.argv[1:])
print(json.dumps([status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), file=sys.stderr)
"""


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument(
        "--max_seconds", type=float, default=4.0, help="the demo's model knows short utterances"
    )
    parser.add_argument("--hours", type=float, default=2.0)
    return parser.parse_args(argv)


def join_up(data_dir: Path, seconds: float, out: Path) -> list[tuple[float, float, str]]:
    """Write a recording; returns start, end and word of every word in it."""
    rng = np.random.default_rng(0)
    wavs = [line.split(maxsplit=1) for line in (data_dir / "wav.scp").read_text().splitlines()]
    spoken: dict[str, list[tuple[float, float, str]]] = {}
    for line in (data_dir / "ctm").read_text().splitlines():
        key, _, start, length, word = line.split()
        spoken.setdefault(key, []).append((float(start), float(start) + float(length), word))
    words, at = [], 0
    with soundfile.SoundFile(out, "w", RATE, 1, "PCM_16") as f:
        while at < seconds * RATE:
            for number in rng.permutation(len(wavs)):
                key, path = wavs[number]
                wave, rate = soundfile.read(data_dir / path)
                assert rate == RATE
                words += [(at / RATE + s, at / RATE + e, w) for s, e, w in spoken.get(key, [])]
                pause = np.zeros(int(rng.uniform(0.1, 1.0) * RATE)) + 1e-4 * rng.standard_normal()
                f.write(np.concatenate([wave, pause]))
                at += len(wave) + len(pause)
                if at >= seconds * RATE:
                    break
    return words


def torn(words: list[tuple[float, float, str]], spans: list[tuple[float, float]]) -> tuple[int, int]:
    """How many words lie wholly in no piece, and how many touch several."""
    starts, ends = np.array(spans).T
    lost = doubled = 0
    for start, end, _ in words:
        end = max(end - 0.01, start)  # times are hundredths
        touched = (starts < end) & (ends > start)
        lost += not bool(((starts <= start) & (ends >= end)).any())
        doubled += int(touched.sum()) > 1
    return lost, doubled


def main() -> int:
    args = get_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for seconds in (60.0, args.hours * 3600):
            path = Path(name) / f"{seconds:.0f}.wav"
            words = join_up(args.data_dir, seconds, path)
            spans = [(p.start, p.end) for p in pieces(str(path), "long", args.max_seconds)]
            lost, doubled = torn(words, spans)
            argv = [
                "--checkpoint",
                args.checkpoint,
                "--config",
                args.config,
                "--task",
                "asr",
                "--format",
                "json",
            ]
            argv += ["--max_seconds", str(args.max_seconds), str(path)]
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", MEASURED, *argv],
                capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
            )  # fmt: skip
            status, peak = json.loads(done.stderr.splitlines()[-1])
            answer = json.loads(done.stdout.splitlines()[0])["tasks"]["asr"]["text"]
            peaks.append(peak / 1024)
            print(
                f"{seconds / 60:.0f} min: {len(spans)} pieces, the longest {max(e - s for s, e in spans):.2f} s; "
                f"{len(words)} words, {lost} not whole in a piece, {doubled} in two; status {status}, "
                f"{len(answer)} characters, peak {peak / 1024:.0f} MB",
                flush=True,
            )
    print(f"memory {peaks[1] / peaks[0]:.3f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
