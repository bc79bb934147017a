"""Tasks: what answers look like, that they come back whole, and what is refused."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.dataset.kaldi import read_data_dir
from wenet_osum.errors import OsumError
from wenet_osum.tasks import Answer, Word, load_tasks
from wenet_osum.text.normalize import join_words, process_text

TABLE = load_tasks()
EIGHT = {
    "asr": "<TRANSCRIBE>",
    "srwt": "<TRANSCRIBE> <ALIGN>",
    "ved": "<TRANSCRIBE> <CAPTION>",
    "ser": "<TRANSCRIBE> <EMOTION>",
    "ssr": "<TRANSCRIBE> <STYLE>",
    "sgc": "<TRANSCRIBE> <GENDER>",
    "sap": "<TRANSCRIBE> <AGE>",
    "sttc": "<TRANSCRIBE> <S2TCHAT>",
}

any_text = st.one_of(
    st.text(alphabet="ab' 你好，.Σİ\u3000\t新"),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<>")),
)
plain_text = any_text.map(process_text)
one_word = any_text.map(lambda s: process_text("".join(s.split()))).filter(bool)


@st.composite
def timed_words(draw, step: int) -> list[Word]:
    """Words on a grid of ``step`` hundredths; neighbours may overlap."""
    words, start = [], 0
    for word in draw(st.lists(one_word, max_size=8)):
        start += draw(st.integers(0, 200))
        length = draw(st.integers(0, 100))
        words.append(Word(start * step / 100, (start + length) * step / 100, word))
    return words


@st.composite
def task_and_answer(draw, step: int):
    task = draw(st.sampled_from(list(TABLE.values())))
    answer = Answer(labels={f.name: draw(st.sampled_from(f.values)) for f in task.fields})
    if task.align:
        answer.words = draw(timed_words(step))
        answer.text = join_words([w.word for w in answer.words])
    elif task.transcript:
        answer.text = draw(plain_text)
    if task.reply:
        answer.reply = draw(plain_text.filter(bool))
    return task, answer


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 4, 10]))
def test_label_round_trip(data, step):
    task, answer = data.draw(task_and_answer(step))
    text = task.compose(answer, time_step=step / 100)
    assert task.parse(text) == answer
    assert process_text(text) == text


@settings(deadline=None)
@given(st.data())
def test_label_round_trip_of_what_is_not_normal_yet(data):
    task, answer = data.draw(task_and_answer(1))
    if task.transcript and not task.align:
        answer.text = data.draw(any_text)
    read = task.parse(task.compose(answer, time_step=0.04))
    assert read == task.normalize(answer, time_step=0.04)
    assert not read.problems


def test_label_round_trip_of_every_value():
    for task in TABLE.values():
        for label in task.fields:
            for value in label.values:
                others = {f.name: f.values[-1] for f in task.fields} | {label.name: value}
                answer = Answer("" if task.transcript else None, others)
                assert task.parse(task.compose(answer)) == answer


soup = st.lists(
    st.one_of(
        st.sampled_from(
            ["<", ">", "<0.20>", "<0.40>", "<1.00>", "<happy>", "<male>", "<old>", "<other>", "hi", " ", "你"]
        ),
        st.sampled_from(["<开始回答>", "<MALE>", "<>", "<<", "<f>"]),
        st.text(max_size=4),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(soup, st.sampled_from(list(TABLE.values())))
def test_parse_never_raises_and_silence_means_well_formed(text, task):
    answer = task.parse(text)
    if not answer.problems:
        assert task.parse(task.compose(answer)) == answer


def test_tags_are_osums():
    assert {name: TABLE[name].tag for name in EIGHT} == EIGHT
    assert TABLE["style_age_gender"].tag == "<TRANSCRIBE> <STYLE> <AGE> <GENDER>"
    assert TABLE["age_gender_only"].tag == "<AGE> <GENDER>"


@pytest.mark.parametrize(
    "name, answer, written",
    [
        ("asr", Answer("Hello  你 好"), "hello你好"),
        ("ser", Answer("What a day", {"emotion": "happy"}), "what a day<happy>"),
        ("ved", Answer(labels={"event": "throat clearing"}), "<throat clearing>"),
        ("ssr", Answer("天 晴", {"style": "新闻科普"}), "天晴<新闻科普>"),
        ("age_gender", Answer("hi", {"gender": "male", "age": "old"}), "hi<old><male>"),
        ("age_gender_only", Answer(None, {"gender": "male", "age": "old"}), "<old><male>"),
        ("sttc", Answer("你 是 谁", reply="我是 OSUM"), "你是谁<开始回答>我是osum"),
        (
            "srwt",
            Answer(words=[Word(0, 0.2, "新"), Word(0.2, 0.417, "Year's")]),
            "<0.00>新<0.20><0.20>year's<0.42>",
        ),
    ],
)
def test_compose(name, answer, written):
    assert TABLE[name].compose(answer) == written


def test_times_are_rounded_to_the_step():
    words = [Word(0.01, 0.119, "a"), Word(0.13, 0.151, "b")]
    assert TABLE["srwt"].compose(Answer(words=words), time_step=0.04) == "<0.00>a<0.12><0.12>b<0.16>"


@pytest.mark.parametrize(
    "name, answer, complaint",
    [
        ("asr", Answer("a<b"), "'<' or '>'"),
        ("asr", Answer("a", {"emotion": "sad"}), "labels"),
        ("asr", Answer("a", reply="b"), "part 'reply'"),
        ("asr", Answer("a", problems=["odd"]), "odd"),
        ("ser", Answer("a"), "labels"),
        ("ser", Answer("a", {"emotion": "bored"}), "unknown emotion 'bored'"),
        ("ser", Answer("a", {"emotion": "angry"}), "unknown emotion"),  # an alias is not canonical
        ("ser_only", Answer("a", {"emotion": "sad"}), "part 'text'"),
        ("sttc", Answer("a"), "no part 'reply'"),
        ("sttc", Answer("a", reply=" "), "empty reply"),
        ("srwt", Answer("a"), "no part 'words'"),
        ("srwt", Answer(words=[Word(0.5, 0.4, "a")]), "go back"),
        ("srwt", Answer(words=[Word(0.5, 0.6, "a"), Word(0.4, 0.7, "b")]), "go back"),
        ("srwt", Answer(words=[Word(0, 1, "a b")]), "not one word"),
        ("srwt", Answer(words=[Word(0, 1, "")]), "not one word"),
        ("srwt", Answer(words=[Word(0, 1, "<")]), "not one word"),
        ("srwt", Answer(words=[Word(-1, 1, "a")]), "no time"),
        ("srwt", Answer(words=[Word(0, float("nan"), "a")]), "no time"),
        ("srwt", Answer("b", words=[Word(0, 1, "a")]), "agree"),
    ],
)
def test_bad_input_to_compose(name, answer, complaint):
    with pytest.raises(OsumError, match=complaint):
        TABLE[name].compose(answer)


@pytest.mark.parametrize("step", [0, -0.01, 0.005, 0.015, float("nan"), float("inf")])
def test_bad_input_time_step(step):
    with pytest.raises(OsumError, match="multiple of 0.01"):
        TABLE["srwt"].compose(Answer(words=[]), time_step=step)


@pytest.mark.parametrize(
    "name, text, sure, problem",
    [
        ("asr", "hello<happy>", Answer("hello"), "<happy>"),
        ("asr", "hello<hap", Answer("hello"), "stray"),
        ("ser", "hello", Answer("hello"), "missing"),
        ("ser", "hello<glad>", Answer("hello"), "<glad>"),
        ("ser", "hello<happy>hello<happy>", Answer("hello", {"emotion": "happy"}), "'hello'"),
        ("ser", "hello<happy><sad>", Answer("hello"), "<happy><sad>"),
        ("age_gender", "hi<male><old>", Answer("hi", {"age": "old", "gender": "male"}), "<age><gender>"),
        ("age_gender", "hi<male>", Answer("hi", {"gender": "male"}), "<age><gender>"),
        ("ser_only", "hi<sad>", Answer(None, {"emotion": "sad"}), "only labels"),
        ("sttc", "hi", Answer("hi"), "开始回答"),
        ("sttc", "hi<开始回答>", Answer("hi", reply=""), "no reply"),
        ("sttc", "hi<开始回答>yes<开始回答>", Answer("hi", reply="yes"), "marks"),
        ("srwt", "<0.00>a<0.20><0.20>b", Answer("a b", words=[Word(0, 0.2, "a")]), "'<0.20>b'"),
        ("srwt", "<0.00>a b<0.20>", Answer("a b", words=[]), "more than one word"),
        ("srwt", "<0.40>a<0.20>", Answer("a", words=[]), "go back"),
        ("srwt", "<0.40>a<0.60><0.1>b<0.7>", Answer("a b", words=[Word(0.4, 0.6, "a")]), "go back"),
        ("srwt", "a b", Answer("a b", words=[]), "not a timed word"),
    ],
)
def test_parse_of_the_malformed(name, text, sure, problem):
    answer = TABLE[name].parse(text)
    assert problem in "; ".join(answer.problems)
    answer.problems = []
    assert answer == sure


def test_parse_reads_osums_own_output():
    answer = TABLE["srwt"].parse("<0.00>新<0.2><0.20> Year <0.4><1.73>万<1.97><1.96>事<2.29>")
    assert answer.problems == []
    assert answer.text == "新year万事"
    assert answer.words == [
        Word(0, 0.2, "新"),
        Word(0.2, 0.4, "year"),
        Word(1.73, 1.97, "万"),
        Word(1.96, 2.29, "事"),
    ]
    assert TABLE["ssr"].parse("从前<悬疑恐怖>") == Answer("从前", {"style": "恐怖故事"})
    assert TABLE["sgc"].parse("hi <FEMALE>") == Answer("hi", {"gender": "female"})


@pytest.mark.parametrize(
    "asked", ["ser", "SER", "<TRANSCRIBE><EMOTION>", " <TRANSCRIBE> <EMOTION> ", "<transcribe><emotion>"]
)
def test_find(asked):
    assert TABLE.find(asked).name == "ser"


@pytest.mark.parametrize(
    "asked",
    ["", "sre", "<TRANSCRIBE> <ALING>", "<EMOTION> <TRANSCRIBE>", "<TRANSCRIBE", "TRANSCRIBE EMOTION"],
)
def test_bad_input_unknown_task(asked):
    with pytest.raises(OsumError, match="use one of: asr <TRANSCRIBE>, srwt"):
        TABLE.find(asked)


@pytest.mark.parametrize(
    "field, raw, value",
    [
        ("gender", "f", "female"),
        ("gender", "M", "male"),
        ("gender", "<MALE>", "male"),
        ("gender", "女", "female"),
        ("gender", "x", None),
        ("age", "23", "adult"),
        ("age", "13.9", "child"),
        ("age", "14", "adult"),
        ("age", "60", "old"),
        ("age", "-1", None),
        ("age", "nan", None),
        ("age", "1e9", None),
        ("age", "Old", "old"),
        ("event", "Throat_Clearing", "throat clearing"),
        ("event", "laughter", "laugh"),
        ("emotion", "Angry", "anger"),
        ("emotion", "3", None),
        ("style", "customer service", "客服"),
        ("style", "fairy-tale", "童话故事"),
        *[("style", raw, "新闻科普") for raw in ("朗读", "科普百科", "News")],
        *[("style", raw, "有声书") for raw in ("武侠评书", "小说", "历史", "科幻")],
        *[("style", raw, "诗歌散文") for raw in ("诗歌", "散文")],
        *[("style", raw, "日常口语") for raw in ("对话", "口语")],
        *[("style", raw, "其他") for raw in ("幽默", "其他")],
        ("style", "悬疑恐怖", "恐怖故事"),
    ],
)
def test_canonical(field, raw, value):
    assert TABLE.fields[field].canonical(raw) == value


def test_prompts():
    for task in TABLE.values():
        for lang in ("zh", "en"):
            assert len(set(task.prompts[lang])) >= 5
    asr = TABLE["asr"]
    assert asr.prompt("en", 7) == asr.prompts["en"][2]
    assert asr.prompt("fr", 0) == asr.prompts["zh"][0]
    everywhere = [p for t in TABLE.values() for lang in t.prompts for p in t.prompts[lang]]
    assert len(set(everywhere)) == len(everywhere)  # a prompt says which task is meant


def names(sample) -> list[str]:
    return [t.name for t in TABLE.offered(sample)]


def test_offered():
    assert names({"txt": "hi"}) == ["asr"]
    assert names({"txt": "", "event": "laugh"}) == ["ved", "ved_only"]
    assert names({"event": "laugh"}) == ["ved_only"]
    assert names({"txt": "hi", "reply": "yes"}) == ["asr", "sttc"]
    assert names({"txt": "", "reply": "yes"}) == []
    assert names({"txt": "hi", "align": [[0, 1, "hi"]]}) == ["asr", "srwt"]
    assert names({"txt": "hi", "age": "old", "gender": "m"}) == [
        *("asr", "sgc", "sap", "age_gender", "age_gender_only", "sgc_only", "sap_only")
    ]
    assert names({"txt": "hi<sad>", "gender": "m", "task": "<TRANSCRIBE><EMOTION>"}) == ["ser"]
    with pytest.raises(OsumError, match="^u7: unknown task '<NOPE>'"):
        TABLE.offered({"key": "u7", "txt": "", "task": "<NOPE>"})


def test_answer_of():
    sample = {
        "key": "u1",
        "txt": "Hi, you!",
        "gender": "F",
        "age": 31,
        "align": [[0.0, 0.3, "Hi"], [0.3, 0.5, "you"]],
    }
    assert TABLE["age_gender"].answer_of(sample) == Answer("hi, you!", {"age": "adult", "gender": "female"})
    assert TABLE["srwt"].answer_of(sample) == Answer(
        "hi you", words=[Word(0.0, 0.3, "hi"), Word(0.3, 0.5, "you")]
    )
    composed = {"key": "u2", "task": "<TRANSCRIBE> <STYLE>", "txt": "从前 <童话故事>"}
    assert TABLE["ssr"].answer_of(composed) == Answer("从前", {"style": "童话故事"})


@pytest.mark.parametrize(
    "name, sample, complaint",
    [
        ("sgc", {"txt": "hi"}, "no answer for task sgc"),
        ("sgc", {"txt": "hi", "gender": "robot"}, "unknown gender 'robot'; use one of female, male"),
        ("asr", {"txt": "a<b"}, "'<' or '>'"),
        ("srwt", {"align": [[0, "x"]]}, "malformed align"),
        ("srwt", {"align": [[1, 0, "x"]]}, "go back"),
        ("ser", {"task": "ser", "txt": "hi<glad>"}, "<glad>"),
    ],
)
def test_bad_input_sample(name, sample, complaint):
    with pytest.raises(OsumError, match="^u1: .*" + complaint):
        TABLE[name].answer_of({"key": "u1"} | sample)


def test_table_crosses_processes():
    again = pickle.loads(pickle.dumps(TABLE))
    assert (
        again["ser"].parse("a<angry>") == TABLE["ser"].parse("a<angry>") == Answer("a", {"emotion": "anger"})
    )


NINTH = """
room:
  tag: <TRANSCRIBE> <ROOM>
  label:
    name: room
    atom: ROOM
    values: [Small Room, Hall, 室外]
    spk_file: spk2room
    aliases: {chamber: small room, outdoors: 室外}
  prompts: {en: ["Transcribe, then name the room."]}
