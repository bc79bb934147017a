"""The table of tasks, read from YAML: the built-in ``tasks.yaml`` and the user's files of the same form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_yaml
from wenet_osum.tasks import timed
from wenet_osum.tasks.label_field import LabelField
from wenet_osum.tasks.task import ALIGN, CHAT, REPLY_MARK, TRANSCRIBE, Task, tag_atoms
from wenet_osum.text.normalize import process_text

BUILT_IN = Path(__file__).with_name("tasks.yaml")
_TASK_KEYS = {"tag", "prompts", "label"}
_SAMPLE_KEYS = (
    *(
        "key",
        "wav",
        "txt",
        "start",
        "end",
        "duration",
        "speaker",
        "lang",
        "task",
        "reply",
        "question",
        "align",
    ),
    *("untranscribed", "tar", "offset", "size"),
)
_LABEL_KEYS = {"name", "atom", "file", "spk_file", "values", "aliases", "ranges"}


class TaskTable(Mapping[str, Task]):
    """Task name -> task, in the order of the files.

    Attributes:
        fields: label field name -> label field.
    """

    def __init__(self, tasks: Mapping[str, Task], fields: Mapping[str, LabelField]):
        self._tasks = dict(tasks)
        self.fields = dict(fields)

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def find(self, name_or_tag: str) -> Task:
        """The task with this name (any case) or tag (blanks between its atoms or none).

        Raises:
            OsumError: no such task; lists the known ones.
        """
        for task in self._tasks.values():
            if task.is_called(name_or_tag):
                return task
        known = ", ".join(f"{t.name} {t.tag}" for t in self._tasks.values())
        raise OsumError(name_or_tag, "unknown task", f"use one of: {known}")

    def marks(self) -> list[str]:
        """Every fixed string an answer may contain, times aside: ``"<happy>"``, ``"<开始回答>"`` ..."""
        marks = [f"<{value}>" for label in self.fields.values() for value in label.values]
        return list(dict.fromkeys([*marks, REPLY_MARK]))

    def offered(self, sample: Mapping[str, Any]) -> list[Task]:
        """The tasks a sample dict has an answer for, in table order.

        Raises:
            OsumError: the sample names a task that is not in the table.
        """
        if sample.get("task"):
            try:
                return [self.find(sample["task"])]
            except OsumError as e:
                raise OsumError(str(sample.get("key", "")), f"unknown task {e.where!r}", e.mend) from None
        return [task for task in self._tasks.values() if task.supported_by(sample)]


def load_tasks(*extra_yaml: str | Path) -> TaskTable:
    """The built-in tasks and those of further files.

    An entry of a later file replaces the task of that name, so that prompts can be changed. The form
    is told at the head of ``tasks.yaml``.

    Raises:
        OsumError: file and key of whatever is not in that form.
    """
    entries: dict[str, tuple[str, dict[str, Any]]] = {}
    fields: dict[str, LabelField] = {}
    for path in (BUILT_IN, *extra_yaml):
        for name, entry in _read_yaml(path).items():
            where = f"{path}: {name}"
            if not isinstance(name, str) or name != name.lower() or not name.replace("_", "").isalnum():
                raise OsumError(where, "bad task name", "use lower-case letters, digits and _")
            _check_keys(entry, _TASK_KEYS, {"tag", "prompts"}, where)
            entries[name] = (where, entry)
            if "label" in entry:
                label = _label_field(entry["label"], f"{where}.label")
                fields[label.name] = label
    by_atom: dict[str, LabelField] = {}
    for label in fields.values():
        if label.atom in by_atom:
            both = f"{label.name} and {by_atom[label.atom].name}"
            raise OsumError(f"label {label.name}", f"{both} share the atom {label.atom}", "rename one")
        by_atom[label.atom] = label
    tasks: dict[str, Task] = {}
    for name, (where, entry) in entries.items():
        task = _task(name, entry, by_atom, where)
        twin = next((t.name for t in tasks.values() if t.atoms == task.atoms), None)
        if twin:
            raise OsumError(where, f"has the tag of {twin}", "give it a tag of its own")
        tasks[name] = task
    return TaskTable(tasks, fields)


def _read_yaml(path: str | Path) -> dict[Any, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise OsumError(str(path), "no tasks", "write an entry 'name: {tag: ..., prompts: ...}' a task")
    return content


def _check_keys(entry: Any, known: set[str], required: set[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise OsumError(where, f"{entry!r} is not a mapping", f"give it {', '.join(sorted(required))}")
    for key in entry:
        if key not in known:
            raise OsumError(f"{where}.{key}", "unknown key", f"use one of {', '.join(sorted(known))}")
    for key in sorted(required - set(entry)):
        raise OsumError(f"{where}.{key}", "missing", "add it")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise OsumError(where, f"{value!r} is not a string", "quote it")
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise OsumError(where, f"{value!r} is not a list of strings", "write a YAML list")
    return tuple(_string(v, where) for v in value)


def _label_field(entry: Any, where: str) -> LabelField:
    _check_keys(entry, _LABEL_KEYS, {"name", "atom", "values"}, where)
    name = _string(entry["name"], f"{where}.name")
    if name in _SAMPLE_KEYS or not name.isidentifier():
        raise OsumError(f"{where}.name", f"bad label name {name!r}", "use a new word of letters and _")
    atom = _string(entry["atom"], f"{where}.atom")
    if tag_atoms(f"<{atom}>") != (atom,) or atom in (TRANSCRIBE, ALIGN, CHAT):
        raise OsumError(f"{where}.atom", f"bad atom {atom!r}", "use a new upper-case word")
    values = tuple(process_text(v) for v in _strings(entry["values"], f"{where}.values"))
    if len(set(values)) < len(values):
        raise OsumError(f"{where}.values", "a value is given twice", "drop one")
    for value in values:
        if "<" in value or ">" in value or f"<{value}>" == REPLY_MARK:
            raise OsumError(f"{where}.values", f"{value!r} cannot stand in a tag", "rename it")
    for key in ("aliases", "ranges"):
        if not isinstance(entry.get(key) or {}, dict):
            raise OsumError(f"{where}.{key}", f"{entry[key]!r:.80} is not a mapping", "write {name: ...}")
    aliases = {}
    for alias, value in (entry.get("aliases") or {}).items():
        aliases[str(alias)] = _one_of(process_text(_string(value, f"{where}.aliases")), values, where)
    ranges = {}
    for value, bounds in (entry.get("ranges") or {}).items():
        if not isinstance(bounds, list) or [type(b) in (int, float) for b in bounds] != [True, True]:
            raise OsumError(f"{where}.ranges.{value}", f"{bounds!r} is no range", "write [low, high]")
        ranges[_one_of(process_text(str(value)), values, where)] = (float(bounds[0]), float(bounds[1]))
    return LabelField(
        name=name,
        atom=atom,
        file=_string(entry.get("file", f"utt2{name}"), f"{where}.file"),
        values=values,
        spk_file=_string(entry["spk_file"], f"{where}.spk_file") if "spk_file" in entry else None,
        aliases=aliases,
        ranges=ranges,
    )


def _one_of(value: str, values: tuple[str, ...], where: str) -> str:
    if value not in values:
        raise OsumError(where, f"{value!r} is not among the values", f"use one of {', '.join(values)}")
    return value


def _task(name: str, entry: dict[str, Any], by_atom: dict[str, LabelField], where: str) -> Task:
    atoms = tag_atoms(_string(entry["tag"], f"{where}.tag"))
    known = (TRANSCRIBE, ALIGN, CHAT, *by_atom)
    for atom in atoms:
        if atom not in known:
            mend = f"define it under label, or use one of {', '.join(known)}"
            raise OsumError(f"{where}.tag", f"unknown atom {atom}", mend)
    if not atoms or len(set(atoms)) < len(atoms):
        raise OsumError(f"{where}.tag", f"{entry['tag']!r} is no tag", "write e.g. <TRANSCRIBE> <EMOTION>")
    if ALIGN in atoms and TRANSCRIBE not in atoms:
        raise OsumError(f"{where}.tag", "ALIGN without TRANSCRIBE", "write <TRANSCRIBE> <ALIGN>")
    fields = tuple(by_atom[a] for a in atoms if a in by_atom)
    if "label" in entry and entry["label"]["atom"] not in atoms:
        raise OsumError(f"{where}.tag", f"lacks its label's atom {entry['label']['atom']}", "add it")
    for label in fields:
        if ALIGN in atoms and any(timed.is_time(v) for v in label.values):
            raise OsumError(f"{where}.tag", f"a value of {label.name} reads as a time", "rename the value")
    prompts = entry["prompts"]
    if not isinstance(prompts, dict) or not prompts:
        raise OsumError(f"{where}.prompts", "no prompts", "write {zh: [...], en: [...]}")
    wordings = {str(lang): _strings(p, f"{where}.prompts.{lang}") for lang, p in prompts.items()}
    return Task(name, atoms, fields, wordings)
