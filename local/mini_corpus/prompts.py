"""Sentences of our own making: what machines say on the telephone, and short questions.

A small grammar: ``{name}`` in a template is drawn from ``WORDS[name]``, which may hold names again. ``{number}``,
``{digits}`` and ``{clock}`` are made by rule.
"""

from __future__ import annotations

import re

import numpy as np

ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

PROMPTS = (
    "please {enter} {your} {code}{tail}",
    "please {enter} {your} {code}, then press {key}",
    "{enter} {your} {code}{tail}",
    "now {enter} {your} {code}{tail}",
    "please {do} {the} {thing}{tail}",
    "to {do} {the} {thing}, press {key}",
    "to {do} {the} {thing}, press {key}, to {do} {the} {thing}, press {key}",
    "press {key} to {do} {the} {thing}",
    "press {key} to {do} {the} {thing}, or press {key} to {do} {the} {thing}",
    "press {key} for {place}, {key} for {place}, or {key} for {place}",
    "for {place}, press {key}",
    "for {place}, press {key} or stay on the line",
    "if you {want} {do} {the} {thing}, press {key}{tail}",
    "if you know the {code} of {person}, {enter} it now",
    "if this is {state}, press {key}, otherwise press {key}",
    "if you are {state}, press {key}",
    "{the} {thing} {be} {state}",
    "{the} {thing} {be} {state}, please try again {later}",
    "{the} {thing} you {asked} {be} {state}",
    "{your} {code} {be} {state}",
    "{your} {code} must have at least {number} digits",
    "{your} {thing} {be} {state}, thank you for {doing}",
    "sorry, {the} {thing} {be} {state}",
    "i am sorry, {person} {cannot} {do} {the} {thing} {later}",
    "we are sorry, but {your} {thing} {be} {state}",
    "{person} {cannot} take {your} call {later}",
    "{person} is on the phone, please leave a message after the {sound}",
    "you have {number} {kind} {things}",
    "you have {number} {kind} {things} and {number} {kind} {things}",
    "there are {number} {kind} {things} in {the} {thing}",
    "there are currently {number} callers ahead of you",
    "{kind} {thing} number {number}, from {person}",
    "you are caller number {number}",
    "{your} call will be answered in about {number} {units}",
    "{your} balance is {number} dollars and {number} cents",
    "the call will cost {number} cents a minute",
    "you have {number} {units} left on {your} account",
    "the number you have dialed is {digits}",
    "the telephone number is {digits}",
    "{your} confirmation code is {digits}",
    "it is now {clock}",
    "the time is {clock} on {day}, {month} {ordinal}",
    "we are open from {clock} to {clock}, {day} through {day}",
    "received on {day} the {ordinal} of {month} at {clock}",
    "from {person} at {clock}, {number} {units} long",
    "thank you for {doing}",
    "thank you for {doing}, goodbye",
    "thank you, {the} {thing} {be} {state}",
    "welcome to {place}",
    "welcome to {place}, please {do} {the} {thing}",
    "please hold while {person} looks for {the} {thing}",
    "please wait, {the} {thing} {be} {state}",
    "hold the line while i {do} {the} {thing}",
    "one moment please, {person} will {do} {your} {thing}",
    "{person} has {joined} the {thing}",
    "{person} will be with you in {number} {units}",
    "are you sure that you {want} {do} {the} {thing}",
    "do you {want} {do} {the} {thing}",
    "after the {sound}, say {your} {code}",
    "at the {sound}, please {do} {your} {thing}",
    "that {code} is not {state}",
    "that was not a {kind} {code}, please {enter} it once more",
    "you may now {do} {the} {thing}",
    "you are now {state}",
    "this {thing} {be} {state}",
    "dial {digits} to reach {person} {later}",
    "the {kind} {thing} is {state}, and {the} {kind} {thing} is {state}",
    "the weather in {city} is {weather}, {number} degrees",
    "flight number {digits} to {city} is {state}",
    "calls to {city} and {city} are {state} {later}",
)
WORDS: dict[str, tuple[str, ...]] = {
    "enter": ("enter", "dial", "key in", "type in", "say", "give us", "spell"),
    "your": ("your", "your", "the", "a new", "your new", "your personal", "the other"),
    "code": (
        *("password", "pin", "account number", "extension", "credit card number", "security code", "mailbox"),
        *("phone number", "area code", "conference number", "user name", "date of birth", "zip code", "name"),
        *("access code", "room number", "country code", "last name", "agent number", "date", "pass code"),
    ),
    "tail": (
        *("", "", "", " now", " again", " after the {sound}", " followed by the {mark} key", " at any time"),
        *(" and then hang up", " or hang up", " when you are done", " one more time", " if you know it"),
    ),
    "key": (*ONES[1:10], "zero", "pound", "star", "the pound key", "the star key", "hash", "any other key"),
    "mark": ("pound", "star", "hash"),
    "do": (
        *("hear", "delete", "save", "record", "change", "listen to", "forward", "cancel", "repeat", "send"),
        *("play", "check", "confirm", "transfer", "accept", "reject", "review", "mark", "open", "leave"),
        *("return", "skip", "rewind", "erase", "continue", "start", "stop", "join", "lock", "unlock", "pay"),
    ),
    "doing": (
        *("calling", "waiting", "your patience", "holding", "your payment", "using {place}", "your call"),
        *("choosing {place}", "your help", "your time", "flying with us", "your message", "nothing at all"),
    ),
    "the": ("the", "the", "your", "this", "that", "another", "the next", "the first", "the last"),
    "thing": (
        *("message", "call", "recording", "greeting", "conference", "line", "menu", "mailbox", "directory"),
        *(
            "number",
            "announcement",
            "list",
            "order",
            "payment",
            "bill",
            "report",
            "queue",
            "server",
            "folder",
        ),
        *("extension", "operator", "telephone", "meeting", "file", "language", "volume", "alarm", "door"),
        *("computer", "music", "time zone", "wake up call", "fax", "reservation", "appointment", "network"),
    ),
    "things": ("messages", "calls", "recordings", "faxes", "participants", "users", "orders", "letters"),
    "kind": ("new", "old", "urgent", "saved", "first", "next", "missed", "temporary", "valid", "private"),
    "place": (
        *(
            "sales",
            "technical support",
            "customer service",
            "billing",
            "the operator",
            "accounting",
            "english",
        ),
        *("the main office", "the help desk", "reservations", "the conference center", "shipping", "spanish"),
        *("our company", "the hotel", "the pharmacy", "the airport", "the front desk", "a representative"),
    ),
    "person": (
        *("the person", "our operator", "an agent", "the manager", "your party", "the doctor", "the caller"),
        *(
            "{name}",
            "{name}",
            "{name}",
            "everybody",
            "nobody",
            "one of our agents",
            "the system",
            "the owner",
        ),
    ),
    "name": (
        *("Alice", "Robert", "Maria", "Mister Brown", "Doctor Miller", "Susan", "George", "Linda", "Kevin"),
        *("Margaret", "Thomas", "Emily", "Mister Johnson", "Captain Cook", "Walter", "Nancy", "Peter"),
    ),
    "be": ("is", "is not", "has been", "was", "will be", "cannot be", "is being", "is now", "is already"),
    "state": (
        *("available", "busy", "saved", "deleted", "full", "empty", "correct", "unavailable", "activated"),
        *("disabled", "locked", "cancelled", "recorded", "forwarded", "invalid", "transferred", "too short"),
        *(
            "out of order",
            "on hold",
            "muted",
            "accepted",
            "temporarily closed",
            "ready",
            "complete",
            "on time",
        ),
        *("delayed", "received", "unlimited", "confirmed", "unknown", "in progress", "answered", "connected"),
    ),
    "later": ("", "now", "later", "right now", "tomorrow", "in a few minutes", "at this time", "today"),
    "want": ("want to", "would like to", "wish to", "need to", "have to", "are trying to"),
    "asked": ("asked for", "dialed", "requested", "have reached", "are calling", "entered", "selected"),
    "cannot": ("cannot", "can not", "does not want to", "will not", "is unable to"),
    "joined": ("joined", "left", "locked", "started", "ended", "entered"),
    "sound": ("tone", "beep", "signal"),
    "units": ("minutes", "seconds", "hours", "days", "weeks"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": (
        *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october"),
        *("november", "december"),
    ),
    "ordinal": (
        *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
        *("eleventh", "twelfth", "fifteenth", "twentieth", "twenty first", "thirtieth"),
    ),
    "city": (
        *("boston", "london", "chicago", "paris", "new york", "dallas", "berlin", "tokyo", "san francisco"),
        *("madrid", "atlanta", "rome", "seattle", "mexico", "toronto", "sydney", "cairo", "denver"),
    ),
    "weather": ("sunny", "cloudy", "rainy", "windy", "foggy", "snow", "a little rain", "clear", "very cold"),
    "country": (
        *("france", "italy", "spain", "germany", "japan", "china", "india", "egypt", "brazil", "canada"),
        *("mexico", "russia", "greece", "sweden", "norway", "poland", "kenya", "cuba", "peru", "ireland"),
    ),
    "animal": (
        *("dogs", "cats", "cows", "birds", "horses", "bears", "whales", "bees", "lions", "frogs", "rabbits"),
        *("elephants", "penguins", "monkeys", "owls", "sharks", "wolves", "snakes", "spiders", "pandas"),
    ),
    "object": (
        *("a hammer", "a bicycle", "a telephone", "a computer", "a refrigerator", "an umbrella", "a pencil"),
        *("a clock", "a map", "a compass", "a camera", "a bridge", "a needle", "a lamp", "a ladder", "soap"),
        *("a spoon", "a key", "a window", "a mirror", "a knife", "a library", "a hospital", "an airplane"),
    ),
    "colour_of": (
        *("the sky", "grass", "snow", "a banana", "blood", "the sun", "a lemon", "coal", "milk", "an orange"),
        *("the sea", "chocolate", "a strawberry", "a carrot", "gold", "a leaf", "butter", "a tomato"),
    ),
    "opposite": (
        *("hot", "big", "fast", "up", "open", "happy", "old", "light", "heavy", "early", "rich", "loud"),
        *("wet", "strong", "left", "north", "day", "full", "easy", "near", "sweet", "high", "clean"),
    ),
    "job": ("a doctor", "a baker", "a teacher", "a farmer", "a pilot", "a nurse", "a judge", "a plumber"),
    "subject": (
        *("water", "the moon", "electricity", "gravity", "oxygen", "music", "photosynthesis", "a volcano"),
        *("an island", "a desert", "a dictionary", "rain", "a planet", "democracy", "a poem", "an atom"),
    ),
}
QUESTIONS = (
    "what is the capital of {country}",
    "which language do people speak in {country}",
    "where is {country}",
    "what food comes from {country}",
    "what do {animal} eat",
    "where do {animal} live",
    "can {animal} fly",
    "what sound do {animal} make",
    "what do you use {object} for",
    "what is {object} made of",
    "who invented {object}",
    "what colour is {colour_of}",
    "what is the opposite of {opposite}",
    "what does {job} do",
    "where does {job} work",
    "what is {subject}",
    "why is {subject} important",
    "what is {small} plus {small}",
    "what is {small} times {small}",
    "what comes after {small}",
    "what day comes after {day}",
    "what month comes before {month}",
    "how many {part}",
    "is {colour_of} red",
    "is {city} a big city",
    "what can i see in {city}",
)
WORDS["small"] = tuple(ONES[1:10])
WORDS["part"] = (
    *("days are in a week", "hours are in a day", "legs does a spider have", "months are in a year"),
    *("minutes are in an hour", "wheels does a car have", "fingers does a hand have", "eyes do you have"),
    *("planets are there", "seconds are in a minute", "seasons are in a year", "letters are in the alphabet"),
)
_SLOT = re.compile(r"\{(\w+)\}")