room_gender:
  tag: <ROOM> <GENDER>
  prompts: {zh: [什么房间，是男是女？]}
"""


@pytest.fixture
def ninth(tmp_path: Path) -> Path:
    path = tmp_path / "ninth.yaml"
    path.write_text(NINTH, encoding="utf-8")
    return path


def test_a_ninth_task_is_one_entry(ninth, tmp_path):
    table = load_tasks(ninth)
    task = table.find("<TRANSCRIBE><ROOM>")
    answer = Answer("hello", {"room": "small room"})
    assert task.compose(answer) == "hello<small room>"
    assert task.parse("hello<small room>") == answer
    assert task.prompt("zh", 3) == "Transcribe, then name the room."
    assert {"<small room>", "<hall>", "<室外>"} <= set(table.marks())
    assert table["room_gender"].compose(Answer(None, {"room": "hall", "gender": "male"})) == "<hall><male>"
    data = tmp_path / "data"
    data.mkdir()
    for name, line in {"wav.scp": "u1 a.wav", "text": "u1 Hello", "utt2room": "u1 Outdoors"}.items():
        (data / name).write_text(line + "\n", encoding="utf-8")
    (sample,) = read_data_dir(data, table)
    assert [t.name for t in table.offered(sample)] == ["asr", "room"]
    assert task.compose(task.answer_of(sample)) == "hello<室外>"
    assert len(load_tasks()) == len(table) - 2


def test_a_file_can_replace_a_tasks_prompts(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("ser: {tag: <TRANSCRIBE> <EMOTION>, prompts: {en: [How do you feel.]}}", encoding="utf-8")
    table = load_tasks(path)
    assert table["ser"].prompt("en", 0) == "How do you feel."
    assert table["ser"].fields == TABLE["ser"].fields


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        ("prompts: {en", "promts: {en", "room.promts: unknown key"),
        ("spk_file: ", "speaker_file: ", "room.label.speaker_file: unknown key"),
        ("    atom: ROOM\n", "", "room.label.atom: missing"),
        ("  tag: <TRANSCRIBE> <ROOM>\n", "", "room.tag: missing"),
        ("tag: <TRANSCRIBE> <ROOM>", "tag: <TRANSCRIBE> <RUM>", "room.tag: unknown atom RUM"),
        ("tag: <TRANSCRIBE> <ROOM>", "tag: TRANSCRIBE ROOM", "room.tag: .* is no tag"),
        ("tag: <TRANSCRIBE> <ROOM>", "tag: <TRANSCRIBE>", "room.tag: lacks its label's atom ROOM"),
        ("tag: <ROOM> <GENDER>", "tag: <ALIGN> <ROOM>", "ALIGN without TRANSCRIBE"),
        ("tag: <ROOM> <GENDER>", "tag: <TRANSCRIBE> <ROOM>", "room_gender: has the tag of room"),
        ("atom: ROOM", "atom: ALIGN", "bad atom 'ALIGN'"),
        ("atom: ROOM", "atom: AGE", "share the atom AGE"),
        ("name: room", "name: txt", "bad label name 'txt'"),
        ("室外]", "hall]", "given twice"),
        ("室外]", "a<b]", "cannot stand in a tag"),
        ("室外]", "开始回答]", "cannot stand in a tag"),
        ("室外]", "yes]", "is not a string"),  # YAML 1.1 reads it as a boolean
        ("chamber: small room", "chamber: big room", "'big room' is not among the values"),
        ("    aliases:", "    ranges: {hall: 3}\n    aliases:", "label.ranges.hall: 3 is no range"),
        ("{zh: [什么房间，是男是女？]}", "{}", "room_gender.prompts: no prompts"),
        ("{zh: [什么房间，是男是女？]}", "{zh: 什么房间}", "room_gender.prompts.zh: .* not a list"),
        ("room_gender:", "Room Gender:", "bad task name"),
        ("room_gender:", "room:", "key 'room' is given twice"),
        ("room_gender:", "room_gender: 3\nx:", "room_gender: 3 is not a mapping"),
        ("room_gender:", "room_gender: [", "ninth.yaml:13: "),
        (NINTH, "- a\n", "ninth.yaml: no tasks"),
        (NINTH, "? [a, b]\n: x\n", "ninth.yaml:1: a key that is no single word"),
        (NINTH, "a: 2024-13-45\n", "ninth.yaml: malformed YAML .month"),
        ("    aliases:", "    ranges: [1]\n    aliases:", r"label.ranges: \[1\] is not a mapping"),
        ("name: room", "name: untranscribed", "bad label name"),
    ],
)
def test_bad_input_task_file(ninth, old, new, complaint):
    assert old in NINTH
    ninth.write_text(NINTH.replace(old, new), encoding="utf-8")
    with pytest.raises(OsumError, match=complaint) as e:
        load_tasks(ninth)
    assert "\n" not in str(e.value)


def test_bad_input_values_that_read_as_times(ninth):
    text = NINTH.replace("hall", "'3.5'").replace("Hall", "'3.5'")
    ninth.write_text(text, encoding="utf-8")
    assert load_tasks(ninth)["room"].parse("a<3.5>") == Answer("a", {"room": "3.5"})
    ninth.write_text(text.replace("<ROOM> <GENDER>", "<TRANSCRIBE> <ALIGN> <ROOM>"), encoding="utf-8")
    with pytest.raises(OsumError, match="reads as a time"):
        load_tasks(ninth)


def test_bad_input_task_file_missing_or_not_utf8(tmp_path):
    with pytest.raises(OsumError, match="nope.yaml: no such file"):
        load_tasks(tmp_path / "nope.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(OsumError, match="latin.yaml: not UTF-8"):
        load_tasks(tmp_path / "latin.yaml")
