"""Small tokenizers of every kind, for the rules of constrained answers."""

import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from wenet_osum.tasks import Answer, Word, load_tasks
from wenet_osum.text import CharTokenizer, HuggingFaceTokenizer
from wenet_osum.text.train_sentencepiece import fixed_symbols

STEP = 0.04
TEXTS = ["hi there!", "where is the station?", "今天天气很好。", "it's 4 o'clock", "你好 world", "no, no."]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
)
# Pieces that end and begin within times, words, characters and labels.
AWKWARD = [
    b"><",
    b"<0.",
    b"0>",
    b"!<",
    b">ab",
    b">\xe4",
    b">\xf0\x9f",
    b"\xbd<",
    b"\x80\x80",
    b"\x80a<",
    b".4",
    b"<1.20>",
]
AWKWARD += [
    b"<0.00>",
    b"<male",
    b"old>",
    b"><f",
    b" <",
    b" ",
    b"a b",
    b">a b",
    b"0>a",
    b"a<1",
    b"<1>b<2",
    b"\xe4\xbd",
    b"00",
]


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


def byte_level(folder, pieces: list[bytes]) -> HuggingFaceTokenizer:
    """A vocabulary of given pieces; it encodes to single bytes."""
    form = bytes_to_unicode()
    vocab = {"".join(form[b] for b in piece): i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return save(backend, folder, eos_token="<|endoftext|>")


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
