"""The plan of the corpus, its synthesis in parts that survive a kill, and its Kaldi dirs."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from asterisk_text import plain_words
from tqdm import tqdm

from mini_corpus.engines import ENGINES, Failed, Times
from mini_corpus.voices import SHARES, Voice, all_voices
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_folder, atomic_write

RATE, TELEPHONE = 16000, 8000
PART = 100  # utterances of a part
LONGEST = 12.0  # seconds


class Line(NamedTuple):
    """A sentence to say: its text as the synthesiser reads it, and the answer where it is a question."""

    text: str
    reply: str = ""


class Item(NamedTuple):
    """An utterance to make."""

    key: str
    voice: Voice
    line: Line


class Part(NamedTuple):
    """Utterances of one engine, made by one process, which ends with them: espeak-ng carries state from one
    utterance to the next, so the samples do not depend on how many processes there are."""

    name: str
    engine: str
    items: list[Item]
    seed: list[int]
    folder: Path


def plan_split(split: str, lines: Sequence[Line], engines: list[str], seed: int) -> list[Item]:
    """Deal the sentences over engines by ``SHARES``, and over each engine's voices evenly.

    Raises:
        OsumError: no engine has a voice for this split.
    """
    voices: dict[str, list[Voice]] = defaultdict(list)
    for voice in all_voices(split, engines, seed):
        voices[voice.engine].append(voice)
    if not voices:
        what = f"have no voice for {split}, whose voices are in no other split"
        raise OsumError(f"--engines {','.join(engines)}", what, "add espeak")
    rng = np.random.default_rng([seed, 11, len(lines)])
    names = sorted(voices)
    share = np.array([SHARES[n] for n in names], float)
    chosen = rng.choice(len(names), size=len(lines), p=share / share.sum())
    count: Counter[str] = Counter()
    items = []
    for line, n in zip(lines, chosen):
        mine = voices[names[n]]
        voice = mine[count[names[n]] % len(mine)]
        count[names[n]] += 1
        count[voice.name] += 1
        items.append(Item(f"{voice.name}-{split}{count[voice.name]:05}", voice, line))
    return items


def parts_of(split: str, items: Sequence[Item], seed: int, folder: Path) -> list[Part]:
    """The items by engine, ``PART`` together; the engines take turns."""
    by_engine: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_engine[item.voice.engine].append(item)
    parts: list[tuple[int, Part]] = []
    for engine, mine in sorted(by_engine.items()):
        for n, start in enumerate(range(0, len(mine), PART)):
            name = f"{split}-{engine}-{n:03}"
            draws = [seed, n, *name.encode()]
            parts.append((n, Part(name, engine, mine[start : start + PART], draws, folder / name)))
    return [part for _, part in sorted(parts, key=lambda pair: pair[0])]  # all engines from the beginning


def finish(samples: np.ndarray, rate: int, times: Times, size: float, rng: np.random.Generator) -> Any:
    """Speech as it lies in the corpus: played ``size`` times faster, silence around it, some level, half of it
    in a telephone's bandwidth. Returns samples, rate and the words' times in seconds."""
    out_rate = TELEPHONE if rng.random() < 0.5 else RATE
    x = soxr.resample(samples, rate * size, out_rate)
    before, after = (int(out_rate * rng.uniform(0.05, 0.35)) for _ in range(2))
    x = np.concatenate([np.zeros(before, np.float32), x, np.zeros(after, np.float32)])
    x *= rng.uniform(0.15, 0.9) / (np.abs(x).max() + 1e-9)
    x += rng.standard_normal(len(x)).astype(np.float32) * np.float32(10 ** rng.uniform(-5, -3.2))
    shift = before / out_rate
    seconds = [[word, shift + a / (rate * size), shift + b / (rate * size)] for word, a, b in times]
    return np.clip(x, -1, 1), out_rate, seconds


def make_part(part: Part) -> str:
    """Say a part's sentences into its folder, which gets its name when it is whole; ``made.json`` lists them."""
    if (part.folder / "made.json").is_file():
        return part.name
    made: list[dict[str, Any]] = []
    rng = np.random.default_rng(part.seed)
    with tempfile.TemporaryDirectory() as scratch, atomic_folder(part.folder) as folder:
        voices = list({item.voice.name: item.voice for item in part.items}.values())
        engine = ENGINES[part.engine](Path(scratch), voices)
        for item in part.items:
            tempo = float(rng.uniform(0.85, 1.2))
            facts: dict[str, Any] = {"key": item.key, "text": plain_words(item.line.text)}
            try:
                said = engine.say(item.line.text, item.voice, tempo, rng)
                samples, rate, times = finish(said.samples, said.rate, said.times, item.voice.size, rng)
                facts["seconds"] = len(samples) / rate
                if not 0.4 < facts["seconds"] <= LONGEST:
                    raise Failed("too short or too long")
            except Failed as e:
                made.append({**facts, "cause": str(e)})
                continue
            soundfile.write(folder / f"{item.key}.wav", samples, rate, subtype="PCM_16")
            more = {"speaker": item.voice.name, "gender": item.voice.gender, "reply": item.line.reply}
            made.append({**facts, **more, "times": times})
        (folder / "made.json").write_text(json.dumps(made), encoding="utf-8")
    return part.name


