"""Find everything that is wrong with a Kaldi data dir; nothing in it is ever changed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wenet_osum.dataset.audio import MAX_OVERSHOOT, scan_audio
from wenet_osum.dataset.espnet import DURATION_SLACK
from wenet_osum.dataset.kaldi import DataDir, Sample, load_data_dir
from wenet_osum.dataset.parallel import ordered_map
from wenet_osum.dataset.tables import Fault
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import Task, TaskTable
from wenet_osum.text.normalize import process_text, split_words

# A last word may end this much (seconds) after its utterance: aligners work in frames of 10 to 40 ms.
_CTM_SLACK = 0.05

_AUDIO_MENDS = {
    "missing": "mend the path (relative to the data dir or the current directory), or remove the line",
    "unreadable": "convert it to wav or flac, e.g. by a pipe: `ffmpeg -i FILE -f wav - |`",
    "truncated": "copy or download it again, or remove the line",
    "empty": "remove the line",
    "nan": "make the file again, or remove the line",
    "too_loud": "scale its samples to -1 .. 1, or remove the line",
    "pipe_failed": "run the command by hand from this directory",
}


@dataclass
class Survey:
    """What a data dir holds.

    Attributes:
        faults: everything that has to be mended, in the order of the checks.
        utterances: how many can be read.
        seconds: of all utterances whose length is known.
        offered: task name -> utterances that have an answer for it, in the order of the task table.
    """

    faults: list[Fault] = field(default_factory=list)
    utterances: int = 0
    seconds: float = 0.0
    offered: dict[str, int] = field(default_factory=dict)


def validate_data_dir(path: str | Path, tasks: TaskTable, check_audio: bool = True) -> list[Fault]:
    """Every fault of a Kaldi data dir, each with file and line, what is wrong and how to mend it.

    Args:
        path: the dir.
        tasks: tells which label files there may be and what they may hold.
        check_audio: also decode every recording, and compare its length with what the files say.
    """
    return survey_data_dir(path, tasks, check_audio).faults


def survey_data_dir(
    path: str | Path,
    tasks: TaskTable,
    check_audio: bool = True,
    num_workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:
    """``validate_data_dir``, and what the dir holds.

    Args:
        path, tasks, check_audio: see there.
        num_workers: threads that decode.
        progress: called with (recordings done, of how many).
    """
    survey = Survey()
    faults = survey.faults
    data = load_data_dir(path, tasks, faults.append)
    lengths = _check_audio(data, faults, num_workers, progress) if check_audio else {}
    offered: Counter[str] = Counter()
    for key, sample in data.samples.items():
        seconds = _check_length(data, sample, lengths.get(data.recordings[key]), faults)
        of_words = list(_check_words(data, sample, seconds))
        faults.extend(of_words)
        tasks_of = tasks.offered(sample)
        faults.extend(_check_answers(data, sample, [t for t in tasks_of if not (t.align and of_words)]))
        offered.update(task.name for task in tasks_of)
        survey.utterances += 1
        survey.seconds += seconds or 0.0
    survey.offered = {name: offered[name] for name in tasks if offered[name]}
    if data.samples and not survey.offered:
        faults.append(Fault(str(path), "no transcripts and no labels", "add at least a file `text`"))
    return survey


def _check_audio(
    data: DataDir, faults: list[Fault], num_workers: int, progress: Callable[[int, int], None]
) -> dict[str, float]:
    """Decode every recording that an utterance needs, once; recording id -> seconds."""
    wavs = {data.recordings[key]: sample["wav"] for key, sample in data.samples.items()}

    def scan(recording: str) -> tuple[str, float | BadUtterance]:
        try:
            return recording, scan_audio(wavs[recording], recording)
        except BadUtterance as e:
            return recording, e

    lengths: dict[str, float] = {}
    for done, (recording, result) in enumerate(ordered_map(scan, wavs, num_workers), 1):
        if isinstance(result, BadUtterance):
            what = f"audio of {recording}: {result.cause.replace('_', ' ')}: {result.detail}"
            faults.append(Fault(data.where("wav.scp", recording), what, _AUDIO_MENDS[result.cause]))
        else:
            lengths[recording] = result
        progress(done, len(wavs))
    return lengths


def _check_length(
    data: DataDir, sample: Sample, recording: float | None, faults: list[Fault]
) -> float | None:
    """Compare what the files say with the audio (seconds, if known); the utterance's seconds."""
    key, said = sample["key"], sample.get("duration")
    if recording is None:
        return said
    start, end = sample.get("start", 0.0), sample.get("end", recording)
    if start >= recording or end > recording + MAX_OVERSHOOT:
        what = f"segment from {start:g} s to {end:g} s of a recording that has {recording:.3f} s"
        faults.append(Fault(data.where("segments", key), what, "mend the times, or remove the line"))
        return said
    if key in data.table("utt2dur") and said and abs(said - (end - start)) > DURATION_SLACK:
        what = f"{key} is said to have {said:g} s and has {end - start:.3f} s"
        faults.append(Fault(data.where("utt2dur", key), what, "make utt2dur anew, or remove it"))
    counted = data.by_samples.get(key)
    if counted and abs(counted - (end - start)) > DURATION_SLACK:
        samples = data.table("utt2num_samples")[key].value
        what = f"{key} is said to have {samples} samples, {counted:g} s, and has {end - start:.3f} s"
        mend = "make utt2num_samples anew, or remove it"
        faults.append(Fault(data.where("utt2num_samples", key), what, mend))
    return min(end, recording) - start


def _check_words(data: DataDir, sample: Sample, seconds: float | None) -> Iterator[Fault]:
    """The ctm of an utterance: in order, inside the utterance, and the words of the transcript."""
    key = sample["key"]
    words = data.ctm.get(key)
    if not words:
        return
    path = data.path / "ctm"
    for before, word in itertools.pairwise(words):
        if word.start < before.start:
            what = f"{key}: {word.word} at {word.start:g} s comes before {before.word} in line {before.line}"
            yield Fault(f"{path}:{word.line}", what, "sort the words of an utterance by time")
            break
    last = max(words, key=lambda w: w.end)
    if seconds is not None and last.end > seconds + _CTM_SLACK:
        what = f"{key}: {last.word} ends at {last.end:g} s and the utterance at {seconds:.3f} s"
        yield Fault(
            f"{path}:{last.line}", what, "times count from the utterance's start; mend or remove them"
        )
    if "txt" not in sample:
        return
    heard = split_words(process_text(" ".join(w.word for w in words)))
    said = split_words(process_text(sample["txt"]))
    if heard != said:
        at = next(
            (i for i, (a, b) in enumerate(zip(heard, said, strict=False)) if a != b),
            min(len(heard), len(said)),
        )
        a, b = (x[at] if at < len(x) else "the end" for x in (heard, said))
        what = f"{key}: word {at + 1} is {a}, and in text {b}"
        yield Fault(
            f"{path}:{words[0].line}", what, "make ctm and text agree, or remove the utterance's lines"
        )


def _check_answers(data: DataDir, sample: Sample, tasks: list[Task]) -> Iterator[Fault]:
    """The first thing that keeps an utterance's answers from being written, such as a ``<`` in its text."""
    key = sample["key"]
    for task in tasks:
        try:
            task.answer_of(sample)
        except OsumError as e:
            if task.align:
                where = f"{data.path / 'ctm'}:{data.ctm[key][0].line}"
            else:
                where = data.where("utt2reply" if task.reply else "text", key)
            yield Fault(where, f"{key}: {e.what}", e.mend or "mend it, or remove the line")
            return
