"""One YAML a run, with WeNet's names, read strictly: an unknown key is an error that names it.

``*_conf`` sections that belong to a class (``encoder_conf`` ...) are checked by the registry against
that class; everything else is checked here against ``DEFAULTS``, which is also the list of what there is.
"""

from __future__ import annotations

import copy
import difflib
import logging
from pathlib import Path
from typing import Any

import yaml

from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write
from wenet_osum.wenet_keys import check_model, take_out

OPEN: dict[str, Any] = {}  # a section whose keys another place checks
LISTS = ("optim_conf.lr", "scheduler_conf.warmup_steps")  # a number, or one for each group of parameters
NULLABLE = ("dataset_conf.singal_channel_conf.channel",)

DATASET_DEFAULTS: dict[str, Any] = {
    "singal_channel_conf": {"channel": 0},  # WeNet's spelling; null: the mean of all channels
    "filter_conf": {
        "max_length": 10240,  # in 10 ms frames; the encoder's position table may end before
        "min_length": 10,
        "token_max_length": 200,  # of the answer
        "token_min_length": 1,
        "min_output_input_ratio": 0.0005,  # tokens a 10 ms frame
        "max_output_input_ratio": 1.0,
    },
    "resample_conf": {"resample_rate": 16000},
    "feats_type": "log_mel_spectrogram",
    "log_mel_spectrogram_conf": {
        "n_fft": 400,
        "hop_length": 160,
        "num_mel_bins": 80,
        "padding": 0,  # samples of silence behind every utterance
        "pad_or_trim": False,  # bring every utterance to max_duration
        "max_duration": 30,  # seconds
    },
    # Augmentation, in training alone, in this order. What WeNet does not have is named as WeNet would.
    "speed_perturb": False,
    "speed_perturb_conf": {"speeds": [0.9, 1.0, 1.1]},  # drawn evenly
    "add_reverb": False,
    "add_reverb_conf": {"list": None, "prob": 0.5},  # of impulse responses: raw list, wav.scp or tars
    "add_noise": False,
    "add_noise_conf": {"list": None, "prob": 0.5, "snr": [5.0, 20.0]},  # in dB, drawn between the two
    "volume_perturb": False,
    "volume_perturb_conf": {"gain": [-10.0, 6.0]},  # in dB, drawn between the two
    "spec_aug": False,
    "spec_aug_conf": {"num_t_mask": 2, "num_f_mask": 2, "max_t": 50, "max_f": 10},
    "spec_sub": False,
    "spec_sub_conf": {"max_t": 20, "num_t_sub": 3},
    "spec_trim": False,
    "spec_trim_conf": {"max_t": 20},
    "shuffle": True,
    "batch_conf": {
        "batch_type": "dynamic",  # static | bucket | dynamic | pack
        "batch_size": 16,  # static: utterances
        "bucket_boundaries": [],  # bucket: in 10 ms frames, rising
        "bucket_batch_sizes": [],  # bucket: one more; utterances shorter than each boundary, and the rest
        "max_frames_in_batch": 12000,  # dynamic: longest utterance x utterances, 10 ms frames; pack: their sum
        "max_tokens_in_batch": 4000,  # dynamic: longest answer x utterances; pack: their sum
    },
    # Which task an utterance is asked in an epoch is drawn among those its labels allow.
    "task_weights": OPEN,  # task name -> weight; a task not named here has 0 when any is named
    "prompt_conf": {
        "style": "words",  # words: a prompt sentence; tag: the task's tag
        "lang": "auto",  # auto: the utterance's language; or zh, en
        "number": 5,  # training draws among the first so many prompts of a task; decoding takes the first
    },
    # What a piece of a label counts in the loss, a piece of text 1. A label is one token beside a transcript's
    # ten or more; a model that starts from nothing does not learn it in time at 1 (RESULTS.md).
    "label_weight": 1.0,
    "max_bad_share": 0.1,  # training stops when more of the utterances read so far than this are bad
    "time_step": 0.01,  # SRWT times are rounded to multiples of it, in seconds
}

BATCH_TYPES = ("static", "bucket", "dynamic", "pack")

