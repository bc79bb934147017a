"""Kaldi data dirs: the files of one dir joined to one sample dict an utterance."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wenet_osum.dataset.espnet import holds_audio, seconds_by_samples
from wenet_osum.dataset.sources import is_pipe, split_ark
from wenet_osum.dataset.tables import (
    Fault,
    OnFault,
    Table,
    TimedWord,
    parse_seconds,
    read_ctm,
    read_table,
    stop,
)
from wenet_osum.tasks import LabelField, TaskTable
from wenet_osum.text.normalize import is_cjk

Sample = dict[str, Any]


@dataclass
class DataDir:
    """A data dir as read, with what is needed to point at a line of it.

    Attributes:
        path: the dir.
        tables: file name -> its table, for the files that are there.
        ctm: utterance id -> its timed words.
        samples: utterance id -> sample dict, in the order of ``segments`` or else ``wav.scp``.
        recordings: utterance id -> recording id in ``wav.scp``.
        by_samples: utterance id -> seconds, as ``utt2num_samples`` has them.
    """

    path: Path
    tables: dict[str, Table] = field(default_factory=dict)
    ctm: dict[str, list[TimedWord]] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)
    recordings: dict[str, str] = field(default_factory=dict)
    by_samples: dict[str, float] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """The table of a file; an empty one if the dir does not have it."""
        return self.tables.get(name) or Table(self.path / name)

    def where(self, name: str, key: str) -> str:
        """``file:line`` of an id in a file; the file alone if the id is not there."""
        table = self.table(name)
        return table.where(key) if key in table else str(table.path)


def read_data_dir(path: str | Path, tasks: TaskTable) -> list[Sample]:
    """Read a Kaldi or ESPnet2 data dir; one sample dict an utterance, in the order of ``segments`` or ``wav.scp``.

    Every file but ``wav.scp`` is optional, and so is a line for an utterance in it; an utterance that
    ``text`` does not have gets no ``txt``, and one with nothing after its id there gets ``""``: nobody
    speaks. Label values come out canonical. A label given
    for the utterance goes before its speaker's. Paths in ``wav.scp`` are relative to the dir if they
    exist there, else to the current directory, else to the nearest folder above the dir where they
    exist (the recipe that ESPnet was run in). Durations come from ``utt2dur``, else ``segments``, else
    ``utt2num_samples``; for the last the headers of a few recordings are read, other audio is not touched.

    Args:
        path: the dir.
        tasks: tells which label files there may be and what they may hold.

    Raises:
        OsumError: at the first fault, with file and line; ``validate_data_dir`` lists them all.
    """
    return list(load_data_dir(path, tasks, stop).samples.values())


def read_scp(wav_scp: str | Path, text: str | Path, segments: str | Path | None = None) -> list[Sample]:
    """Read what WeNet's list makers are given: the utterances of ``text``, in its order, without labels.

    Raises:
        OsumError: a fault in a file, or an id in ``text`` that the others do not have.
    """
    for file in (wav_scp, text, segments):
        if file and not Path(file).is_file():
            stop(Fault(str(file), "no such file", "check the path"))
    scp = read_table(Path(wav_scp), stop)
    cuts = read_table(Path(segments), stop) if segments else None
    samples, _ = _utterances(scp, cuts, stop)
    transcripts = read_table(Path(text), stop, need_value=False)
    _drop_strangers(transcripts, samples, str(segments or wav_scp), stop)
    return [{**samples[key], "txt": entry.value} for key, entry in transcripts.items()]


def load_data_dir(path: str | Path, tasks: TaskTable, on_fault: OnFault) -> DataDir:
    """As ``read_data_dir``, telling ``on_fault`` of each fault; lines at fault are left out."""
    data = DataDir(Path(path))
    if not data.path.is_dir():
        on_fault(Fault(str(path), "no such data dir", "check the path"))
        return data
    if not holds_audio(data.path, on_fault):
        return data
    if not (data.path / "wav.scp").is_file():
        on_fault(Fault(f"{data.path / 'wav.scp'}", "no such file", "every data dir needs a wav.scp"))
        return data
    fields = list(tasks.fields.values())
    by_utterance = ["text", "utt2dur", "utt2spk", "utt2lang", *(f.file for f in fields)]
    by_utterance += ["utt2reply", "utt2question"]
    others = [
        "wav.scp",
        "segments",
        "spk2utt",
        "utt2num_samples",
        *(f.spk_file for f in fields if f.spk_file),
    ]
    for name in dict.fromkeys([*others, *by_utterance, "ctm"]):
        if os.path.lexists(data.path / name) and not (data.path / name).is_file():
            on_fault(
                Fault(str(data.path / name), "a folder or a broken link", "put the file there, or remove it")
            )
    for name in dict.fromkeys(others + by_utterance):
        if (data.path / name).is_file():
            # An empty transcript is one: a clip in which nobody speaks.
            data.tables[name] = read_table(data.path / name, on_fault, need_value=name != "text")

    data.samples, data.recordings = _utterances(data.tables["wav.scp"], data.tables.get("segments"), on_fault)
    known = str(data.path / ("segments" if "segments" in data.tables else "wav.scp"))
    for name in by_utterance:
        _drop_strangers(data.table(name), data.samples, known, on_fault)
    if (data.path / "ctm").is_file():
        data.ctm = read_ctm(data.path / "ctm", on_fault)
        for key in [k for k in data.ctm if k not in data.samples]:
            on_fault(_stranger(f"{data.path / 'ctm'}:{data.ctm.pop(key)[0].line}", key, known))

    if data.table("utt2num_samples"):
        wavs = {key: sample["wav"] for key, sample in data.samples.items()}
        whole = "segments" not in data.tables
        data.by_samples = seconds_by_samples(data.table("utt2num_samples"), wavs, whole, on_fault)
    _add_transcripts(data, on_fault)
    speakers = _speakers(data, on_fault)
    for label_field in fields:
        _add_labels(data, label_field, speakers, on_fault)
    for name in ("reply", "question"):
        for key, entry in data.table(f"utt2{name}").items():
            data.samples[key][name] = entry.value
    for key, words in data.ctm.items():
        data.samples[key]["align"] = [[w.start, w.end, w.word] for w in words]
    return data


def _utterances(
    scp: Table, segments: Table | None, on_fault: OnFault
) -> tuple[dict[str, Sample], dict[str, str]]:
    """Samples with ``key``, ``wav`` and the times of a segment; and each one's recording."""
    wavs = {key: _resolve(entry.value, scp.path.parent) for key, entry in scp.items()}
    if segments is None:
        return {key: {"key": key, "wav": wav} for key, wav in wavs.items()}, {k: k for k in wavs}
    samples: dict[str, Sample] = {}
    recordings: dict[str, str] = {}
    for key, entry in segments.items():
        parts = entry.value.split()
        times = [parse_seconds(p) for p in parts[1:]]
        start, end = times if len(times) == 2 else (None, None)
        if start is None or end is None:
            mend = "write `utterance recording start end`, in seconds"
            on_fault(Fault(segments.where(key), f"cannot read `{key} {entry.value}`", mend))
        elif parts[0] not in wavs:
            on_fault(_stranger(segments.where(key), parts[0], str(scp.path)))
        elif start < 0 or (end <= start and end != -1):
            mend = "the end must come after the start (or be -1: the recording's end)"
            on_fault(Fault(segments.where(key), f"segment from {start:g} s to {end:g} s", mend))
        else:
            samples[key] = {"key": key, "wav": wavs[parts[0]], "start": start}
            if end != -1:
                samples[key]["end"] = end
            recordings[key] = parts[0]
    return samples, recordings


