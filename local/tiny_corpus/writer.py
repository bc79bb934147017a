"""The plan of the corpus, its synthesis in parallel, and its Kaldi data dirs."""

from __future__ import annotations

import multiprocessing
import wave
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from .delivery import EMOTIONS, STYLES, Delivery
from .effects import Signal
from .espeak import Espeak, copy_data
from .sentences import LANGUAGES, SPLITS, Sentence, make_sentence
from .sounds import EVENTS, RATE
from .speech import LONGEST, Word, speak
from .voices import Voice, make_voices

KINDS = ("plain", "question", "emotion", "style", "event")
_LABELS = {"emotion": tuple(EMOTIONS), "style": tuple(STYLES), "event": tuple(EVENTS)}


class Item(NamedTuple):
    """An utterance to make. number: its place in the split; label: of its kind, "" for plain and question."""

    key: str
    number: int
    language: str
    sentence: Sentence
    kind: str
    label: str


class Job(NamedTuple):
    """All utterances of one speaker. One process makes them and ends, because espeak-ng carries the state of
    its generator from one utterance to the next: so the samples do not depend on the number of processes."""

    split: str
    voice: Voice
    items: list[Item]
    seed: int
    data: Path
    output: Path


class Made(NamedTuple):
    """What was made of an item."""

    item: Item
    voice: Voice
    words: list[Word]
    duration: float


def plan_split(split: str, count: int, seed: int) -> list[tuple[Voice, list[Item]]]:
    """Deal kinds, languages, labels and speakers evenly over `count` utterances."""
    rng = np.random.default_rng([seed, 2, SPLITS.index(split)])
    voices = make_voices(split, seed)
    items: dict[int, list[Item]] = defaultdict(list)
    order: list[int] = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        language = LANGUAGES[number // len(KINDS) % len(LANGUAGES)]
        labels = _LABELS.get(kind, ("",))
        label = labels[number // (len(KINDS) * len(LANGUAGES)) % len(labels)]
        if not order:
            order = [int(index) for index in rng.permutation(len(voices))]
        speaker = order.pop()
        sentence = make_sentence(rng, language, kind == "question", split)
        key = f"{voices[speaker].name}-{len(items[speaker]) + 1:04d}"
        items[speaker].append(Item(key, number, language, sentence, kind, label))
    return [(voice, items[index]) for index, voice in enumerate(voices) if items[index]]


def _delivery(item: Item) -> Delivery:
    if item.kind == "emotion":
        return EMOTIONS[item.label]
    return STYLES[item.label] if item.kind == "style" else Delivery()


def write_wav(path: Path, samples: Signal) -> None:
    """Write 16-bit mono; with the standard library, so that a full disk raises an OSError that says so."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, len(samples), "NONE", ""))
        out.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def run_job(job: Job) -> list[Made]:
    """Synthesise and write the wavs of one speaker."""
    engine = Espeak(job.data)
    made = []
    folder = job.output / "wav" / job.split / job.voice.name
    folder.mkdir(parents=True)
    for item in job.items:
        seed = [job.seed, 3, SPLITS.index(job.split), item.number]
        event = item.label if item.kind == "event" else None
        delivery = _delivery(item)
        utterance = speak(engine, item.sentence.text, item.language, job.voice, delivery, event, seed)
        while len(utterance.samples) > LONGEST * RATE:
            delivery = delivery._replace(tempo=delivery.tempo * 1.15, gap=delivery.gap * 0.8)
            utterance = speak(engine, item.sentence.text, item.language, job.voice, delivery, event, seed)
        write_wav(folder / f"{item.key}.wav", utterance.samples)
        made.append(Made(item, job.voice, utterance.words, len(utterance.samples) / RATE))
    return made


def _run(jobs: list[Job], num_workers: int, total: int) -> Iterator[Made]:
    with (
        multiprocessing.get_context("fork").Pool(num_workers, maxtasksperchild=1) as pool,
        tqdm(total=total, unit="utt", desc="synthesis") as bar,
    ):
        for made in pool.imap(run_job, jobs, chunksize=1):
            bar.update(len(made))
            yield from made


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_data_dir(folder: Path, split: str, made: list[Made]) -> None:
    """Write the Kaldi files of a split. Audio paths are relative to the data dir."""
    folder.mkdir()
    made = sorted(made, key=lambda one: one.item.key)
    files: dict[str, list[str]] = {"ctm": []}
    speakers: dict[str, list[str]] = defaultdict(list)
    for one in made:
        item = one.item
        fields = {
            "wav.scp": f"../wav/{split}/{one.voice.name}/{item.key}.wav",
            "text": item.sentence.text,
            "utt2spk": one.voice.name,
            "utt2lang": item.language,
            "utt2dur": f"{one.duration:.4f}",
        }
        if item.label:
            fields[f"utt2{item.kind}"] = item.label
        if item.sentence.reply is not None:
            fields["utt2reply"] = item.sentence.reply
        for name, value in fields.items():
            files.setdefault(name, []).append(f"{item.key} {value}")
        files["ctm"] += [
            f"{item.key} 1 {w.start:.3f} {round(w.end, 3) - round(w.start, 3):.3f} {w.word}"
            for w in one.words
        ]
        speakers[one.voice.name].append(item.key)
    voices = {one.voice.name: one.voice for one in made}
    files["spk2utt"] = [f"{name} {' '.join(keys)}" for name, keys in speakers.items()]
    files["spk2gender"] = [f"{name} {voice.gender}" for name, voice in voices.items() if voice.gender]
    files["spk2age"] = [f"{name} {voice.age}" for name, voice in voices.items()]
    for name, lines in files.items():
        _write_lines(folder / name, lines)


def make_corpus(output: Path, scratch: Path, sizes: dict[str, int], seed: int, num_workers: int) -> None:
    """Write the whole corpus into `output`, an empty folder; scratch: a folder for espeak-ng's data."""
    plans = {split: plan_split(split, sizes[split], seed) for split in SPLITS}
    copy_data(scratch, {voice.name: voice.variant for plan in plans.values() for voice, _ in plan})
    jobs = [
        Job(split, voice, items, seed, scratch, output) for split in SPLITS for voice, items in plans[split]
    ]
    made: dict[str, list[Made]] = {split: [] for split in SPLITS}
    for one, split in zip(
        _run(jobs, num_workers, sum(sizes.values())),
        (job.split for job in jobs for _ in job.items),
        strict=True,
    ):
        made[split].append(one)
    for split in SPLITS:
        write_data_dir(output / split, split, made[split])
