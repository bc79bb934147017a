"""Utterances -> the files of a Kaldi data dir."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write
from wenet_osum.tasks import TaskTable

from .corpus import Utterance


def write_kaldi_dir(path: Path, utterances: Iterable[Utterance], tasks: TaskTable) -> None:
    """Write ``wav.scp``, ``utt2spk`` and ``spk2utt``, and the other files that there is something for; sorted as
    ``LC_ALL=C sort`` does.

    Args:
        path: the dir; must be there.
        utterances: in any order, with OSUM's labels.
        tasks: tells the label files and what they may hold.

    Raises:
        OsumError: a key that comes twice or has a blank in it, a label that is not OSUM's, a speaker with two
            values of a label, or parts of recordings among whole ones.
    """
    rows = sorted(utterances, key=lambda u: u.key)
    _check_keys(rows)
    speakers: dict[str, list[str]] = {}
    for u in rows:
        speakers.setdefault(u.speaker or u.key, []).append(u.key)
    files: dict[str, dict[str, str]] = {
        "utt2spk": {u.key: u.speaker or u.key for u in rows},
        "spk2utt": {speaker: " ".join(keys) for speaker, keys in speakers.items()},
        "text": {u.key: " ".join(u.text.split()) for u in rows if u.text is not None},
        "utt2lang": {u.key: u.lang for u in rows if u.lang},
        "utt2reply": {u.key: " ".join(u.reply.split()) for u in rows if u.reply},
    }
    if any(u.recording for u in rows):
        files["wav.scp"] = {u.recording: u.wav for u in rows}
        files["segments"] = {u.key: f"{u.recording} {u.start:.3f} {u.end:.3f}" for u in rows}
    else:
        files["wav.scp"] = {u.key: u.wav for u in rows}
    for label in tasks.fields.values():
        files[label.file] = {u.key: u.labels[label.name] for u in rows if label.name in u.labels}
        if label.spk_file:
            files[label.spk_file] = _by_speaker(rows, label.name)
        for values in (files[label.file], files.get(label.spk_file or "", {})):
            for key, value in values.items():
                if value not in label.values:
                    raise OsumError(
                        key, f"{value!r:.80} is no {label.name}", f"use one of: {', '.join(label.values)}"
                    )
    for u in rows:
        for name, value in u.more.items():
            files.setdefault(name, {})[u.key] = " ".join(value.split())
    for name, table in files.items():
        if table:
            _write(path / name, table)


def _check_keys(rows: list[Utterance]) -> None:
    for before, u in zip([None, *rows], rows):
        if before is not None and before.key == u.key:
            raise OsumError(u.key, "two utterances have this id", "the corpus has a file twice: keep one")
        if not u.key or any(len(name.split()) > 1 for name in (u.key, u.speaker, u.recording)):
            raise OsumError(u.key, "an id with a blank in it, or none", "rename the file")
        if bool(u.recording) != bool(rows[0].recording):
            raise OsumError(
                u.key, "a whole recording among parts of some", "put them into subsets of their own"
            )


def _by_speaker(rows: list[Utterance], name: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for u in rows:
        value = u.of_speaker.get(name)
        if value and values.setdefault(u.speaker or u.key, value) != value:
            what = f"speaker {u.speaker} is both {values[u.speaker or u.key]} and {value}"
            raise OsumError(u.key, what, f"give the {name} of each utterance")
    return values


def _write(path: Path, table: Mapping[str, str]) -> None:
    with atomic_write(path) as f:
        f.writelines(f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table))
