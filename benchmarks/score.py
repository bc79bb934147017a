"""``osum score`` on 100,000 utterances: seconds and memory.

    python benchmarks/score.py [--utterances 100000] [--tasks asr,srwt,ved,ser,ssr,sgc,sap,sttc] [--each]

Makes, in a temporary folder, a raw list of utterances that carry every label, and a decode of it. Half of the
utterances are English of 5 to 35 words, half Chinese of 6 to 26 characters, as LibriSpeech and AISHELL have them;
replies are of 5 to 40 words or characters. An answer has each token wrong, missing or twice with 2 % each, a label
right with 75 %; 1 % of the answers are missing and 1 % have no answer's form.

Without ``--each`` the utterances are dealt out to the tasks, an eighth for each of the eight: so many answers as
utterances. With it every utterance is answered in every task: eight times as many. Then runs the command as a process
of its own, with alignment, error rates of every transcript and 1,000 draws for every interval; prints its
wall-clock and CPU seconds, and its peak memory: the largest sum of the proportional set sizes of its processes,
looked at five times a second.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package beside this program

from wenet_osum.tasks import Task, load_tasks  # noqa: E402

EIGHT = "asr,srwt,ved,ser,ssr,sgc,sap,sttc"
HAN = [chr(0x4E00 + 7 * i) for i in range(2500)]
SYLLABLES = [
    "ba",
    "con",
    "der",
    "fi",
    "gal",
    "in",
    "ker",
    "lo",
    "men",
    "no",
    "per",
    "qui",
    "ra",
    "so",
    "ter",
    "un",
]
LOOK = 0.2  # seconds between two looks at the memory


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--tasks", default=EIGHT)
    parser.add_argument("--each", action="store_true", help="every utterance answered in every task")
    parser.add_argument("--seed", type=int, default=0)
    args, args.flags = parser.parse_known_args()  # others go to osum score
    return args


def words_of(rng: random.Random, chinese: bool, fewest: int, most: int) -> list[str]:
    """Common words are common: a draw of two, the smaller number."""
    count = rng.randint(fewest, most)
    if chinese:
        return [HAN[min(rng.randrange(2500), rng.randrange(2500))] for _ in range(count)]
    return ["".join(rng.choices(SYLLABLES, k=rng.choice((1, 1, 2, 3)))) for _ in range(count)]


def heard(rng: random.Random, words: list[str]) -> list[str]:
    answer = []
    for word in words:
        kind = rng.random()
        if kind < 0.02:
            answer.append(rng.choice(words))
        elif kind > 0.98:
            answer += [word, word]
        elif kind < 0.96:
            answer.append(word)
    return answer or words


def reference(rng: random.Random, n: int, tasks: Any) -> dict[str, Any]:
    chinese = bool(n % 2)
    words = words_of(rng, chinese, 6, 26) if chinese else words_of(rng, chinese, 5, 35)
    at, align = 0.0, []
    for word in words:
        end = round(at + rng.uniform(0.1, 0.4), 2)
        align.append([at, end, word])
        at = end
    sample: dict[str, Any] = {"key": f"utt{n:08d}", "wav": f"wav/{n}.wav", "lang": "zh" if chinese else "en"}
    sample |= {"txt": ("" if chinese else " ").join(words), "align": align}
    sample |= {field.name: rng.choice(field.values) for field in tasks.fields.values()}
    return sample | {"reply": ("" if chinese else " ").join(words_of(rng, chinese, 5, 40))}


def answer(rng: random.Random, task: Task, ref: dict[str, Any]) -> str | None:
    kind = rng.random()
    if kind < 0.01:
        return None
    if kind < 0.02:
        return "<" + ref["txt"]
    join = "" if ref["lang"] == "zh" else " "
    if task.align:
        align = [(s, e, w) for s, e, w in ref["align"] if rng.random() > 0.02]
        moved = [
            (abs(s + rng.gauss(0, 0.02)), e, rng.choice(HAN) if rng.random() < 0.02 else w)
            for s, e, w in align
        ]
        return "".join(f"<{s:.2f}>{w}<{e:.2f}>" for s, e, w in moved)
    text = join.join(heard(rng, [w for _, _, w in ref["align"]]))
    for field in task.fields:
        text += f"<{ref[field.name] if rng.random() < 0.75 else rng.choice(field.values)}>"
    if task.reply:
        reply = ref["reply"].split() if join else list(ref["reply"])
        text += "<开始回答>" + join.join(w if rng.random() < 0.6 else rng.choice(reply) for w in reply)
    return text


def write(folder: Path, args: argparse.Namespace) -> int:
    """Returns the number of answers."""
    rng = random.Random(args.seed)
    table = load_tasks()
    tasks = [table[name] for name in args.tasks.split(",")]
    outs = []
    for task in tasks:
        path = folder / "decode" / task.name / "llm_greedy" / "text"
        path.parent.mkdir(parents=True)
        outs.append(open(path, "w", encoding="utf-8"))
    answers = 0
    with open(folder / "data.list", "w", encoding="utf-8") as f:
        for n in range(args.utterances):
            ref = reference(rng, n, table)
            chosen = range(len(tasks)) if args.each else [n // 2 % len(tasks)]
            for i in chosen:
                if (text := answer(rng, tasks[i], ref)) is not None:
                    outs[i].write(f"{ref['key']} {text}\n")
                    answers += 1
            if not args.each:
                ref |= {
                    "task": tasks[chosen[0]].tag,
                    "txt": tasks[chosen[0]].compose(tasks[chosen[0]].answer_of(ref)),
                }
                ref = {k: ref[k] for k in ("key", "wav", "lang", "task", "txt")}
            f.write(json.dumps(ref, ensure_ascii=False) + "\n")
    for out in outs:
        out.close()
    return answers


def memory(root: int) -> float:
    """MB of a process and its children, pages that they share counted once."""
    total, pids = 0, [root]
    while pids:
        pid = pids.pop()
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except (OSError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main() -> None:
    args = get_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answers = write(folder, args)
        command = [sys.executable, "-m", "wenet_osum.bin.score", "--data", folder / "data.list"]
        command += ["--decode_dir", folder / "decode", *args.flags]
        begin = time.perf_counter()
        process = subprocess.Popen([str(word) for word in command], cwd=ROOT)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(LOOK)
        seconds = time.perf_counter() - begin
        if process.returncode:
            raise SystemExit(process.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{args.utterances} utterances, {answers} answers: {seconds:.1f} s"
        f" (CPU {used.ru_utime + used.ru_stime:.1f} s), peak {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
