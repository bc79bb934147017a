"""Constrained answers: whatever is written under the rules parses, and all that can be composed can be written."""

import json
import math
import string

import pytest
import torch
from helpers import write_units
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_tasks import one_word, plain_text
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from wenet_osum.decode.constrain import body_rule, label_choices, label_starts, reply_mark, text_rule
from wenet_osum.decode.constrain_timed import timed_rule
from wenet_osum.decode.pieces import Vocabulary, vocabulary_of
from wenet_osum.errors import OsumError
from wenet_osum.tasks import Answer, Task, TaskTable, Word, load_tasks
from wenet_osum.tasks.task import REPLY_MARK
from wenet_osum.text import CharTokenizer, HuggingFaceTokenizer, SentencepieceTokenizer
from wenet_osum.text.normalize import process_text
from wenet_osum.text.train_sentencepiece import fixed_symbols, train_sentencepiece

STEP = 0.04
TIMED = {
    "timed_gender": "<TRANSCRIBE> <ALIGN> <GENDER>",
    "timed_talk": "<TRANSCRIBE> <ALIGN> <AGE> <CAPTION> <S2TCHAT>",
}
TEXTS = ["hi there!", "where is the station?", "今天天气很好。", "it's 4 o'clock", "你好 world", "no, no."]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
)
NAMES = ("sentencepiece", "char", "char_times", "bytes", "qwen", "llama")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> TaskTable:
    """The tasks, and two whose labels follow timed words."""
    path = tmp_path_factory.mktemp("tasks") / "tasks.yaml"
    path.write_text(json.dumps({name: {"tag": t, "prompts": {"en": ["?"]}} for name, t in TIMED.items()}))
    return load_tasks(path)


@st.composite
def answers(draw, task: Task) -> Answer:
    """As they are composed, on the grid of times; without U+2581, a blank to sentencepiece."""
    written = Answer(labels={f.name: draw(st.sampled_from(f.values)) for f in task.fields})
    if task.align:
        words, start = [], 0
        for word in draw(st.lists(one_word.map(lambda s: s.replace("▁", "_")), max_size=8)):
            start += draw(st.integers(0, 60))
            words.append(Word(start * STEP, (start + draw(st.integers(0, 30))) * STEP, word))
        written.words = words
    elif task.transcript:
        written.text = draw(plain_text).replace("▁", "_")
    written.reply = draw(plain_text.filter(bool)).replace("▁", "_") if task.reply else None
    return written


def answers_to_train_on() -> list[str]:
    """Texts and composed answers of all tasks."""
    lines = []
    for n, text in enumerate(TEXTS * 4):
        for task in load_tasks().values():
            answer = Answer(labels={f.name: f.values[n % len(f.values)] for f in task.fields})
            if task.align:
                words = text.split()
                answer.words = [Word(i * 0.4, i * 0.4 + 0.37, w) for i, w in enumerate(words)]
            elif task.transcript:
                answer.text = text
            answer.reply = "ok then" if task.reply else None
            lines.append(task.compose(answer))
    return lines


def save(backend: Tokenizer, folder, **special) -> HuggingFaceTokenizer:
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return HuggingFaceTokenizer(folder)


