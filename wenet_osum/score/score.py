"""Score one task: its answers are parsed and each part goes to the scorer of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from wenet_osum.errors import OsumError
from wenet_osum.score import bootstrap
from wenet_osum.score.bootstrap import DEFAULT, Draws
from wenet_osum.score.labels import label_scores
from wenet_osum.score.reply import reply_scores
from wenet_osum.score.srwt import shift_scores
from wenet_osum.score.wer import ErrorRate, error_rate
from wenet_osum.tasks import Answer, Task
from wenet_osum.text.normalize import is_cjk

Sample = Mapping[str, Any]
T = TypeVar("T")

# Names under which lists write Chinese; OSUM's own lists have <CN>.
_CHINESE = {"zh", "zh-cn", "cn", "cmn", "yue", "mandarin", "chinese"}


@dataclass(frozen=True)
class _Scored:
    """References, hypotheses (parsed, and as decoded) of one task by key, and how intervals are drawn."""

    task: Task
    refs: dict[str, Answer]
    hyps: dict[str, Answer]
    decoded: dict[str, str]
    languages: dict[str, str]
    normalizer: str
    draws: Draws

    def both(self, part: Callable[[Answer], T]) -> tuple[dict[str, T], dict[str, T]]:
        """One part of every answer, of the references and of the hypotheses."""
        return {k: part(a) for k, a in self.refs.items()}, {k: part(a) for k, a in self.hyps.items()}


def score_task(
    task: Task,
    refs: Sequence[Sample],
    hyps: Mapping[str, str],
    normalizer: str = "wenet",
    draws: Draws = DEFAULT,
) -> dict[str, Any]:
    """Score the answers to one task.

    The task's parts decide the metric (``metric``, ``value``): timed words -> ``aas_ms``; a reply ->
    ``exact``; labels -> ``accuracy`` (with several, all must be right), each label's own figures
    under ``fields``; else the transcript -> ``mer``, by language under ``by_lang`` (``cer`` for Chinese,
    ``wer`` for others; both count mixed tokens, so they add up to the whole). Wherever the transcript
    stands before the answer proper, its error rate is under ``transcript``. A task defined in a
    user's YAML is scored the same way.

    Args:
        task: the task.
        refs: samples; those that do not support the task are left out.
        hyps: key -> raw decoded text. A reference without one is an error and counted as ``missing``;
            an answer with problems is counted as ``unparseable`` and what is sure of it is scored;
            a hypothesis without a reference is counted as ``extra``.
        normalizer: for transcripts, see `normalizer.get_normalizer`.
        draws: of the bootstrap intervals.

    Returns:
        a JSON-ready dict: task, tag, metric, value, interval, counts, and the extras above. Rates are
        in percent, shifts in ms; a figure that the data leave undefined is None.

    Raises:
        OsumError: no reference supports the task, two have one key, or a reference is bad.
    """
    samples: dict[str, Sample] = {}
    for sample in refs:
        if task.supported_by(sample):
            if sample["key"] in samples:
                raise OsumError(sample["key"], "two references have this key", "make the keys unique")
            samples[sample["key"]] = sample
    if not samples:
        raise OsumError(task.name, "no reference has what this task asks for", "score it on data that has")

    decoded = {key: text for key, text in hyps.items() if key in samples}
    answers = {key: task.parse(text) for key, text in decoded.items()}
    scored = _Scored(
        task,
        {key: task.answer_of(sample) for key, sample in samples.items()},
        answers,
        decoded,
        {key: language_of(sample) for key, sample in samples.items()},
        normalizer,
        draws,
    )
    result = _main_score(scored)
    result["counts"] = {
        "utterances": len(samples),
        "missing": len(samples) - len(answers),
        "unparseable": sum(bool(a.problems) for a in answers.values()),
        "extra": len(hyps) - len(answers),
        **{k: v for k, v in result["counts"].items() if k not in ("utterances", "missing")},
    }
    return {"task": task.name, "tag": task.tag, **result}


def _main_score(s: _Scored) -> dict[str, Any]:
    if s.task.align:
        result = shift_scores(*s.both(lambda a: a.words or []), draws=s.draws)
    elif s.task.reply:
        result = reply_scores(*s.both(lambda a: a.reply or ""), draws=s.draws)
    elif s.task.fields:
        result = _all_labels(s)
    else:
        # Nothing but a transcript is asked for, so all of the text is one; what a stray mark in it counts
        # is the normaliser's to say.
        refs = {k: a.text or "" for k, a in s.refs.items()}
        rate = error_rate(refs, {k: text.lower() for k, text in s.decoded.items()}, "mixed", s.normalizer)
        return rate.to_dict(draws=s.draws) | {"by_lang": _by_language(s, rate)}
    if s.task.fields:
        result["fields"] = _fields(s)
    if s.task.transcript:
        result["transcript"] = _transcript(s).to_dict(draws=s.draws)
    return result


def _transcript(s: _Scored) -> ErrorRate:
    return error_rate(*s.both(lambda a: a.text or ""), "mixed", s.normalizer)


def _by_language(s: _Scored, rate: ErrorRate) -> dict[str, Any]:
    result = {}
    for lang in sorted(set(s.languages.values())):
        part = rate.only(k for k, v in s.languages.items() if v == lang)
        metric = "cer" if lang.strip("<>").lower() in _CHINESE else "wer"
        result[lang] = part.to_dict(draws=s.draws) | {"metric": metric}
    return result


def _all_labels(s: _Scored) -> dict[str, Any]:
    """The share of utterances whose labels are all right; of a task with one label, its accuracy."""
    right = [k in s.hyps and s.hyps[k].labels == ref.labels for k, ref in s.refs.items()]
    return {
        "metric": "accuracy",
        "value": 100.0 * sum(right) / len(right),
        "interval": bootstrap.interval([(r, 1) for r in right], bootstrap.ratio, draws=s.draws),
        "counts": {"right": sum(right)},
    }


def _fields(s: _Scored) -> dict[str, Any]:
    result = {}
    for f in s.task.fields:
        refs = {k: a.labels[f.name] for k, a in s.refs.items()}
        hyps = {k: a.labels[f.name] for k, a in s.hyps.items() if f.name in a.labels}
        result[f.name] = label_scores(refs, hyps, f.values, draws=s.draws)
    return result


def language_of(sample: Sample) -> str:
    """The sample's language; where none is given, ``zh`` if its text has a Chinese character, else ``en``."""
    if sample.get("lang"):
        return str(sample["lang"])
    return "zh" if any(is_cjk(c) for c in sample.get("txt") or "") else "en"