def run(parts: list[Part], num_workers: int) -> Iterator[str]:
    """Make the parts that are not there yet, and remove what a killed run has left of one."""
    for left in parts[0].folder.parent.glob(".*.tmp"):
        shutil.rmtree(left)
    count = {p.name: len(p.items) for p in parts}
    with (
        multiprocessing.get_context("fork").Pool(num_workers, maxtasksperchild=1) as pool,
        tqdm(total=sum(count.values()), unit="utt", desc="synthesis") as bar,
    ):
        for name in pool.imap(make_part, parts, chunksize=1):
            bar.update(count[name])
            yield name


def write_data_dir(folder: Path, parts: Sequence[Part]) -> Counter[str]:
    """A split's Kaldi dir from its parts; returns how many sentences were left out, by cause (all of them are
    named in ``left_out.tsv``). Audio paths are relative to the dir."""
    found = [
        (part, entry)
        for part in parts
        for entry in json.loads((part.folder / "made.json").read_text(encoding="utf-8"))
    ]
    made = sorted((pair for pair in found if "cause" not in pair[1]), key=lambda pair: pair[1]["key"])
    left_out = [entry for _, entry in found if "cause" in entry]
    files: dict[str, list[str]] = defaultdict(list)
    speakers: dict[str, list[str]] = defaultdict(list)
    genders: dict[str, str] = {}
    for part, entry in made:
        key = entry["key"]
        files["wav.scp"].append(f"{key} ../parts/{part.name}/{key}.wav")
        files["text"].append(f"{key} {entry['text']}")
        files["utt2spk"].append(f"{key} {entry['speaker']}")
        files["utt2lang"].append(f"{key} en")
        files["utt2dur"].append(f"{key} {entry['seconds']:.4f}")
        if entry["reply"]:
            files["utt2reply"].append(f"{key} {entry['reply']}")
        for word, start, end in entry["times"]:
            start = round(start, 3)
            files["ctm"].append(f"{key} 1 {start:.3f} {max(0.001, round(end, 3) - start):.3f} {word}")
        speakers[entry["speaker"]].append(key)
        genders[entry["speaker"]] = entry["gender"]
    files["spk2utt"] = [f"{name} {' '.join(keys)}" for name, keys in sorted(speakers.items())]
    files["spk2gender"] = [f"{name} {gender}" for name, gender in sorted(genders.items())]
    files["left_out.tsv"] = [f"{e['key']}\t{e['cause']}\t{e['text']}" for e in left_out]
    for name, lines in files.items():
        with atomic_write(folder / name) as f:
            f.writelines(f"{line}\n" for line in lines)
    return Counter(e["cause"] for e in left_out)
