"""What must be settled between a run's config and its model: paths beside the config, the task table, ids that
follow from the tokenizer, and the room that the model has."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wenet_osum.checkpoint.folder import CONFIG
from wenet_osum.errors import OsumError
from wenet_osum.tasks import TaskTable, load_tasks
from wenet_osum.tasks.prompts import prompt_text


def resolve_beside(configs: dict[str, Any], config_path: str) -> None:
    """Point the paths of a config at what lies beside it, so that a model folder can be moved and used from
    anywhere: ``config.yaml`` of such a folder names its files relative to itself, and the tokenizer files of
    a ``train.yaml`` that are not where it says are looked for by name, as ``wenet.load_model`` does."""
    folder, conf = Path(config_path).parent, configs["tokenizer_conf"]
    for key, value in conf.items():
        if not key.endswith("_path"):
            continue
        if isinstance(value, str) and not (folder / value).exists() and not Path(value).exists():
            value = Path(value).name
        if isinstance(value, str) and (folder / value).exists():
            conf[key] = str(folder / value)
    for section, key in ((configs["decoder_conf"], "llm"), (configs, "tasks")):
        if isinstance(section.get(key), str) and (folder / section[key]).exists():
            section[key] = str(folder / section[key])


def config_path(config: str | None, checkpoint: str) -> str:
    """``--config``, or ``config.yaml`` of the model folder that ``--checkpoint`` is.

    Raises:
        OsumError: neither is there.
    """
    if config is None and not Path(checkpoint).exists():
        raise OsumError(checkpoint, "no such file or folder", "check --checkpoint")
    if config is None and not Path(checkpoint).is_dir():
        raise OsumError(
            "--config", f"is missing, and {checkpoint} is no model folder", "give the run's train.yaml"
        )
    return config or str(Path(checkpoint) / CONFIG)


def load_table(configs: dict[str, Any]) -> TaskTable:
    """The built-in tasks and those of the config's ``tasks`` file."""
    return load_tasks(*([configs["tasks"]] if configs["tasks"] else []))


def prepare_configs(configs: dict[str, Any], tokenizer: Any) -> None:
    """Fill in what follows from the tokenizer: ``vocab_size``, ``output_dim``, the special ids.

    Raises:
        OsumError: the config was trained with a tokenizer of another size.
    """
    size = tokenizer.vocab_size()
    if configs["vocab_size"] not in (None, size):
        raise OsumError(
            "tokenizer_conf",
            f"the tokenizer has {size} ids, the model was trained with {configs['vocab_size']}",
            "use the tokenizer of that run",
        )
    configs["vocab_size"] = configs["output_dim"] = size
    special = configs["tokenizer_conf"].setdefault("special_tokens", {})
    special.setdefault("eos", tokenizer.eos_id)
    special.setdefault("sos", tokenizer.eos_id)


def max_frames(encoder: Any) -> int | None:
    """How many feature frames an encoder's position table holds; None where there is no table of ours."""
    embed: Any = getattr(encoder, "embed", None)
    if not hasattr(embed, "strides"):
        return None
    return embed.pos_enc.pe.size(1) * math.prod(embed.strides)


def leave_room(
    model: Any, conf: dict[str, Any], table: TaskTable, encode: Callable[[str], list[int]]
) -> dict[str, Any]:
    """``dataset_conf`` with ``max_length`` lowered to what the encoder has positions for, and ``token_max_length``
    to what Whisper's decoder has beside the longest prompt and the start id; as they are for models without
    such tables.

    Raises:
        OsumError: ``pad_or_trim`` to more than the encoder has positions for.
    """
    limits, mel = dict(conf["filter_conf"]), conf["log_mel_spectrogram_conf"]
    rate = conf["resample_conf"]["resample_rate"]
    frames = max_frames(model.encoder)
    if frames is not None and mel["pad_or_trim"]:
        if mel["max_duration"] * rate // mel["hop_length"] > frames:
            where = "dataset_conf.log_mel_spectrogram_conf.max_duration"
            what = f"is {mel['max_duration']} s, the encoder has positions for {frames} frames"
            raise OsumError(where, what, "lower it, or raise encoder_conf.max_positions")
    elif frames is not None:
        # The last hop may be begun; one sample is kept free for what resampling adds, half of one for rounding.
        samples = (frames + 1) * mel["hop_length"] - 1.5 - mel["padding"]
        limits["max_length"] = min(limits["max_length"], samples * 100 / rate)
    if hasattr(model.decoder, "positions"):
        room = model.decoder.positions.size(0) - longest_prompt(conf, table, encode) - 1
        limits["token_max_length"] = min(limits["token_max_length"], room)
    return {**conf, "filter_conf": limits}


def longest_prompt(conf: dict[str, Any], table: TaskTable, encode: Callable[[str], list[int]]) -> int:
    """Tokens of the longest prompt that training may draw."""
    prompts = conf["prompt_conf"]
    langs = ("zh", "en") if prompts["lang"] == "auto" else (prompts["lang"],)
    questions = (
        prompt_text(t, lang, prompts, i)
        for t in table.values()
        for lang in langs
        for i in range(prompts["number"])
    )
    return max(len(encode(q)) for q in questions)