def _resolve(wav: str, base: Path) -> str:
    """A wav.scp value, with a path that is relative to the data dir or a folder above it made relative to here."""
    ark = split_ark(wav)
    path = ark[0] if ark else wav
    if is_pipe(wav) or os.path.isabs(path):
        return wav
    if os.path.exists(base / path):
        return os.path.normpath(base / wav)
    if not os.path.exists(path):
        for folder in Path(os.path.abspath(base)).parents:
            if os.path.exists(folder / path):
                return os.path.normpath(folder / wav)
    return wav


def _stranger(where: str, key: str, known: str) -> Fault:
    return Fault(where, f"id {key} is not in {known}", "add it there, or remove this line")


def _drop_strangers(table: Table, samples: Iterable[str], known: str, on_fault: OnFault) -> None:
    for key in [k for k in table if k not in samples]:
        on_fault(_stranger(table.where(key), key, known))
        del table[key]


def _add_transcripts(data: DataDir, on_fault: OnFault) -> None:
    """``txt``, ``duration`` and ``lang``."""
    durations, langs = data.table("utt2dur"), data.table("utt2lang")
    transcripts = data.table("text")
    for key, sample in data.samples.items():
        if key in transcripts:
            sample["txt"] = transcripts[key].value
        if key in durations:
            seconds = parse_seconds(durations[key].value)
            if seconds is not None and seconds > 0:
                sample["duration"] = seconds
            else:
                what = f"duration {durations[key].value}"
                on_fault(Fault(data.where("utt2dur", key), what, "give seconds above 0"))
        elif "end" in sample:
            sample["duration"] = round(sample["end"] - sample["start"], 6)
        elif key in data.by_samples:
            sample["duration"] = data.by_samples[key]
        if key in langs:
            # zh-CN, en_US: the prompts know languages, not regions.
            sample["lang"] = langs[key].value.lower().replace("_", "-").partition("-")[0]
        elif sample.get("txt"):
            sample["lang"] = "zh" if any(map(is_cjk, sample["txt"])) else "en"


