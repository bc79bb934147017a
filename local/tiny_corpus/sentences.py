"""The closed vocabulary of the demo corpus and the sentences, questions and replies made from it.

About 45 English words and 50 Mandarin characters; every character has a toneless pinyin syllable of its own,
so that a small model can tell them apart even in a monotonous voice. Each is said with its own tone, without
tone sandhi. The vocabulary is small and the combinations are many: a sentence of the test set is new, its
words are not.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

LANGUAGES = ("en", "zh")
SPLITS = ("train", "dev", "test")


class Sentence(NamedTuple):
    """text as it goes into the transcript; reply: the answer when the text is a question, otherwise None."""

    text: str
    reply: str | None = None


# animal -> (what it eats, where it lives): what a spoken question asks for
EN_FACTS = {
    "dog": ("meat", "house"),
    "horse": ("corn", "garden"),
    "bird": ("seeds", "jungle"),
    "fish": ("worms", "river"),
    "monkey": ("fruit", "jungle"),
    "elephant": ("corn", "river"),
}
EN_PLACES = ("house", "garden", "river", "jungle")
EN_FOODS = ("meat", "corn", "seeds", "worms", "fruit")
EN_ADJECTIVES = ("small", "brown", "yellow", "hungry")
EN_VERBS = ("runs", "sleeps", "jumps", "dances")
EN_ADVERBS = ("slowly", "again", "today")
EN_NAMES = ("mary", "peter")
EN_OPENINGS = ("", "", "please tell me ", "so ")
EN_ENDINGS = ("", "", "today", "again")

_READINGS = """
狗:gou3 马:ma3 鸟:niao3 鱼:yu2 猴:hou2 象:xiang4 家:jia1 山:shan1 林:lin2 海:hai3 肉:rou4 草:cao3 虫:chong2
果:guo3 米:mi3 大:da4 小:xiao3 白:bai2 红:hong2 跑:pao3 睡:shui4 唱:chang4 飞:fei1 今:jin1 明:ming2 天:tian1
请:qing3 问:wen4 你:ni3 说:shuo1 在:zai4 里:li3 我:wo3 们:men5 看:kan4 吃:chi1 爱:ai4 这:zhe4 只:zhi1 了:le5
跟:gen1 住:zhu4 他:ta1 的:de5 很:hen3 不:bu4 什:shen2 么:me5 哪:na3
"""
PINYIN = {pair[0]: pair[2:] for pair in _READINGS.split()}

ZH_FACTS = {
    "狗": ("肉", "家"),
    "马": ("草", "山"),
    "鸟": ("虫", "林"),
    "鱼": ("虫", "海"),
    "猴": ("果", "林"),
    "象": ("米", "山"),
}
ZH_PLACES = "家山林海"
ZH_FOODS = "肉草虫果米"
ZH_ADJECTIVES = ("大", "小", "白", "红")
ZH_VERBS = "跑睡唱飞"
ZH_TIMES = ("今天", "明天")
ZH_OPENINGS = ("", "", "请问", "你说")


def _pick(rng: np.random.Generator, items: tuple[str, ...] | str) -> str:
    return items[int(rng.integers(len(items)))]


def _english(rng: np.random.Generator) -> Sentence:
    animals = tuple(EN_FACTS)
    animal, adjective = _pick(rng, animals), _pick(rng, EN_ADJECTIVES)
    verb, adverb, place = _pick(rng, EN_VERBS), _pick(rng, EN_ADVERBS), _pick(rng, EN_PLACES)
    name, food = _pick(rng, EN_NAMES), _pick(rng, EN_FOODS)
    templates = (
        f"the {adjective} {animal} {verb} {adverb}",
        f"my {animal} {verb} near the {place}",
        f"{name} likes the {adjective} {animal}",
        f"{name} {verb} with my {animal} {adverb}",
        f"the {animal} eats {food} {adverb}",
        f"a {adjective} {animal} lives near the {place}",
        f"{name} eats {food} near the {place}",
    )
    return Sentence(_pick(rng, templates))


def _english_question(rng: np.random.Generator) -> Sentence:
    animal = _pick(rng, tuple(EN_FACTS))
    food, place = EN_FACTS[animal]
    adjective, opening, ending = _pick(rng, EN_ADJECTIVES), _pick(rng, EN_OPENINGS), _pick(rng, EN_ENDINGS)
    if rng.integers(2):
        text, reply = f"{opening}what does the {adjective} {animal} eat {ending}", f"the {animal} eats {food}"
    else:
        text, reply = (
            f"{opening}where does the {adjective} {animal} live {ending}",
            f"the {animal} lives near the {place}",
        )
    return Sentence(text.strip(), reply)


def _mandarin(rng: np.random.Generator) -> Sentence:
    animals = "".join(ZH_FACTS)
    animal, other = _pick(rng, animals), _pick(rng, animals)
    adjective, verb, place = _pick(rng, ZH_ADJECTIVES), _pick(rng, ZH_VERBS), _pick(rng, ZH_PLACES)
    food, time = _pick(rng, ZH_FOODS), _pick(rng, ZH_TIMES)
    templates = (
        f"{adjective}{animal}在{place}里{verb}",
        f"我们看{adjective}{animal}吃{food}",
        f"{time}{animal}爱吃{food}",
        f"这只{adjective}{animal}{verb}了",
        f"{animal}跟{other}住{place}里",
        f"他的{animal}很{adjective}",
        f"{time}{adjective}{animal}不{verb}",
    )
    return Sentence(_pick(rng, templates))


def _mandarin_question(rng: np.random.Generator) -> Sentence:
    animal = _pick(rng, "".join(ZH_FACTS))
    food, place = ZH_FACTS[animal]
    opening, time = _pick(rng, ZH_OPENINGS), _pick(rng, ("", *ZH_TIMES))
    adjective = _pick(rng, ZH_ADJECTIVES)
    if rng.integers(2):
        return Sentence(f"{opening}{time}{adjective}{animal}吃什么", f"{animal}吃{food}")
    return Sentence(f"{opening}{time}{adjective}{animal}住哪里", f"{animal}住{place}里")


_MAKERS = {
    ("en", False): _english,
    ("en", True): _english_question,
    ("zh", False): _mandarin,
    ("zh", True): _mandarin_question,
}


def split_of(text: str) -> str:
    """The only split in which this sentence may appear: by a hash of the text, so it holds for every size and
    seed."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
    return "test" if bucket < 15 else "dev" if bucket < 20 else "train"


def make_sentence(rng: np.random.Generator, language: str, question: bool, split: str) -> Sentence:
    """Draw a sentence of one split. language: "en" or "zh"; question: with a reply, or a plain statement
    without."""
    maker = _MAKERS[language, question]
    while True:  # a split holds at least one sentence in twenty
        sentence = maker(rng)
        if split_of(sentence.text) == split:
            return sentence


def spoken(text: str, language: str) -> str:
    """What espeak-ng is to read: the text, or the pinyin of its characters with a space between them. Pinyin,
    since espeak-ng has no reading for some characters and takes others together as one word, with one event
    for both."""
    return text if language == "en" else " ".join(PINYIN[character] for character in text)


def words_of(text: str, language: str) -> list[str]:
    """The units that get a line each in the ctm: English words, Mandarin characters."""
    return text.split() if language == "en" else list(text)
