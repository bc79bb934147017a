"""What a server allows: sizes, times and numbers, each with a bound."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        max_bytes: of an upload.
        max_seconds: of a recording.
        decode_seconds: of processor time that decoding one upload may take.
        decode_memory: bytes of memory that decoding one upload may take.
        decoders: processes that decode. A long recording keeps one until it is answered; short ones always find
            some that long ones may not take.
        max_queue: pieces that wait, beyond which a request is turned away.
        max_wait: seconds that a batch which is not full waits for company.
        batch_size: pieces in a batch.
        request_seconds: from a request's arrival to its answer.
        batch_seconds: that the model may take for a batch, before it counts as hung.
        start_seconds: that loading the model may take.
        restarts: how often in a row the model's process may end without having answered, before the service gives up.
        piece_seconds: recordings are cut to pieces of at most this, as ``osum transcribe --max_seconds`` does.
        vad: how pauses are found, see ``decode.cut.pieces``.
        max_prompt: characters of a question in the user's own words, and of all hotwords together.
    """

    max_bytes: int = 25 * MIB
    max_seconds: float = 7200.0
    decode_seconds: float = 60.0
    decode_memory: int = 1024 * MIB
    decoders: int = 8
    max_queue: int = 256
    max_wait: float = 0.02
    batch_size: int = 16
    request_seconds: float = 600.0
    batch_seconds: float = 300.0
    start_seconds: float = 900.0
    restarts: int = 3
    piece_seconds: float = 30.0
    vad: str = "energy"
    max_prompt: int = 2000