DEFAULTS: dict[str, Any] = {
    "model": "osum",
    "model_conf": OPEN,
    "encoder": "whisper_osum",
    "encoder_conf": OPEN,
    "decoder": "llm",
    "decoder_conf": OPEN,
    "ctc": "none",
    "ctc_conf": OPEN,
    "cmvn": None,
    "input_dim": 80,
    "tokenizer": "huggingface",
    "tokenizer_conf": OPEN,
    "tasks": None,  # a YAML file with further tasks
    "dataset": "osum",
    "dataset_conf": DATASET_DEFAULTS,
    "seed": 777,
    "grad_clip": 5.0,
    "accum_grad": 1,
    "max_epoch": 100,
    "log_interval": 10,
    "save_interval": None,  # optimizer steps between checkpoints; None: one an epoch
    "state_interval": None,  # optimizer steps between states to resume from; None: one with each checkpoint
    "keep_states": 2,  # the last so many
    "phases": [],  # which parts learn when (train/phases.py), in place of model_conf.trainable
    "ema_decay": 0.0,  # checkpoints hold a moving average of the weights; 0: the weights
    "health_conf": {
        "loss_ratio": 10.0,  # a step whose loss is so many times the running mean is not taken; 0: not asked
        "max_bad_steps": 10,  # training stops at so many among the last 1,000
    },
    "cv_swap": False,  # validation also takes the loss with another utterance's audio (train/listening.py)
    "cv_decode_conf": {  # validation also decodes and scores (train/evaluate.py)
        "utterances": 0,  # of the dev list for each task, always the same ones; 0: none
        "tasks": [],  # names; none: all that the dev list has answers for
        "batch_size": 16,
    },
    "optim": "adamw",
    "optim_conf": {
        "lr": 5e-5,  # or a list: one rate for each of modules, one for the rest
        "modules": [],  # attributes of the model, such as encoder or decoder.embed
        "betas": [0.9, 0.99],
        "eps": 1e-6,
        "weight_decay": 0.01,
        "lr_scale": OPEN,  # part name -> factor on lr (encoder: 0.1)
    },
    "scheduler": "warmuplr",
    "scheduler_conf": {
        "warmup_steps": 8000,  # or a list, as lr
        "warmup_ratio": None,  # NoamHoldAnnealing: of max_steps, in place of warmup_steps
        "max_steps": None,  # NoamHoldAnnealing and linear: the step the rate ends at
        "hold_steps": 0,
        "hold_ratio": None,  # of max_steps, in place of hold_steps
        "decay_rate": 0.5,
        "min_lr": 0.0,
    },
    # Written into train.yaml by training, read by decoding.
    "vocab_size": None,
    "output_dim": None,
    "dtype": "fp32",
    "train_engine": "torch_ddp",
    "use_amp": False,
    "save_states": "model_only",
    "model_dir": None,
}
# With optim: adam, what WeNet's YAMLs leave to torch is torch's; decay would be an L2 term there.
ADAM_DEFAULTS = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}


def fill(given: dict[str, Any], defaults: dict[str, Any], where: str, at: str = "") -> dict[str, Any]:
    """``defaults`` overlaid with ``given``; OsumError for a key or a type that does not fit."""
    # One by one: copied together, the open sections would stay one object.
    out = {key: copy.deepcopy(value) for key, value in defaults.items()}
    for key, value in given.items():
        name = f"{at}{key}"
        if key not in defaults:
            near = difflib.get_close_matches(str(key), list(defaults), 1)
            mend = f"did you mean {at}{near[0]}?" if near else f"known: {', '.join(defaults)}"
            raise OsumError(f"{where}: {name}", "unknown key", mend)
        default = defaults[key]
        if isinstance(default, dict):
            if value is None:
                continue
            if not isinstance(value, dict):
                raise OsumError(
                    f"{where}: {name}", f"is {value!r}, not a section of keys", "indent its keys below it"
                )
            out[key] = copy.deepcopy(value) if not default else fill(value, default, where, name + ".")
        else:
            if value is None and name in NULLABLE:
                out[key] = None
                continue
            several = isinstance(value, list) and name in LISTS
            values = [check_type(v, default, f"{where}: {name}") for v in (value if several else [value])]
            out[key] = values if several else values[0]
    return out


def check_type(value: Any, default: Any, where: str) -> Any:
    """``value`` in the type of ``default`` (an int passes for a float; YAML reads 1e-3 as text)."""
    if default is None or (isinstance(value, type(default)) and not isinstance(value, bool)):
        return copy.deepcopy(value)
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if isinstance(default, float) and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise OsumError(where, f"is {value!r}, not a {type(default).__name__}", f"write it like {default!r}")


