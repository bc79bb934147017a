"""WeNet's own keys in a run's YAML: those that nothing here reads, and those that only another model can serve.

A YAML that WeNet's trainer needs loads here too. Keys with a meaning for this model are in
``wenet_osum.config.DEFAULTS``; the ones below are taken out and told in one line. Anything else is unknown.
"""

from __future__ import annotations

import copy
from typing import Any

from wenet_osum.errors import OsumError

WENET_MODELS = (
    *("asr_model", "ctl_model", "whisper", "firered", "k2_model", "transducer", "paraformer"),
    *("sensevoice_small", "w2vbert_model", "wav2vec_model", "bestrq_model"),
)
# Of WeNet's streaming loader, of features and parts this model has not, and keys that WeNet itself no longer reads.
NO_EFFECT = (
    *("cmvn_conf", "lora_conf", "init_infos", "raw_wav", "collate_conf"),
    *(
        f"dataset_conf.{key}"
        for key in (
            *("cycle", "list_shuffle", "list_shuffle_conf", "shuffle_conf", "sort", "sort_conf"),
            *("language_conf", "speaker_conf", "fbank_conf", "mfcc_conf", "spec_aug_conf.max_w"),
            *("split_with_space", "syncbn"),
        )
    ),
)
# Keys of WeNet's ``tokenizer_conf``: each of its tokenizers reads some and leaves the others.
TOKENIZER_KEYS = (
    *("symbol_table_path", "non_lang_syms_path", "bpe_path", "seg_dict_path", "model_path"),
    *("split_with_space", "connect_symbol", "is_multilingual", "num_languages"),
)


def check_model(given: dict[str, Any], where: str) -> None:
    """Complain of a YAML that is for another model or other features before anything else in it is looked at.

    Raises:
        OsumError: a model of WeNet's, or features that nothing here computes.
    """
    model, data = given.get("model"), given.get("dataset_conf")
    if model in WENET_MODELS:
        mend = "set model: osum and its parts, or train it by python -m wenet_osum.wenet wenet.bin.train"
        raise OsumError(f"{where}: model", f"{model!r} is a model of WeNet's, not of this package", mend)
    if not isinstance(data, dict) or "feats_type" in data:
        return
    for key in ("fbank_conf", "mfcc_conf"):
        if key in data:
            raise OsumError(
                f"{where}: dataset_conf.feats_type",
                f"is not given beside {key}, which in WeNet means fbank features",
                "write feats_type: log_mel_spectrogram, which this model takes",
            )


def take_out(given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """``given`` without the keys of ``NO_EFFECT``, and the names of those that were there."""
    given, names = copy.deepcopy(given), []
    for name in NO_EFFECT:
        *path, last = name.split(".")
        section: Any = given
        for key in path:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict) and last in section:
            section.pop(last)
            names.append(name)
    return given, names