def spell(n: int) -> str:
    """A whole number below a million in words, as Americans read it.

    >>> spell(4021)
    'four thousand twenty one'
    """
    if n >= 1000:
        rest = f" {spell(n % 1000)}" if n % 1000 else ""
        return f"{spell(n // 1000)} thousand{rest}"
    if n >= 100:
        rest = f" {spell(n % 100)}" if n % 100 else ""
        return f"{ONES[n // 100]} hundred{rest}"
    if n >= 20:
        return TENS[n // 10 - 2] + (f" {ONES[n % 10]}" if n % 10 else "")
    return ONES[n]


def number(rng: np.random.Generator) -> str:
    return spell(int(rng.integers(2, (20, 100, 1000, 10000)[rng.integers(4)])))


def digits(rng: np.random.Generator) -> str:
    return " ".join(ONES[d] for d in rng.integers(0, 10, int(rng.integers(3, 8))))


def clock(rng: np.random.Generator) -> str:
    hour, minute = int(rng.integers(1, 13)), int(rng.integers(0, 60))
    words = "o'clock" if minute == 0 else f"oh {ONES[minute]}" if minute < 10 else spell(minute)
    return f"{spell(hour)} {words}" + ("", " in the morning", " in the evening")[rng.integers(3)]


RULES = {"number": number, "digits": digits, "clock": clock}


def fill(template: str, rng: np.random.Generator) -> str:
    """A sentence from a template."""
    while match := _SLOT.search(template):
        name = match.group(1)
        words = RULES[name](rng) if name in RULES else str(rng.choice(WORDS[name]))
        template = template[: match.start()] + words + template[match.end() :]
    return " ".join(template.split())


def draw(templates: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """``count`` sentences, some perhaps twice; templates in turn, in random order."""
    order = np.concatenate([rng.permutation(len(templates)) for _ in range(-(-count // len(templates)))])
    return [fill(templates[n], rng) for n in order[:count]]