def read_config(path: str | Path) -> dict[str, Any]:
    """What a YAML config holds, unchecked.

    Raises:
        OsumError: a missing file, a YAML error (with its line), no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise OsumError(str(path), "no such config", "check --config")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise OsumError(f"{path}{line}", f"not YAML ({getattr(e, 'problem', e)})", "mend the line") from None
    if not isinstance(given, dict):
        raise OsumError(str(path), "not a YAML mapping", "write key: value lines")
    return given


def load_config(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read a YAML config, apply ``--override_config`` items, fill in defaults.

    Args:
        path: the YAML file.
        overrides: ``"a.b=value"`` or WeNet's ``"a.b value"``; the value is read as YAML.

    Raises:
        OsumError: as ``read_config`` and ``check_config``.
    """
    given = read_config(path)
    for item in overrides or []:
        apply_override(given, item)
    configs = check_config(given, str(path))
    if idle := take_out(given)[1]:
        logging.info("%s: no effect here: %s", path, ", ".join(idle))
    return configs


def check_config(given: dict[str, Any], where: str) -> dict[str, Any]:
    """``given`` with defaults filled in, less the keys of WeNet's that have no effect here; ``where`` names its
    source in errors.

    Raises:
        OsumError: another model's, an unknown key, a wrong type or value.
    """
    check_model(given, where)
    given, _ = take_out(given)
    defaults = DEFAULTS
    if given.get("optim") == "adam":
        defaults = {**DEFAULTS, "optim_conf": {**DEFAULTS["optim_conf"], **ADAM_DEFAULTS}}
    configs = fill(given, defaults, where)
    if configs["dataset"] == "asr":  # what WeNet calls its own loader; ours takes the same lists
        configs["dataset"] = "osum"
    if "input_dim" not in given:
        configs["input_dim"] = configs["dataset_conf"]["log_mel_spectrogram_conf"]["num_mel_bins"]
    check_values(configs, where)
    return configs


def apply_override(given: dict[str, Any], item: str) -> None:
    """Set one dotted key in ``given``."""
    name, sep, value = item.partition("=") if "=" in item.split(" ")[0] else item.partition(" ")
    if not sep or not name:
        raise OsumError(f"--override_config {item!r}", "is not KEY=VALUE", "write a.b=value")
    *path, last = name.strip().split(".")
    section = given
    for key in path:
        if not isinstance(section.get(key), dict):  # absent, or an empty section read as None
            section[key] = {}
        section = section[key]
    try:
        section[last] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as e:
        reason = getattr(e, "problem", e)
        raise OsumError(f"--override_config {item!r}", f"not YAML ({reason})", "mend the value") from None


