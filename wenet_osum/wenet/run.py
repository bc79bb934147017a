"""A WeNet config of one of our models: checked by our rules, completed with what WeNet wants to find in it."""

from __future__ import annotations

from typing import Any

import torch

from wenet_osum.bin.common import load_table, max_frames, prepare_configs
from wenet_osum.config import check_config
from wenet_osum.errors import OsumError
from wenet_osum.models.prompts import Prompts
from wenet_osum.registry import ENCODERS
from wenet_osum.text import init_tokenizer

# What WeNet's two schedulers take; an optimizer takes what torch's class does.
SCHEDULERS = {
    "warmuplr": ("warmup_steps",),
    "NoamHoldAnnealing": (
        *("max_steps", "warmup_steps", "warmup_ratio", "hold_steps", "hold_ratio", "decay_rate", "min_lr"),
    ),
}


class Run:
    """Attributes:
    configs: WeNet's dict, completed in place. table, tokenizer: ours.
    conf: ``dataset_conf``, checked and with our defaults.
    max_frames: the most feature frames that the encoder has positions for; None for WeNet's encoders.
    """

    def __init__(self, configs: dict[str, Any]):
        own = check_config(configs, "--config")
        self.configs, self.conf = configs, own["dataset_conf"]
        self.table, self.tokenizer = load_table(own), init_tokenizer(own)
        prepare_configs(own, self.tokenizer)
        self.max_frames = None
        if own["encoder"] in ENCODERS and not self.conf["log_mel_spectrogram_conf"]["pad_or_trim"]:
            with torch.device("meta"):
                encoder = ENCODERS.build(own["encoder"], own["input_dim"], conf=own["encoder_conf"])
            self.max_frames = max_frames(encoder)
        self.complete(own)

    def complete(self, own: dict[str, Any]) -> None:
        """Put in what WeNet indexes without a default, and our defaults where WeNet's differ."""
        for key in ("input_dim", "encoder", "decoder", "ctc", "encoder_conf", "decoder_conf", "model_conf"):
            self.configs[key] = own[key]
        for key in ("vocab_size", "output_dim", "tokenizer", "tokenizer_conf", "accum_grad", "max_epoch"):
            self.configs[key] = own[key]
        for key in ("log_interval", "grad_clip"):
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
        """Leave in ``optim_conf`` and ``scheduler_conf`` what WeNet's trainer passes on to its classes.

        Raises:
            OsumError: a key or a scheduler that only our own trainer has.
        """
        own = "train with `osum train`, or take it out"
        optim = self.configs.setdefault("optim_conf", {"lr": 5e-5})
        self.configs.setdefault("optim", "adamw")
        self.configs.setdefault("scheduler", "warmuplr")
        if optim.pop("lr_scale", None):
            mend = "give lr as a list with optim_conf.modules, or train with `osum train`"
            raise OsumError("optim_conf.lr_scale", "WeNet's trainer does not have it", mend)
        name = self.configs["scheduler"]
        if name not in SCHEDULERS:
            raise OsumError("scheduler", f"WeNet's trainer has no {name!r}", own)
        conf = self.configs.setdefault("scheduler_conf", {"warmup_steps": 8000})
        self.configs["scheduler_conf"] = {
            k: v for k, v in conf.items() if k in SCHEDULERS[name] and v is not None
        }
