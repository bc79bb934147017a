"""Does a model listen? The loss with an utterance's own audio beside the loss with another utterance's.

A language model writes fluent sentences whether it hears anything or not, and its loss falls for a while as it
learns what the transcripts are like. While the two losses are equal, the audio has no part in the answers (a
mask, a label or a scale is wrong, or it is too early); from where they part, the model listens.
"""

from __future__ import annotations

import torch

from wenet_osum.dataset.batch import Batch


def swap_audio(batch: Batch) -> Batch:
    """The batch with the features of each utterance moved on to the next, the last one's to the first; questions
    and answers stay. Of a batch of one utterance that is the batch itself.

    Args:
        batch: as ``dataset.batch.collate`` gives it, padded (B, T, F) or packed (sum of T, F).
    """
    feats, lengths = batch["feats"], batch["feats_lengths"]
    if feats.dim() == 3:
        feats = feats.roll(1, 0)
    else:
        rows = list(feats.split(lengths.tolist()))
        feats = torch.cat([rows[-1], *rows[:-1]])
    return {**batch, "feats": feats, "feats_lengths": lengths.roll(1, 0)}