def check_values(configs: dict[str, Any], where: str) -> None:
    """Values that must be one of a few names, or positive."""
    data = configs["dataset_conf"]
    if configs["cmvn"] is not None:
        raise OsumError(
            f"{where}: cmvn", f"is {configs['cmvn']!r}", "log-mel features are taken as they are: null"
        )
    check_augmentation(data, f"{where}: dataset_conf")
    check_ranges(configs, where)
    check_groups(configs, where)
    check_buckets(data["batch_conf"], f"{where}: dataset_conf.batch_conf")
    if not all(isinstance(name, str) for name in configs["cv_decode_conf"]["tasks"]):
        tasks = configs["cv_decode_conf"]["tasks"]
        raise OsumError(f"{where}: cv_decode_conf.tasks", f"is {tasks!r}", "give names of tasks")
    if 0 < configs["health_conf"]["loss_ratio"] <= 1:
        what = f"is {configs['health_conf']['loss_ratio']}: every step would be bad"
        raise OsumError(f"{where}: health_conf.loss_ratio", what, "give a number above 1, or 0")
    for key, value in (
        ("save_interval", configs["save_interval"]),
        ("state_interval", configs["state_interval"]),
        ("dataset_conf.spec_sub_conf.max_t", data["spec_sub_conf"]["max_t"]),
        ("dataset_conf.spec_trim_conf.max_t", data["spec_trim_conf"]["max_t"]),
        ("scheduler_conf.max_steps", configs["scheduler_conf"]["max_steps"]),
        ("dataset_conf.prompt_conf.number", data["prompt_conf"]["number"]),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise OsumError(f"{where}: {key}", f"is {value!r}", "give a whole number from 1 up")
    for key, value, allowed in (
        ("optim", configs["optim"], ("adam", "adamw")),
        ("scheduler", configs["scheduler"], ("warmuplr", "NoamHoldAnnealing", "linear")),
        ("dataset_conf.feats_type", data["feats_type"], ("log_mel_spectrogram",)),
        ("dataset_conf.batch_conf.batch_type", data["batch_conf"]["batch_type"], BATCH_TYPES),
        ("dataset_conf.prompt_conf.style", data["prompt_conf"]["style"], ("words", "tag")),
        ("dtype", configs["dtype"], ("fp32", "bf16", "fp16")),
    ):
        if value not in allowed:
            raise OsumError(f"{where}: {key}", f"is {value!r}", f"choose one of {', '.join(allowed)}")
    for key in ("accum_grad", "max_epoch", "log_interval", "input_dim", "keep_states"):
        if configs[key] < 1:
            raise OsumError(f"{where}: {key}", f"is {configs[key]}", "give 1 or more")
    if data["log_mel_spectrogram_conf"]["num_mel_bins"] != configs["input_dim"]:
        raise OsumError(
            f"{where}: input_dim",
            f"is {configs['input_dim']}, log_mel_spectrogram_conf.num_mel_bins is "
            f"{data['log_mel_spectrogram_conf']['num_mel_bins']}",
            "make them equal",
        )


# Dotted key -> least and most allowed value.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "grad_clip": (1e-9, float("inf")),
    "ema_decay": (0, 1 - 1e-9),
    "health_conf.loss_ratio": (0, float("inf")),
    "health_conf.max_bad_steps": (1, 1000),
    "optim_conf.lr": (0, 10),
    "optim_conf.eps": (0, float("inf")),
    "optim_conf.weight_decay": (0, 10),
    "scheduler_conf.warmup_steps": (0, float("inf")),
    "scheduler_conf.hold_steps": (0, float("inf")),
    "cv_decode_conf.utterances": (0, float("inf")),
    "cv_decode_conf.batch_size": (1, float("inf")),
    "dataset_conf.singal_channel_conf.channel": (0, float("inf")),
    "dataset_conf.resample_conf.resample_rate": (8000, 192000),
    "dataset_conf.log_mel_spectrogram_conf.n_fft": (16, 16384),
    "dataset_conf.log_mel_spectrogram_conf.hop_length": (1, 16384),
    "dataset_conf.log_mel_spectrogram_conf.padding": (0, float("inf")),
    "dataset_conf.log_mel_spectrogram_conf.max_duration": (1, float("inf")),
    "dataset_conf.batch_conf.batch_size": (1, float("inf")),
    "dataset_conf.batch_conf.max_frames_in_batch": (1, float("inf")),
    "dataset_conf.batch_conf.max_tokens_in_batch": (1, float("inf")),
    "dataset_conf.speed_perturb_conf.speeds": (0.5, 2),
    "dataset_conf.add_reverb_conf.prob": (0, 1),
    "dataset_conf.add_noise_conf.prob": (0, 1),
    "dataset_conf.add_noise_conf.snr": (-50, 100),
    "dataset_conf.volume_perturb_conf.gain": (-60, 60),
    "dataset_conf.spec_aug_conf.num_t_mask": (0, 1000),
    "dataset_conf.spec_aug_conf.num_f_mask": (0, 1000),
    "dataset_conf.spec_aug_conf.max_t": (1, float("inf")),
    "dataset_conf.spec_aug_conf.max_f": (1, float("inf")),
    "dataset_conf.spec_sub_conf.num_t_sub": (0, 1000),
    "dataset_conf.label_weight": (0, 1000),
    "dataset_conf.max_bad_share": (0, 1),
    "dataset_conf.time_step": (0.01, 10),
}