def _speakers(data: DataDir, on_fault: OnFault) -> dict[str, str]:
    """Utterance -> speaker, from ``utt2spk`` or else ``spk2utt``; also put into the samples."""
    speakers = {key: entry.value for key, entry in data.table("utt2spk").items()}
    spk2utt = data.table("spk2utt")
    for speaker, entry in spk2utt.items():
        for key in entry.value.split():
            if key not in data.samples:
                on_fault(_stranger(data.where("spk2utt", speaker), key, str(data.path / "wav.scp")))
            elif speakers.setdefault(key, speaker) != speaker:
                what = f"{key} is said to be of {speaker}, and in utt2spk of {speakers[key]}"
                on_fault(Fault(data.where("spk2utt", speaker), what, "make spk2utt anew from utt2spk"))
    for key, speaker in speakers.items():
        data.samples[key]["speaker"] = speaker
    return speakers


def _add_labels(data: DataDir, label: LabelField, speakers: dict[str, str], on_fault: OnFault) -> None:
    """Put a label field's values into the samples: the speakers' first, the utterances' own over them."""
    by_speaker: dict[str, str] = {}
    if label.spk_file:
        table = data.table(label.spk_file)
        if table and not speakers:
            on_fault(Fault(str(table.path), "speakers' labels, and no utt2spk", "add utt2spk"))
        _drop_strangers(table, set(speakers.values()), str(data.path / "utt2spk"), on_fault)
        by_speaker = _canonical(table, label, on_fault)
    own = _canonical(data.table(label.file), label, on_fault)
    for key, sample in data.samples.items():
        value = own.get(key) or by_speaker.get(speakers.get(key, ""))
        if value:
            sample[label.name] = value


def _canonical(table: Table, label: LabelField, on_fault: OnFault) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, entry in table.items():
        value = label.canonical(entry.value)
        if value is not None:
            values[key] = value
        else:
            what = f"{entry.value!r:.80} is no {label.name}"
            on_fault(Fault(table.where(key), what, f"use one of: {', '.join(label.values)}"))
    return values
