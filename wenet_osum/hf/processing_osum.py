"""Text and audio to what the model reads, and ids back to text: the surface of transformers' audio LLMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from wenet_osum.dataset.audio import load_audio
from wenet_osum.errors import BadUtterance
from wenet_osum.tasks import load_tasks

Turn = dict[str, Any]


class OsumProcessor(ProcessorMixin):
    """Args:
    feature_extractor: ``OsumFeatureExtractor``. tokenizer: the LLM's, with ``audio_token`` added.
    strides: by which the frames of 10 ms are thinned out, layer by layer, until they are speech tokens.

    Example:
        >>> processor = AutoProcessor.from_pretrained(folder)
        >>> inputs = processor.apply_transcription_request("speech.wav", language="en")
        >>> ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        >>> processor.batch_decode(ids, skip_special_tokens=True)
    """

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        audio_token: str = "<|audio|>",
        strides: list[int] | None = None,
    ):
        self.audio_token = audio_token
        self.strides = list(strides or (1, 2, 1, 2, 2))
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "input_features", "input_features_mask"]

    def audio_tokens(self, frames: int) -> int:
        """Tokens that speech of so many frames takes, with its begin and end."""
        for stride in self.strides:
            frames = (frames - 1) // stride + 1
        return frames + 2

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio: Any = None,
        sampling_rate: int | None = None,
        padding_side: str = "left",
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Questions about utterances.

        Args:
            text: one text or one for each audio; each has ``audio_token`` once, where the speech goes
                (OSUM: at the end). audio: one wave or a list, one channel in [-1, 1].
            sampling_rate: of the audio. padding_side: left to generate, right to train.

        Raises:
            ValueError: something is missing, does not match or is unknown.
        """
        if kwargs:
            raise ValueError(
                f"unknown argument {sorted(kwargs)[0]!r}: OsumProcessor takes text, audio, sampling_rate"
            )
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is {return_tensors!r}: only 'pt' is there")
        if text is None or audio is None:
            raise ValueError(
                f"{'text' if text is None else 'audio'} is missing: OSUM answers a text about a speech"
            )
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {padding_side!r}: left or right")
        texts = [text] if isinstance(text, str) else list(text)
        several = isinstance(audio, (list, tuple)) and not (audio and np.ndim(audio[0]) == 0)
        waves = list(audio) if several else [audio]
        if not texts or len(texts) != len(waves):
            raise ValueError(f"{len(texts)} texts and {len(waves)} audios: give one text for each audio")
        features = self.feature_extractor(waves, sampling_rate=sampling_rate)
        frames = features["input_features_mask"].sum(1).tolist()
        rows = [self.token_ids(t, n) for t, n in zip(texts, frames)]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(longest - len(row), None) if padding_side == "left" else slice(len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return BatchFeature({"input_ids": ids, "attention_mask": mask, **features})

    def token_ids(self, text: str, frames: int) -> list[int]:
        """Ids of a text, its audio token repeated as often as the speech needs."""
        parts = text.split(self.audio_token)
        if len(parts) != 2:
            raise ValueError(
                f"{len(parts) - 1} times {self.audio_token} in {text!r}: write it once, where the speech goes"
            )
        before, after = (self.tokenizer.encode(p, add_special_tokens=False) for p in parts)
        return [*before, *[self.audio_token_id] * self.audio_tokens(frames), *after]

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: list[Turn] | list[list[Turn]],
        chat_template: str | None = None,
        tokenize: bool = False,
        sampling_rate: int | None = None,
        add_generation_prompt: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
    ) -> Any:
        """One user turn with a question and a speech, ``[{"role": "user", "content": [{"type": "audio", ...},
        {"type": "text", "text": ...}]}]``, or a list of such conversations.

        OSUM has no chat format: the question comes first, then the speech, whatever their order here. An
        audio item has ``path`` (a file) or ``audio`` (a wave, with ``sampling_rate`` given).

        Returns:
            the texts; with ``tokenize`` the model's inputs.

        Raises:
            ValueError: another form of conversation.
        """
        if chat_template is not None or not add_generation_prompt or not return_dict:
            raise ValueError(
                "OSUM has no chat template: leave chat_template, add_generation_prompt, return_dict away"
            )
        single = bool(conversation) and isinstance(conversation[0], dict)
        conversations: Any = [conversation] if single else conversation
        read = [self.read_conversation(c) for c in conversations]
        texts = [t for t, _ in read]
        if not tokenize:
            return texts[0] if single else texts
        files = [isinstance(a, (str, Path)) for _, a in read]
        if not all(files) and sampling_rate is None:
            raise ValueError("sampling_rate is missing: say how many samples a second the audio has")
        rate = self.feature_extractor.sampling_rate
        if sampling_rate not in (None, rate) and not all(files):
            raise ValueError(f"sampling_rate is {sampling_rate}, the model hears {rate}: resample the audio")
        waves = [self.load(a) if is_file else a for (_, a), is_file in zip(read, files)]
        return self(text=texts, audio=waves, sampling_rate=rate, return_tensors=return_tensors)

    def read_conversation(self, turns: list[Turn]) -> tuple[str, Any]:
        """The text of a conversation, and its audio: a wave or a path."""
        if len(turns) != 1 or turns[0].get("role") != "user" or not isinstance(turns[0].get("content"), list):
            raise ValueError(
                "OSUM answers one question: give one turn, role user, its content a list of items"
            )
        words, audios = [], []
        for item in turns[0]["content"]:
            if item.get("type") == "text":
                words.append(str(item["text"]))
            elif item.get("type") == "audio":
                given = [item[k] for k in ("audio", "path", "url") if k in item]
                if len(given) != 1:
                    raise ValueError("an audio item has one of the keys audio and path")
                audios += given
            else:
                raise ValueError(f"an item of type {item.get('type')!r}: only text and audio are there")
        if len(audios) != 1:
            raise ValueError(f"{len(audios)} audio items in a turn: give one")
        return "".join(words) + self.audio_token, audios[0]

    def load(self, path: str | Path) -> np.ndarray:
        """A file's wave, at the model's rate. Only a file: no command, no address, is opened from here."""
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such audio file")
        try:
            return load_audio(Path(path).read_bytes(), None, None, self.feature_extractor.sampling_rate)
        except BadUtterance as e:
            raise ValueError(f"{path}: {e.cause} ({e.detail})") from None

    def apply_transcription_request(
        self,
        audio: Any,
        prompt: str | list[str] | None = None,
        language: str = "zh",
        task: str = "asr",
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """The inputs that ask for a transcript, or for another of OSUM's tasks.

        Args:
            audio: a file or a wave, or a list of them. prompt: the question, one for all or one for each;
                None: the first one of ``task`` in ``language`` (``zh`` or ``en``).
            sampling_rate: of waves.
        """
        is_list = isinstance(audio, (list, tuple)) and not (
            audio and np.ndim(audio[0]) == 0 and not isinstance(audio[0], (str, Path))
        )
        audios = list(audio) if is_list else [audio]
        if language not in ("zh", "en"):
            raise ValueError(f"language is {language!r}: prompts are there in zh and en")
        if prompt is None:
            prompt = load_tasks().find(task).prompt(language, 0)
        prompts = [prompt] * len(audios) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(audios):
            raise ValueError(f"{len(prompts)} prompts and {len(audios)} audios: give one prompt for each")
        conversations = []
        for question, item in zip(prompts, audios):
            key = "path" if isinstance(item, (str, Path)) else "audio"
            content = [{"type": "text", "text": question}, {"type": "audio", key: item}]
            conversations.append([{"role": "user", "content": content}])
        return self.apply_chat_template(conversations, tokenize=True, sampling_rate=sampling_rate)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """Texts of ids, as the tokenizer's; special tokens are left out unless asked for."""
        return self.tokenizer.batch_decode(*args, **{"skip_special_tokens": True, **kwargs})

    def decode(self, *args: Any, **kwargs: Any) -> str:
        """Text of ids, as the tokenizer's; special tokens are left out unless asked for."""
        return self.tokenizer.decode(*args, **{"skip_special_tokens": True, **kwargs})