def check_ranges(configs: dict[str, Any], where: str) -> None:
    """Numbers within ``RANGES``; two betas from 0 to below 1; positive ``lr_scale`` by part."""
    for key, (least, most) in RANGES.items():
        value: Any = configs
        for name in key.split("."):
            value = value[name]
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not least <= number <= most:
                raise OsumError(f"{where}: {key}", f"is {value!r}", f"give a number from {least} to {most}")
    for key in ("warmup_ratio", "hold_ratio"):
        ratio = configs["scheduler_conf"][key]
        if ratio is not None and not (isinstance(ratio, (int, float)) and 0 <= ratio <= 1):
            raise OsumError(f"{where}: scheduler_conf.{key}", f"is {ratio!r}", "give a number from 0 to 1")
    betas, scales = configs["optim_conf"]["betas"], configs["optim_conf"]["lr_scale"]
    if len(betas) != 2 or not all(isinstance(b, (int, float)) and 0 <= b < 1 for b in betas):
        raise OsumError(f"{where}: optim_conf.betas", f"is {betas!r}", "give two numbers from 0 to below 1")
    for part, scale in scales.items():
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < float("inf"):
            raise OsumError(f"{where}: optim_conf.lr_scale.{part}", f"is {scale!r}", "give a positive number")


def check_augmentation(data: dict[str, Any], where: str) -> None:
    """Numbers in the lists of augmentation, rising where there are two; a list of files where one is needed."""
    for key, two in (("speed_perturb.speeds", 0), ("add_noise.snr", 2), ("volume_perturb.gain", 2)):
        section, _, name = key.partition(".")
        values = data[f"{section}_conf"][name]
        if not values or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
            raise OsumError(f"{where}.{section}_conf.{name}", f"is {values!r}", "give a list of numbers")
        if two and (len(values) != two or values[0] > values[1]):
            mend = "give two numbers, the lower one first"
            raise OsumError(f"{where}.{section}_conf.{name}", f"is {values!r}", mend)
    for name in ("add_reverb", "add_noise"):
        given = data[f"{name}_conf"]["list"]
        if (given is None and data[name]) or not isinstance(given, (str, type(None))):
            raise OsumError(f"{where}.{name}_conf.list", f"is {given!r}", "give the path of a list of files")


def check_groups(configs: dict[str, Any], where: str) -> None:
    """WeNet's rates by module: one ``lr`` for each of ``modules`` and one for the rest, and so ``warmup_steps``."""
    optim, warmup = configs["optim_conf"], configs["scheduler_conf"]["warmup_steps"]
    lr, modules = optim["lr"], optim["modules"]
    if not all(isinstance(m, str) for m in modules):
        raise OsumError(f"{where}: optim_conf.modules", f"is {modules!r}", "give names, such as [encoder]")
    if isinstance(lr, list) != bool(modules) or (modules and len(lr) != len(modules) + 1):
        what = f"is {lr!r} beside {len(modules)} modules"
        raise OsumError(f"{where}: optim_conf.lr", what, "give one rate a module and one for the rest")
    if isinstance(warmup, list) and (not isinstance(lr, list) or len(warmup) != len(lr)):
        raise OsumError(
            f"{where}: scheduler_conf.warmup_steps", f"is {warmup!r}", "give as many as rates in lr"
        )
    if modules and optim["lr_scale"]:
        raise OsumError(f"{where}: optim_conf.lr_scale", "stands beside modules", "keep one of the two")
    if modules and configs["scheduler"] != "warmuplr":
        raise OsumError(f"{where}: scheduler", "rates by module go with warmuplr only", "set it, or one lr")


def check_buckets(conf: dict[str, Any], where: str) -> None:
    """``batch_type: bucket``: rising boundaries, and one batch size more than those."""
    if conf["batch_type"] != "bucket":
        return
    bounds, sizes = conf["bucket_boundaries"], conf["bucket_batch_sizes"]
    for key, values in (("bucket_boundaries", bounds), ("bucket_batch_sizes", sizes)):
        if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
            raise OsumError(f"{where}.{key}", f"is {values!r}", "give whole numbers from 1 up")
    if sorted(set(bounds)) != bounds:
        raise OsumError(f"{where}.bucket_boundaries", f"is {bounds!r}", "give rising numbers")
    if len(sizes) != len(bounds) + 1:
        what = f"are {len(sizes)} beside {len(bounds)} boundaries"
        raise OsumError(f"{where}.bucket_batch_sizes", what, "give one more than boundaries")


def save_config(configs: dict[str, Any], path: str | Path) -> None:
    """Write a config whole, as ``train.yaml`` in WeNet."""
    with atomic_write(path) as f:
        yaml.safe_dump(configs, f, allow_unicode=True, sort_keys=True)
