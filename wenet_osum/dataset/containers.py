"""What audio containers say about themselves: the RIFF header, and whether the file is all there.

libsndfile reads a cut-off wav or ogg as a shorter one without a word, so an utterance would lose
its last words and keep its transcript. The two checks here find that out from the container alone.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

# A writer that cannot seek back (sox or ffmpeg into a pipe) leaves a made-up length of about 2 or 4 GiB.
_STREAMED = 0x7FFF0000
_PCM, _EXTENSIBLE = 1, 0xFFFE
_MAX_OGG_PAGE = 27 + 255 + 255 * 255


@dataclass(frozen=True)
class WaveHeader:
    """The header of a RIFF wave file.

    Attributes:
        pcm16: samples are 16-bit signed integers.
        channels: number of channels.
        rate: samples a second.
        block: bytes of one frame (one sample of every channel); 0 for odd codings.
        data_start: where the samples begin, in bytes.
        declared: bytes of samples the header speaks of (what is there, when it was streamed).
        present: bytes of samples that are there.
    """

    pcm16: bool
    channels: int
    rate: int
    block: int
    data_start: int
    declared: int
    present: int


def file_size(stream: BinaryIO) -> int:
    """The size of a seekable stream in bytes; its position is left at the end."""
    return stream.seek(0, os.SEEK_END)


def read_wave_header(stream: BinaryIO) -> WaveHeader | None:
    """Read the header of a RIFF/WAVE stream; None when it is none, or one too broken to tell.

    Source: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0"; the treatment
    of lengths that were never filled in follows libsndfile's.
    """
    size = file_size(stream)
    stream.seek(0)
    head = stream.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    riff_size = struct.unpack_from("<I", head, 4)[0]
    fmt = b""
    at = 12
    while at + 8 <= size:
        stream.seek(at)
        name, length = struct.unpack("<4sI", stream.read(8))
        at += 8
        if name == b"fmt ":
            fmt = stream.read(min(length, 40))
        elif name == b"data":
            break
        at += length + length % 2
    else:
        return None
    if len(fmt) < 16:
        return None
    coding, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", fmt)
    if coding == _EXTENSIBLE and len(fmt) >= 26:
        coding = struct.unpack_from("<H", fmt, 24)[0]
    present = max(0, size - at)
    never_closed = length == 0 and riff_size + 8 <= at
    declared = present if never_closed or (length >= _STREAMED and present < length) else length
    return WaveHeader(
        pcm16=coding == _PCM and bits == 16 and channels > 0 and block == 2 * channels,
        channels=channels,
        rate=rate,
        block=block,
        data_start=at,
        declared=declared,
        present=min(declared, present),
    )


def is_cut(stream: BinaryIO) -> bool:
    """Whether an AIFF or Ogg (Vorbis, Opus) stream breaks off; False for any other stream."""
    stream.seek(0)
    head = stream.read(8)
    if head[:4] == b"FORM" and len(head) == 8:
        return 8 + int.from_bytes(head[4:], "big") > file_size(stream)
    return head[:4] == b"OggS" and _ogg_is_cut(stream)


def _ogg_is_cut(stream: BinaryIO) -> bool:
    """Whether the last page is shorter than its header says (RFC 3533 section 6)."""
    stream.seek(max(0, file_size(stream) - _MAX_OGG_PAGE))
    tail = stream.read()
    page = tail.rfind(b"OggS\0")
    segments = page + 27
    if page < 0:
        return True  # no page begins in a stretch longer than any page
    if segments > len(tail) or segments + tail[segments - 1] > len(tail):
        return True
    table = tail[segments : segments + tail[segments - 1]]
    return segments + len(table) + sum(table) > len(tail)
