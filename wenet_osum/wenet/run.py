"""A WeNet config of one of our models: checked by our rules, completed with what WeNet wants to find in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from wenet_osum.checkpoint.assemble import leave_room, load_table, prepare_configs, resolve_beside
from wenet_osum.config import check_config
from wenet_osum.dataset.filter import WIDE_OPEN
from wenet_osum.errors import OsumError
from wenet_osum.models.prompts import Prompts
from wenet_osum.registry import DECODERS, ENCODERS
from wenet_osum.text import init_tokenizer

# What WeNet's two schedulers take; an optimizer takes what torch's class does.
SCHEDULERS = {
    "warmuplr": ("warmup_steps",),
    "NoamHoldAnnealing": (
        *("max_steps", "warmup_steps", "warmup_ratio", "hold_steps", "hold_ratio", "decay_rate", "min_lr"),
    ),
}


def features_of_wenet(configs: dict[str, Any]) -> str | None:
    """``feats_type`` of an encoder of WeNet's that reads from WeNet's loader, which makes features that ours does
    not; None where our rules hold."""
    data = configs.get("dataset_conf")
    if configs.get("encoder") in ENCODERS or configs.get("dataset") == "osum" or not isinstance(data, dict):
        return None
    # Without a feats_type, WeNet's is fbank; ours stands unless its conf says what is meant.
    named = (k for k in ("fbank", "mfcc") if f"{k}_conf" in data)
    return data.get("feats_type") or next(named, "log_mel_spectrogram")


def with_our_features(configs: dict[str, Any], kind: str) -> dict[str, Any]:
    """A config as if for our features and no CMVN, so that all the rest of it can be checked by our rules."""
    data = {
        k: v for k, v in configs["dataset_conf"].items() if k not in ("feats_type", "fbank_conf", "mfcc_conf")
    }
    dropped = ("cmvn",) if kind == "log_mel_spectrogram" else ("cmvn", "input_dim")
    return {**{k: v for k, v in configs.items() if k not in dropped}, "dataset_conf": data}


def mel_bins(data: dict[str, Any], kind: str) -> int:
    """The size of a feature frame, with WeNet's defaults."""
    conf = data.get(f"{kind}_conf") or {}
    return int(conf.get("num_mel_bins", 80 if kind == "log_mel_spectrogram" else 23))


class Run:
    """Args:
    beside: a checkpoint; the tokenizer's files may lie beside it, as in a folder for ``wenet.load_model``.

    Attributes:
    configs: WeNet's dict, completed in place. table, tokenizer: ours.
    conf: ``dataset_conf``, checked and with our defaults.
    fitting: ``conf`` with ``filter_conf`` lowered to what encoder and decoder have positions for.
    room: that limit alone, as a ``filter_conf``.
    """

    def __init__(self, configs: dict[str, Any], beside: str | None = None):
        kind = features_of_wenet(configs)
        own = check_config(configs if kind is None else with_our_features(configs, kind), "--config")
        if beside is not None:
            resolve_beside(own, beside)
        self.own, self.configs, self.conf = own, configs, own["dataset_conf"]
        self.table, self.tokenizer = load_table(own), init_tokenizer(own)
        prepare_configs(own, self.tokenizer)
        # Of the model only what has positions, and without weights.
        parts = SimpleNamespace(encoder=None, decoder=None)
        with torch.device("meta"):
            if own["encoder"] in ENCODERS:
                parts.encoder = ENCODERS.build(own["encoder"], own["input_dim"], conf=own["encoder_conf"])
            if own["decoder"] == "whisper" and parts.encoder is not None:
                size = parts.encoder.output_size()
                vocab = own["vocab_size"]
                parts.decoder = DECODERS.build("whisper", vocab, size, conf=own["decoder_conf"])
        encode = self.tokenizer.encode
        self.fitting = leave_room(parts, self.conf, self.table, encode)
        self.room = leave_room(parts, {**self.conf, "filter_conf": WIDE_OPEN}, self.table, encode)[
            "filter_conf"
        ]
        if kind is not None:
            self.conf["feats_type"] = kind
            own["input_dim"] = configs.get("input_dim", mel_bins(configs["dataset_conf"], kind))
        self.complete()

    def complete(self) -> None:
        """Put in what WeNet indexes without a default, and our defaults where WeNet's differ."""
        own = self.own
        for key in (
            *("input_dim", "encoder", "decoder", "ctc", "encoder_conf", "decoder_conf", "model_conf"),
            *("vocab_size", "output_dim", "tokenizer", "tokenizer_conf", "accum_grad", "max_epoch"),
            *("log_interval", "grad_clip"),
        ):
            self.configs[key] = own[key]
        self.configs["ctc_conf"] = {"ctc_blank_id": 0, **own["ctc_conf"]}
        if self.configs.get("save_interval") is None:  # WeNet asks whether the key is there
            self.configs.pop("save_interval", None)
        data = self.configs.setdefault("dataset_conf", {})
        data.update({key: value for key, value in self.conf.items() if value is not None})
        data.setdefault("shuffle_conf", {"shuffle_size": 1500})
        data.setdefault("sort_conf", {"sort_size": 500})

    @property
    def prompts(self) -> Prompts:
        return Prompts(self.table, self.tokenizer.encode, self.conf["prompt_conf"])

    def fit_trainer(self) -> None:
        """Give WeNet's trainer our defaults, and of ``optim_conf`` and ``scheduler_conf`` what its classes take.

        Raises:
            OsumError: a key or a scheduler that only our own trainer has.
        """
        own, name = self.own, self.own["scheduler"]
        optim = {k: v for k, v in own["optim_conf"].items() if v is not None}
        if optim.pop("lr_scale"):
            mend = "give lr as a list with optim_conf.modules, or train with `osum train`"
            raise OsumError("optim_conf.lr_scale", "WeNet's trainer does not have it", mend)
        if name not in SCHEDULERS:
            raise OsumError(
                "scheduler", f"WeNet's trainer has no {name!r}", "train with `osum train`, or take it out"
            )
        conf = {k: v for k, v in own["scheduler_conf"].items() if k in SCHEDULERS[name] and v is not None}
        if name == "NoamHoldAnnealing":
            if "max_steps" not in conf:
                raise OsumError("scheduler_conf.max_steps", "is missing", f"WeNet's {name} needs it")
            for kind in ("warmup", "hold"):  # it takes steps or a share
                if f"{kind}_ratio" in conf:
                    del conf[f"{kind}_steps"]
        self.configs.update(optim=own["optim"], optim_conf=optim, scheduler=name, scheduler_conf=conf)
