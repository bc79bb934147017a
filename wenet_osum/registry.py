"""Named parts of a run: the tables a config's names are looked up in, and ``init_model``.

The contract of each entry is WeNet's (``wenet/utils/init_model.py``), so that the same classes
can be put into a live WeNet's own tables:

=========  =====================================================================================
table      how an entry is called
=========  =====================================================================================
ENCODERS   ``cls(input_dim, global_cmvn=None, **encoder_conf)``; has ``output_size()``;
           ``enc(xs (B,T,F), xs_lens (B,)) -> (out (B,T',D), mask (B,1,T') bool)``
ADAPTERS   ``cls(input_dim, output_dim, **adapter_conf)``;
           ``adapter(xs (B,T,D), mask (B,1,T)) -> (ys (B,S,H), mask (B,1,S))``
DECODERS   ``cls(vocab_size, encoder_output_size, **decoder_conf)``
CTCS       ``cls(vocab_size, encoder_output_size, blank_id=...)``
MODELS     ``cls(vocab_size, encoder, decoder, ctc, special_tokens, **model_conf)``;
           ``forward(batch, device) -> {"loss": ...}``; ``decode(methods, speech, ...)``
TOKENIZERS ``cls(**tokenizer_conf)``, WeNet's ``BaseTokenizer`` surface
DATASETS   ``cls(...)`` as ``wenet_osum.dataset.dataset`` builds it
=========  =====================================================================================

An encoder or adapter whose class has ``packs = True`` also takes packed batches (``batch_type: pack``): (N, F)
frames of all utterances with lengths (B,) on the CPU, giving (N', D) and lengths (``wenet_osum.models.packed``).

Entries must be classes (WeNet's FSDP wrapping tests ``isinstance`` against the tables).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from wenet_osum.config import check_type
from wenet_osum.errors import OsumError


class Registry(dict[str, type]):
    """A name -> class table whose look-up says what is known when a name is not."""

    def __init__(self, key: str):
        super().__init__()
        self.key = key  # the config key that picks an entry, for messages

    def register(self, name: str) -> Callable[[type], type]:
        """Class decorator: ``@ENCODERS.register("whisper_osum")``."""

        def add(cls: type) -> type:
            if name in self and self[name] is not cls:
                raise ValueError(f"{self.key} {name!r} is registered twice")
            self[name] = cls
            return cls

        return add

    def find(self, name: Any) -> type:
        """The class called ``name``; OsumError naming the key and the known names otherwise."""
        if name not in self:
            raise OsumError(self.key, f"unknown name {name!r}", f"choose one of {', '.join(sorted(self))}")
        return self[name]

    def build(self, name: Any, *args: Any, conf: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """``cls(*args, **kwargs, **conf)``, strict: a key of ``conf`` the class does not take is an
        OsumError that names it (``encoder_conf.num_block``), never a ``TypeError``."""
        cls = self.find(name)
        conf = dict(conf or {})
        known = inspect.signature(cls).parameters
        given = len(args)
        open_keys = [k for k in list(known)[given:] if k not in kwargs and k != "kwargs"]
        for k in list(conf):
            if k not in open_keys:
                raise OsumError(
                    f"{self.key}_conf.{k}",
                    f"{self.key} {name!r} has no such key",
                    f"known: {', '.join(open_keys)}",
                )
            default = known[k].default
            if isinstance(default, (bool, int, float, str)):
                conf[k] = check_type(conf[k], default, f"{self.key}_conf.{k}")
        try:
            return cls(*args, **kwargs, **conf)
        except TypeError as e:  # a required key that is absent
            if "required" in str(e):
                raise OsumError(f"{self.key}_conf", str(e).split(") ")[-1], "add it to the config") from None
            raise
        except ValueError as e:
            raise OsumError(f"{self.key}_conf", str(e), "mend it in the config") from None


ENCODERS = Registry("encoder")
ADAPTERS = Registry("adapter")
DECODERS = Registry("decoder")
CTCS = Registry("ctc")
MODELS = Registry("model")
TOKENIZERS = Registry("tokenizer")
DATASETS = Registry("dataset")


def load_models() -> None:
    """Import the modules that fill the model tables (torch is not imported before this)."""
    for name in (
        "whisper_encoder",
        "adapter",
        "ctc",
        "llm_decoder",
        "whisper_decoder",
        "osum",
        "whisper_multitask",
    ):
        importlib.import_module(f"wenet_osum.models.{name}")


def init_model(configs: dict[str, Any]) -> Any:
    """Build the model a config names. ``configs`` is a checked config (``wenet_osum.config``) with
    ``vocab_size`` filled in from the tokenizer.

    Raises:
        OsumError: an unknown name or an unknown key in a ``*_conf`` section.
    """
    load_models()
    vocab_size = configs["vocab_size"]
    encoder = ENCODERS.build(
        configs["encoder"], configs["input_dim"], global_cmvn=None, conf=configs.get("encoder_conf")
    )
    decoder = DECODERS.build(
        configs["decoder"], vocab_size, encoder.output_size(), conf=configs.get("decoder_conf")
    )
    ctc_conf = dict(configs.get("ctc_conf") or {})
    blank_id = ctc_conf.pop("ctc_blank_id", 0)  # WeNet's key for it
    ctc = CTCS.build(configs["ctc"], vocab_size, encoder.output_size(), blank_id=blank_id, conf=ctc_conf)
    return MODELS.build(
        configs["model"],
        vocab_size=vocab_size,
        encoder=encoder,
        decoder=decoder,
        ctc=ctc,
        special_tokens=(configs.get("tokenizer_conf") or {}).get("special_tokens"),
        conf=configs.get("model_conf"),
    )
