"""Score one task: its answers are parsed and each part goes to the scorer of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from wenet_osum.errors import OsumError
from wenet_osum.score.bootstrap import DEFAULT, Draws
from wenet_osum.score.figure import Figure, ratio, render
from wenet_osum.score.labels import label_tree
from wenet_osum.score.reply import reply_tree
from wenet_osum.score.srwt import shift_tree
from wenet_osum.score.wer import ErrorRate, error_rate
from wenet_osum.tasks import Answer, Task
from wenet_osum.text.normalize import has_cjk

Sample = Mapping[str, Any]
T = TypeVar("T")

# Names under which lists write Chinese; OSUM's own lists have <CN>.
_CHINESE = {"zh", "zh-cn", "cn", "cmn", "yue", "mandarin", "chinese"}


@dataclass(frozen=True)
class _Scored:
    """References and hypotheses (parsed, and as decoded) of one task by key."""

    task: Task
    refs: dict[str, Answer]
    hyps: dict[str, Answer]
    decoded: dict[str, str]
    languages: dict[str, str]
    normalizer: str

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
    return render(score_tree(task, refs, hyps, normalizer), draws)


def score_tree(
    task: Task, refs: Sequence[Sample], hyps: Mapping[str, str], normalizer: str = "wenet"
) -> dict[str, Any]:
    """What `figure.render` makes `score_task`'s: in place of each value and interval its `figure.Figure`,
    for what has more to ask of them (`compare.compare`)."""
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
    )
    tree = _main_score(scored)
    tree["counts"] = {
        "utterances": len(samples),
        "missing": len(samples) - len(answers),
        "unparseable": sum(bool(a.problems) for a in answers.values()),
        "extra": len(hyps) - len(answers),
        **{k: v for k, v in tree["counts"].items() if k not in ("utterances", "missing")},
    }
    return {"task": task.name, "tag": task.tag, **tree}


def _main_score(s: _Scored) -> dict[str, Any]:
    if s.task.align:
        tree = shift_tree(*s.both(lambda a: a.words or []))
    elif s.task.reply:
        tree = reply_tree(*s.both(lambda a: a.reply or ""))
    elif s.task.fields:
        tree = _all_labels(s)
    else:
        # Nothing but a transcript is asked for, so all of the text is one; what a stray mark in it counts
        # is the normaliser's to say.
        refs = {k: a.text or "" for k, a in s.refs.items()}
        rate = error_rate(refs, {k: text.lower() for k, text in s.decoded.items()}, "mixed", s.normalizer)
        return rate.tree() | {"by_lang": _by_language(s, rate)}
    if s.task.fields:
        tree["fields"] = _fields(s)
    if s.task.transcript:
        tree["transcript"] = error_rate(*s.both(lambda a: a.text or ""), "mixed", s.normalizer).tree()
    return tree


def _by_language(s: _Scored, rate: ErrorRate) -> dict[str, Any]:
    trees = {}
    for lang in sorted(set(s.languages.values())):
        part = rate.only(k for k, v in s.languages.items() if v == lang)
        metric = "cer" if lang.strip("<>").lower() in _CHINESE else "wer"
        trees[lang] = part.tree() | {"metric": metric}
    return trees


def _all_labels(s: _Scored) -> dict[str, Any]:
    """The share of utterances whose labels are all right; of a task with one label, its accuracy."""
    right = [k in s.hyps and s.hyps[k].labels == ref.labels for k, ref in s.refs.items()]
    return {
        "metric": "accuracy",
        "value": Figure.of([(r, 1) for r in right], ratio),
        "counts": {"right": sum(right)},
    }


def _fields(s: _Scored) -> dict[str, Any]:
    trees = {}
    for f in s.task.fields:
        refs = {k: a.labels[f.name] for k, a in s.refs.items()}
        hyps = {k: a.labels[f.name] for k, a in s.hyps.items() if f.name in a.labels}
        trees[f.name] = label_tree(refs, hyps, f.values)
    return trees


def language_of(sample: Sample) -> str:
    """The sample's language; where none is given, ``zh`` if its text has a Chinese character, else ``en``."""
    if sample.get("lang"):
        return str(sample["lang"])
    return "zh" if has_cjk(sample.get("txt") or "") else "en"
