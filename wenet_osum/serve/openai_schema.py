"""What clients send and get, as OpenAI defines it: the requests are checked by these models, the answers built of
them, and both are in ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

LANGUAGES = {"zh": "chinese", "en": "english"}  # by ISO-639-1; the names are those of verbose_json

Name = Annotated[str, Field(max_length=256)]
Prompt = Annotated[str, Field(max_length=32_768)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _only(*allowed: Any, why: str, default: Any = None) -> Any:
    """A field that OpenAI knows and of which this model can do these values alone, the default among them."""
    values = [*allowed] if default is ... else [default, *allowed]
    return Field(default, description=why, json_schema_extra={"enum": values})


def _language(value: Any) -> Any:
    """``zh`` and ``en``, also as ``en-US`` and ``English``; blank is none."""
    if not isinstance(value, str):
        return value
    given = value.strip().lower()
    if not given:
        return None
    names = {name: code for code, name in LANGUAGES.items()}
    code = names.get(given, given.replace("_", "-").partition("-")[0])
    if code not in LANGUAGES:
        what = "the model hears zh and en; leave the language out or give one of them"
        raise PydanticCustomError("unsupported_value", "{why}", {"why": what})
    return code


Language = Annotated[Literal["zh", "en"] | None, BeforeValidator(_language)]


class Strict(BaseModel):
    """A field that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid")


class Request(Strict):
    """So is a value that cannot be done (``_only``)."""

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_done(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        extra = field.json_schema_extra
        allowed = extra.get("enum") if isinstance(extra, dict) else None
        if isinstance(allowed, list) and not any(type(value) is type(a) and value == a for a in allowed):
            raise PydanticCustomError("unsupported_value", "{why}", {"why": field.description or ""})
        return value


class TranscriptionForm(Request):
    """``POST /v1/audio/transcriptions``, without the file."""

    model: Name = Field(description="A name from /v1/models.")
    language: Language = Field(None, description="Of the audio.")
    prompt: Prompt = Field("", description="Names and terms that may be said, with commas between.")
    keywords: list[Prompt] = Field([], description="Names and terms that may be said.")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="0: the likeliest answer; above: drawn."
    )
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        [], max_length=8, description="For verbose_json; word also for srt and vtt."
    )
    stream: bool = Field(False, description="Server-sent events; for json and text.")
    chunking_strategy: Any = _only("", "auto", why="long audio is cut at pauses: give 'auto'")
    include: Any = _only(why="the model tells no probabilities of tokens", default=[])
    languages: list[Language] = Field([], max_length=8, description="Of the audio; the first one counts.")

    @property
    def spoken(self) -> str | None:
        """The language of the audio, where it is told."""
        return self.language or next(filter(None, self.languages), None)


class UnderstandForm(Request):
    """``POST /v1/understand``, without the file."""

    model: Name | None = Field(None, description="A name from /v1/models.")
    tasks: list[Prompt] = Field([], description="Names or tags, with commas between; none or all: the eight.")
    prompt: Prompt = Field("", description="A question in your own words in place of the tasks' own.")
    lang: Language = Field(None, description="Of the question.")
    hotwords: list[Prompt] = Field([], description="Words that may be said, with commas between.")
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)
    seed: Seed = 0


class InputAudio(Strict):
    data: str = Field(description="Base64.")
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "aiff"]


class AudioPart(Strict):
    type: Literal["input_audio"]
    input_audio: InputAudio
    prompt_cache_breakpoint: Any = Field(None, description="Without effect.")


class TextPart(Strict):
    type: Literal["text"]
    text: Prompt
    prompt_cache_breakpoint: Any = Field(None, description="Without effect.")


Part = Annotated[AudioPart | TextPart, Field(discriminator="type")]


class Message(Request):
    role: Any = _only(
        "user", why="the model answers one question of one user: it has no other roles", default=...
    )
    content: list[Part] = Field(max_length=16)
    name: Name | None = Field(None, description="Without effect.")

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Without effect.")


_NO_TOOLS = "the model calls no tools"
_NO_PENALTY = "the model has no such penalty"


class ChatRequest(Request):
    """``POST /v1/chat/completions``."""

    model: Name = Field(description="A name from /v1/models.")
    messages: list[Message] = Field(
        min_length=1,
        description="One message of a user with one input_audio part. Its text is the question: a task's name or tag, "
        "or your own words; without one the speech is transcribed.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    seed: Seed | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Any = _only(1, why="one answer at a time")
    tools: Any = _only([], why=_NO_TOOLS)
    tool_choice: Any = _only("none", "auto", why=_NO_TOOLS)
    functions: Any = _only([], why=_NO_TOOLS)
    function_call: Any = _only("none", "auto", why=_NO_TOOLS)
    logprobs: Any = _only(False, why="the model tells no probabilities of tokens")
    top_logprobs: Any = _only(0, why="the model tells no probabilities of tokens")
    top_p: Any = _only(1, 1.0, why="draws are made from all tokens: leave it at 1")
    frequency_penalty: Any = _only(0, 0.0, why=_NO_PENALTY)
    presence_penalty: Any = _only(0, 0.0, why=_NO_PENALTY)
    logit_bias: Any = _only({}, why="the model takes no bias")
    stop: Any = _only([], why="the model ends by itself")
    response_format: Any = _only({"type": "text"}, why="answers are text; /v1/understand gives JSON")
    modalities: Any = _only(["text"], why="answers are text")
    audio: Any = _only(why="answers are text")
    prediction: Any = _only(why="the model takes no prediction")
    web_search_options: Any = _only(why="the model searches nothing")
    moderation: Any = _only(why="nothing is moderated")
    reasoning_effort: Any = _only("none", why="the model does not reason")
    verbosity: Any = _only(why="answers have one length")
    store: Any = _only(False, why="nothing is stored")
    service_tier: Any = _only("auto", "default", why="there are no tiers")
    # These tell OpenAI something about its own business, and change no answer.
    parallel_tool_calls: bool | None = Field(None, description="Without effect.")
    metadata: dict[str, Any] | None = Field(None, description="Without effect.")
    user: str | None = Field(None, description="Without effect.")
    safety_identifier: str | None = Field(None, description="Without effect.")
    prompt_cache_key: str | None = Field(None, description="Without effect.")
    prompt_cache_retention: str | None = Field(None, description="Without effect.")
    prompt_cache_options: Any = Field(None, description="Without effect.")


# --- answers ---


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    error: ErrorBody


class TokenDetails(BaseModel):
    audio_tokens: int
    text_tokens: int


class TokenUsage(BaseModel):
    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: TokenDetails


class DurationUsage(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: float


class Transcription(BaseModel):
    text: str
    usage: TokenUsage | DurationUsage


class Word(BaseModel):
    word: str
    start: float
    end: float


class Segment(BaseModel):
    """``avg_logprob`` and ``no_speech_prob`` are not measured: 0."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float = 0.0
    compression_ratio: float
    no_speech_prob: float = 0.0


class TranscriptionVerbose(BaseModel):
    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    segments: list[Segment] | None = None
    words: list[Word] | None = None
    usage: DurationUsage


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "wenet_osum"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage | None = None


class Span(BaseModel):
    start: float
    end: float
    text: str
    labels: dict[str, str] | None = None


class TaskAnswer(BaseModel):
    text: str | None
    labels: dict[str, str]
    probabilities: dict[str, dict[str, float]]
    words: list[Word] | None
    reply: str | None
    problems: list[str]
    segments: list[Span]


class Understood(BaseModel):
    """As ``osum transcribe --format json`` writes it."""

    file: str
    duration: float
    tasks: dict[str, TaskAnswer]
