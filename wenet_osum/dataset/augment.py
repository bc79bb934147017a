"""What ``dataset_conf`` asks to be done to an utterance in training, under WeNet's names where it has one.

Samples first (speed, reverberation, noise, volume: a room adds its echo to the voice, and the microphone its
gain to both), then features (spec_aug, spec_sub, spec_trim). Each draws from a generator of its own, seeded by
run, epoch, utterance and augmentation: the draws are the same in any worker, in any batch, and whichever of
the others are on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from wenet_osum.dataset.augment_feats import spec_aug, spec_sub, spec_trim
from wenet_osum.dataset.augment_lists import AudioList
from wenet_osum.dataset.augment_wave import add_noise, add_reverb, speed_perturb, volume_perturb

# What is drawn for an utterance. A number stays with its name for ever, so that runs can be repeated.
DRAWS = {
    "prompt": 0,
    "speed_perturb": 1,
    "add_reverb": 2,
    "add_noise": 3,
    "volume_perturb": 4,
    "spec_aug": 5,
    "spec_sub": 6,
    "spec_trim": 7,
}
FEATURES: dict[str, Callable[..., Tensor]] = {
    "spec_aug": spec_aug,
    "spec_sub": spec_sub,
    "spec_trim": spec_trim,
}

Draw = Callable[[str], np.random.Generator]


def generators(seed: int, epoch: int, key: str, copy: int = 0) -> Draw:
    """Name of ``DRAWS`` -> its generator for one utterance: the ``copy``-th time that ``key`` comes in an epoch."""
    item = (seed, epoch, zlib.crc32(key.encode()), copy)
    return lambda name: np.random.default_rng([*item, DRAWS[name]])


class Augmentation:
    """Args:
        conf: ``dataset_conf``.

    Raises:
        OsumError: a list of noises or responses, or a file that one names, cannot be read.
    """

    def __init__(self, conf: dict[str, Any]):
        self.conf = conf
        self.lists = {
            name: AudioList(conf[f"{name}_conf"]["list"], f"dataset_conf.{name}_conf.list")
            for name in ("add_reverb", "add_noise")
            if conf[name]
        }

    def samples(
        self, wave: np.ndarray, rate: int, key: str, draw: Draw, longest: float, keep_speed: bool = False
    ) -> tuple[np.ndarray, float]:
        """(n,) samples -> (m,) samples, and the speed they are played at: times are divided by it.

        ``longest``: an utterance that would get longer than so many samples keeps its speed; so it does with
        ``keep_speed``.

        Raises:
            BadUtterance: ``bad_noise``, see ``AudioList.draw``.
        """
        conf, speed = self.conf, 1.0
        if conf["speed_perturb"] and not keep_speed:
            speeds = conf["speed_perturb_conf"]["speeds"]
            perturbed, drawn = speed_perturb(wave, rate, draw("speed_perturb"), speeds)
            if len(perturbed) <= longest:
                wave, speed = perturbed, drawn
        if (rng := self.chosen("add_reverb", draw)) is not None:
            wave = add_reverb(wave, self.lists["add_reverb"].draw(rng, key, rate))
        if (rng := self.chosen("add_noise", draw)) is not None:
            snr = rng.uniform(*conf["add_noise_conf"]["snr"])
            noise = self.lists["add_noise"].draw(rng, key, rate, len(wave) / rate)
            wave = add_noise(wave, noise, snr)
        if conf["volume_perturb"]:
            wave = volume_perturb(wave, draw("volume_perturb"), conf["volume_perturb_conf"]["gain"])
        return wave, speed

    def chosen(self, name: str, draw: Draw) -> np.random.Generator | None:
        """The generator of an augmentation where it is on and the utterance is among its ``prob``, else None."""
        if not self.conf[name]:
            return None
        rng = draw(name)
        return rng if rng.random() < self.conf[f"{name}_conf"]["prob"] else None

    def features(self, feats: Tensor, draw: Draw) -> Tensor:
        """(T, F) features -> (at most T, F)."""
        for name, augment in FEATURES.items():
            if self.conf[name]:
                feats = augment(feats, draw(name), **self.conf[f"{name}_conf"])
        return feats
