"""A small decode to make the report of, and the report read as a tree."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import soundfile as sf

from wenet_osum.bin.score import main

VOID = {"meta", "link", "br", "input", "img"}


class Node:
    def __init__(self, tag: str, attrs: dict[str, str]):
        self.tag, self.attrs, self.children = tag, attrs, []

    def walk(self):
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()

    def find(self, tag: str, **attrs: str) -> list[Node]:
        def fits(node: Node) -> bool:
            return all(value in node.attrs.get(name.rstrip("_"), "").split() for name, value in attrs.items())

        return [node for node in self.walk() if node.tag == tag and fits(node)]

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)


class Tree(HTMLParser):
    """The page as a tree; an element that is not closed in its place is an error."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.stack = [self.root]
        self.feed(html)
        self.close()
        assert self.stack == [self.root]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].children.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag, attrs):
        self.stack[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop().tag == tag

    def handle_data(self, data):
        self.stack[-1].children.append(data)


REFS = [
    {
        **{
            "key": "a",
            "txt": "the cat sat",
            "emotion": "happy",
            "speaker": "s1",
            "duration": 1.0,
            "lang": "en",
        },
        **{
            "gender": "f",
            "reply": "on a mat",
            "align": [[0.1, 0.3, "the"], [0.3, 0.5, "cat"], [0.5, 0.9, "sat"]],
        },
    },
    {
        **{"key": "b", "txt": "你好", "emotion": "sad", "speaker": "s2", "duration": 2.0, "lang": "zh"},
        **{"gender": "m", "reply": "你好", "align": [[0.1, 0.3, "你"], [0.3, 0.5, "好"]]},
    },
    {
        "key": "c",
        "txt": "no",
        "emotion": "sad",
        "speaker": "s2",
        "duration": 3.5,
        "lang": "en",
        "gender": "m",
    },
]
ANSWERS = {
    "asr": "a the hat sat down\nb 你好\n",
    "ser": "a the cat sat<sad>\nb 你好<sad>\nc no<happy>\n",
    "srwt": "a <0.10>the<0.30><0.34>cat<0.50>\nb <0.10>你<0.30><0.30>好<0.50>\n",
    "sttc": "a the cat sat<开始回答>on the mat\nb 你好<开始回答>你好\n",
}
SHARES = {"a": {"happy": 0.2, "sad": 0.8}, "b": {"sad": 1.0}, "c": {"happy": 0.6, "sad": 0.4}}


def make(folder: Path, refs=REFS, answers=ANSWERS, seconds: float = 0.5) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for n, ref in enumerate(refs):
        wav = folder / f"{n}.wav"
        sf.write(wav, 0.1 * rng.standard_normal(int(16000 * seconds)), 16000)
        lines.append(json.dumps({"wav": str(wav), **ref}, ensure_ascii=False) + "\n")
    (folder / "data.list").write_text("".join(lines), encoding="utf-8")
    for task, text in answers.items():
        out = folder / "decode" / task / "llm_greedy"
        out.mkdir(parents=True)
        (out / "text").write_text(text, encoding="utf-8")
    if "ser" in answers:
        rows = [{"key": key, "probabilities": {"emotion": shares}} for key, shares in SHARES.items()]
        (folder / "decode/ser/llm_greedy/answers.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in rows)
        )
    return folder


def report(folder: Path, *flags: str) -> str:
    given_flags = ["--data", str(folder / "data.list"), "--decode_dir", str(folder / "decode"), *flags]
    assert main(["--resamples", "20", *given_flags]) == 0
    return (folder / "decode/report.html").read_text(encoding="utf-8")


def tree(html: str) -> Node:
    return Tree(html).root


def section(html: str, name: str) -> Node:
    (found,) = (node for node in tree(html).find("section") if node.attrs["id"] == name)
    return found


def audio(html: str) -> list[str]:
    return [node.attrs["src"] for node in tree(html).find("audio")]


def clip_file(src: str):
    head, _, data = src.partition(",")
    assert head == "data:audio/mpeg;base64"
    return io.BytesIO(base64.b64decode(data, validate=True))