def qwen_like(folder) -> HuggingFaceTokenizer:
    """Byte-level pieces that cross brackets and words, digits one by one, and more ids than pieces write."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(answers_to_train_on(), trainer)
    backend.add_tokens([AddedToken("<tool_call>", special=False)])
    return save(backend, folder, eos_token="<|endoftext|>", pad_token="<|im_end|>")


def llama_like(folder) -> HuggingFaceTokenizer:
    """Sentencepiece's form in a Hugging Face tokenizer: byte pieces, and a blank in front of all."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁"]
    pieces += sorted({*string.ascii_lowercase, *string.digits, *"<>.,!?'今天气你好"})
    merges = [("▁", "h"), ("t", "h"), ("th", "e"), ("o", "k"), ("你", "好"), (">", "<"), (".", "<")]
    vocab = {p: i for i, p in enumerate([*pieces, *("".join(m) for m in merges)])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    return save(backend, folder, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


def char_with_times(folder) -> CharTokenizer:
    """Characters, and times as one unit each; no brackets, dots or digits."""
    units = ["<blank>", "<unk>", "<sos/eos>", *fixed_symbols(load_tasks(), STEP, 2.0)]
    units += ["▁", *"abcdefghijklmnopqrstuvwxyz今天气你好'!"]
    path = folder / "units_times.txt"
    path.write_text("".join(f"{u} {i}\n" for i, u in enumerate(units)), encoding="utf-8")
    return CharTokenizer(path)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, hf_folder, table):
    folder = tmp_path_factory.mktemp("tokenizers")
    symbols = fixed_symbols(table, STEP, 8.0)
    train_sentencepiece(TEXTS * 20, folder / "tokenizer.model", 640, symbols)
    return {
        "sentencepiece": SentencepieceTokenizer(folder / "tokenizer.model"),
        "char": CharTokenizer(write_units(folder / "units.txt")),
        "char_times": char_with_times(folder),
        "bytes": HuggingFaceTokenizer(hf_folder),
        "qwen": qwen_like(folder / "qwen"),
        "llama": llama_like(folder / "llama"),
    }


def can_write(tokenizer, task: Task) -> bool:
    """Whether the tokenizer has the characters of a task's labels and mark."""
    try:
        label_choices(task, tokenizer)
        label_starts(task, tokenizer)
        return True
    except OsumError:
        return False


class Writer:
    """Writes at random what a rule allows: the likeliest of random logits, a taste of its own in each answer."""

    def __init__(self, vocabulary: Vocabulary, seed: int):
        self.rng = torch.Generator().manual_seed(seed)
        size = len(vocabulary.pieces)
        self.taste = 2 * torch.randn(size, generator=self.rng)
        marks = torch.tensor([bool(p and {*p} & {60, 62, 46}) for p in vocabulary.pieces])
        self.taste += 4 * torch.randn(1, generator=self.rng) * marks

    def draw(self, n: int) -> int:
        return int(torch.randint(n, (1,), generator=self.rng))

    def write(self, rule, eos: int, room: int) -> list[int]:
        written: list[int] = []
        while True:
            allowed = rule.allowed(room)
            assert len(allowed) and allowed.dtype == torch.int64
            logits = self.taste + 2 * torch.randn(len(self.taste), generator=self.rng)
            token = int(allowed[logits[allowed].argmax()])
            if token == eos or token in rule.ends:
                return written
            written.append(token)
            room -= 1
            assert room >= 1, "no room is left for the end"
            rule = rule.after(token)

    def answer(self, task: Task, tokenizer, duration: float) -> tuple[str, dict[str, str]]:
        """An answer in its parts, and the labels that were chosen."""
        vocabulary, eos = vocabulary_of(tokenizer), tokenizer.eos_id
        rule = body_rule(task, vocabulary, eos, label_starts(task, tokenizer), duration, STEP)
        ids: list[int] = []
        if rule is not None:
            ids = self.write(rule, eos, rule.least + self.draw(61 - min(rule.least, 60)))
        text = tokenizer.decode(ids)
        if task.align and (task.fields or task.reply):
            assert task.reply or task.parse(text).problems == [], text
            text = text[: task.label_span(text)[0]]
        choices, values = label_choices(task, tokenizer)
        chosen = self.draw(len(choices))
        if not task.align:
            text = tokenizer.decode(ids + choices[chosen])
        else:
            text += tokenizer.decode(choices[chosen])
        if task.reply:
            rule = text_rule(vocabulary, eos, nonempty=True)
            reply = self.write(rule, eos, rule.least + self.draw(59))
            text += tokenizer.decode(reply_mark(tokenizer) + reply)
        return text, values[chosen]


def test_constrained_always_parses(tokenizers, table):
    words, texts, names = 0, set(), set()
    able = [(n, t) for n in NAMES for t in table.values() if can_write(tokenizers[n], t)]
    timed = [(n, t) for n, t in able if t.align]  # the hardest: half of the answers
    for seed in range(2000):
        pairs = timed if seed % 2 else able
        name, task = pairs[(seed // 2) % len(pairs)]
        writer = Writer(vocabulary_of(tokenizers[name]), seed)
        duration = (0.0, 0.03, 0.5, 1.99, 7.3, 130.0)[writer.draw(6)]
        text, labels = writer.answer(task, tokenizers[name], duration)
        answer = task.parse(text)
        assert answer.problems == [], (name, task.name, text)
        assert answer.labels == labels
        for word in answer.words or ():
            assert 0 <= word.start <= word.end <= math.ceil(duration / STEP - 1e-6) * STEP + 1e-9
        words += len(answer.words or ())
        texts.add(text)
        names.add((name, task.name))
    assert words > 1000 and len(texts) > 1000 and len(names) == len(able)


@pytest.mark.parametrize("name", NAMES)
def test_every_room_is_enough_for_timed_words(tokenizers, table, name):
    """From the smallest room on; as soon as there is room for a word, a word can be written."""
    tokenizer = tokenizers[name]
    vocabulary, eos, task = vocabulary_of(tokenizer), tokenizer.eos_id, table["srwt"]
    first = timed_rule(vocabulary, eos, 1.7, STEP)
    assert first.allowed(1).tolist() == [eos]
    longest = 0
    for room in range(1, 40):
        writer = Writer(vocabulary, room)
        writer.taste[eos] = -100  # ends only where it must
        text = tokenizer.decode(writer.write(first, eos, room))
        answer = task.parse(text)
        assert not answer.problems, text
        longest = max(longest, len(answer.words))
    assert longest >= 1


def reached(rule, ids: list[int], eos: int) -> None:
    """Asserts that every id, then the end, is allowed in its place."""
    for n, token in enumerate(ids):
        assert token in rule.allowed(200), (n, token)
        rule = rule.after(token)
    assert eos in rule.allowed(200) and eos in rule.allowed(1) and rule.least == 1


def crosses(vocabulary: Vocabulary, ids: list[int]) -> bool:
    """Whether a piece reaches from a text into the label or mark behind it."""
    return any((p := vocabulary.pieces[i]) and b"<" in p and not p.startswith(b"<") for i in ids)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_every_composed_answer_can_be_written(tokenizers, table, name, data):
    tokenizer = tokenizers[name]
    task = data.draw(st.sampled_from(list(table.values())))
    answer = data.draw(answers(task))
    vocabulary, eos = vocabulary_of(tokenizer), tokenizer.eos_id
    text = task.compose(answer, STEP)
    # A tokenizer may lack a character, or change it (NFC).
    assume(can_write(tokenizer, task) and process_text(tokenizer.decode(tokenizer.encode(text))) == text)
    start, end = task.label_span(text)
    body, reply = text[:start], text[end:].removeprefix(REPLY_MARK)
    starts = label_starts(task, tokenizer)
    duration = max((w.end for w in answer.words or ()), default=0.0)
    rule = body_rule(task, vocabulary, eos, starts, duration, STEP)
    if task.align:
        body = text[: len(text) - len(reply)]  # labels and mark as well
    if rule is not None:
        reached(rule, tokenizer.encode(body), eos)
    choices, values = label_choices(task, tokenizer)
    assert process_text(tokenizer.decode(choices[values.index(answer.labels)])) == text[start:end]
    if task.reply:
        reached(text_rule(vocabulary, eos, nonempty=True), tokenizer.encode(reply), eos)
    whole = tokenizer.encode(text)
    if rule is not None and starts and not task.align and not crosses(vocabulary, whole):
        # as the model learned it: the body's ids, then one that ends it
        for token in whole:
            assert token in rule.allowed(200)
            if token in starts:
                break
            rule = rule.after(token)
        else:
            raise AssertionError("the labels' first id never came")


def test_text_is_never_half_a_character(tokenizers):
    for name in ("bytes", "qwen", "llama", "sentencepiece"):
        tokenizer = tokenizers[name]
        vocabulary, eos = vocabulary_of(tokenizer), tokenizer.eos_id
        of = {p: i for i, p in enumerate(vocabulary.pieces) if p}
        begun = of[b"\xe4"]
        rule = text_rule(vocabulary, eos)
        assert begun in rule.allowed(4) and begun not in rule.allowed(3)
        after = rule.after(begun)
        assert all(0x80 <= vocabulary.pieces[i][0] < 0xC0 for i in after.allowed(9).tolist())
        assert eos not in after.allowed(9)
        with pytest.raises(ValueError):
            after.after(of[b"a"])
        for token in (of[b"<"], of[b">"]):
            assert token not in rule.allowed(9)
            with pytest.raises(ValueError):
                rule.after(token)


def test_a_reply_is_never_blank(tokenizers):
    tokenizer = tokenizers["bytes"]
    vocabulary, eos = vocabulary_of(tokenizer), tokenizer.eos_id
    of = {p: i for i, p in enumerate(vocabulary.pieces) if p}
    rule = text_rule(vocabulary, eos, nonempty=True)
    for blank in b" \n\xe3\x80\x80":  # the last three bytes are U+3000
        assert eos not in rule.allowed(9)
        rule = rule.after(of[bytes([blank])])
    assert eos not in rule.allowed(9) and eos in rule.after(of[b"a"]).allowed(9)
    assert of[b" "] not in text_rule(vocabulary, eos, nonempty=True).allowed(2).tolist()


def test_times_stay_in_order_and_within_the_audio(tokenizers, table):
    for name in ("qwen", "bytes", "char", "llama"):
        tokenizer = tokenizers[name]
        vocabulary, eos = vocabulary_of(tokenizer), tokenizer.eos_id
        form = timed_rule(vocabulary, eos, 1.21, STEP).form  # up to 1.24
        start = timed_rule(vocabulary, eos, 1.21, STEP).state

        def fits(text: str, form=form, start=start, eos=eos) -> bool:
            state = form.walk(start, text.encode())
            return state is not None and eos in form.allowed(state, 99)

        for text in (
            "",
            "<0.00>a<0.2>",
            "<0>a<1>",
            "<1.24>a<1.24>",
            "<0.4>a<1><0.4>b<0.5>",
            "<0.50>a.<0.60>",
        ):
            assert fits(text), text
            assert not table["srwt"].parse(text).problems
        for text in (
            *(
                "<0.5>a<0.4>",
                "<0.5>a<0.6><0.4>b<0.7>",
                "<1.25>a<1.3>",
                "<2>a<3>",
                "<0.5>a<1.25>",
                "<0.5>a b<0.6>",
            ),
            *(
                "<0.5>a",
                "<0.5>",
                "<0.5",
                "<",
                "a",
                "<0.5><0.6>",
                "<a>b<0.6>",
                "<00.5>a<1>",
                "<.5>a<1>",
                "<0.>a<1>",
            ),
            *("<0.5>\u3000<0.6>", "<0.5>a<0.6>b", "<0.555>a<0.6>"),
        ):
            assert not fits(text), text


def test_whole_times_are_offered_in_one_piece(tokenizers):
    tokenizer = tokenizers["sentencepiece"]
    vocabulary, eos, of = vocabulary_of(tokenizer), tokenizer.eos_id, tokenizer.symbol_table
    rule = timed_rule(vocabulary, eos, 1.0, STEP).after(of["<0.40>"]).after(tokenizer.encode("hi")[0])
    offered = {tokenizer.decode([i]) for i in rule.allowed(9).tolist()}
    assert {t for t in offered if t.startswith("<")} == {"<"} | {
        f"<{n / 100:.2f}>" for n in range(40, 101, 4)
    }
    assert rule.allowed(2).tolist() == [of[f"<{n / 100:.2f}>"] for n in range(40, 101, 4)]


def test_labels_are_as_they_follow_a_word(tokenizers, table):
    for tokenizer in tokenizers.values():
        choices, values = label_choices(table["age_gender"], tokenizer)
        assert len(choices) == len(values) == 6 == len({tuple(c) for c in choices})
        for ids, value in zip(choices, values):
            assert table["age_gender"].parse(tokenizer.decode(tokenizer.encode("hi") + ids)).labels == value
    llama = tokenizers["llama"]
    assert llama.decode([label_choices(table["sgc"], llama)[0][0][0]]) == "<"
    assert llama.text2tokens("<male>")[0] == "▁"
    assert label_choices(table["sgc_only"], llama)[0][1] == llama.encode("<male>")
    assert label_choices(table["asr"], llama) == ([[]], [{}])
    assert label_starts(table["asr"], llama) == set()
    assert len(label_choices(table["ser"], tokenizers["sentencepiece"])[0][0]) == 1


def test_vocabulary_says_what_ids_write(tokenizers):
    for name, tokenizer in tokenizers.items():
        vocabulary = vocabulary_of(tokenizer)
        assert vocabulary is vocabulary_of(tokenizer)
        assert (
            len(vocabulary.pieces) == tokenizer.vocab_size() and vocabulary.pieces[tokenizer.eos_id] is None
        )
        for i, piece in enumerate(vocabulary.pieces):
            if piece is None:
                continue
            text = tokenizer.decode([*tokenizer.encode("a"), i]).removeprefix("a")
            if "\ufffd" not in text:
                assert text.encode() == piece, (name, i)
    qwen = tokenizers["qwen"]
    assert vocabulary_of(qwen).pieces[qwen.symbol_table["<tool_call>"]] == b"<tool_call>"
    assert vocabulary_of(qwen).pieces[qwen.symbol_table["<|im_end|>"]] is None


def test_no_character_becomes_a_bracket():
    every = "".join(c for c in map(chr, range(0x110000)) if c not in "<>" and not 0xD800 <= ord(c) < 0xE000)
    assert not {*"<>"} & {*process_text(every)}


def test_bad_input_constraints(tokenizers, table, tmp_path):
    conf = tmp_path / "tasks.yaml"
    labels = [[f"v{i}" for i in range(40)], [f"w{i}" for i in range(26)]]
    entries = {
        f"t{n}": {
            "tag": f"<X{n}>",
            "prompts": {"en": ["?"]},
            "label": {"name": f"x{n}", "atom": f"X{n}", "values": values},
        }
        for n, values in enumerate(labels)
    }
    conf.write_text(json.dumps({**entries, "both": {"tag": "<X0> <X1>", "prompts": {"en": ["?"]}}}))
    with pytest.raises(OsumError, match="task both: .* 1,040 combinations, over 1,000; .*--no_constrain"):
        label_choices(load_tasks(conf)["both"], tokenizers["bytes"])

    path = tmp_path / "units.txt"
    path.write_text("<blank> 0\n<unk> 1\n<sos/eos> 2\na 3\nb 4\n")
    bare = CharTokenizer(path)
    with pytest.raises(OsumError, match="the tokenizer: cannot write <sad>"):
        label_choices(table["ser"], bare)
    with pytest.raises(OsumError, match="has neither whole times"):
        timed_rule(vocabulary_of(bare), 2, 1.0)
    with pytest.raises(OsumError, match="eos: 3: writes b'a'"):
        text_rule(vocabulary_of(bare), 3)
    for joint, match in ((" ", "inside words and times"), ("<", "kept for tags")):
        with pytest.raises(OsumError, match=match):
            timed_rule(Vocabulary(CharTokenizer(path, connect_symbol=joint)), 2, 1.0)
