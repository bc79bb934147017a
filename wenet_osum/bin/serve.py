"""A trained model behind HTTP: OpenAI's API for transcriptions and chat, every task at /v1/understand, a web page."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
from pathlib import Path

from wenet_osum.bin.common import at_least
from wenet_osum.bin.decode_flags import add_model_flags, spec_of
from wenet_osum.bin.transcribe import seconds
from wenet_osum.decode.answer import DRAFTS
from wenet_osum.errors import OsumError, run_main
from wenet_osum.serve.http_settings import is_loopback
from wenet_osum.serve.settings import MIB, Limits

KEYS = "OSUM_API_KEYS"  # names a file, so that no key stands on a command line


def origin(text: str) -> str:
    """An argparse type: a site as browsers name it, or ``*``."""
    if text != "*" and not re.fullmatch(r"https?://[^/?#\s@A-Z]+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no origin: give https://host, in lower case, without a path"
        )
    return text


def some_seconds(text: str) -> float:
    """An argparse type: a number of seconds, not below 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum serve", description=__doc__)
    add_model_flags(p, positional=True)
    p.add_argument("--mode", choices=["llm_greedy", "llm_beam"], default="llm_greedy")
    p.add_argument("--beam_size", type=at_least(1), default=10, help="for llm_beam")
    p.add_argument("--draft", default="none", choices=DRAFTS, help="let the CTC head guess the transcript")
    p.add_argument("--vad", choices=["energy", "silero", "none"], default="energy")
    p.add_argument("--max_seconds", type=seconds, default=30.0, help="longer recordings are cut at pauses")

    web = p.add_argument_group("who may ask")
    web.add_argument("--host", default="127.0.0.1", help="0.0.0.0: everyone who reaches this machine")
    web.add_argument("--port", type=at_least(0), default=8000, help="0: any that is free")
    web.add_argument("--api_key", action="append", default=[], metavar="KEY", help="several: give it again")
    web.add_argument(
        "--api_keys", default=os.environ.get(KEYS), metavar="FILE", help=f"one a line; default: ${KEYS}"
    )
    web.add_argument(
        "--cors", type=origin, action="append", default=[], metavar="ORIGIN", help="whose pages may ask, or *"
    )
    web.add_argument(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="under which it may be asked; default: without keys on a loopback --host localhost alone, else any",
    )
    web.add_argument(
        "--served_model_name", action="append", default=[], metavar="NAME", help="default: CKPT's own"
    )

    page = p.add_argument_group("the page")
    page.add_argument("--examples", type=Path, metavar="DIR", help="recordings to click")
    page.add_argument("--feedback", type=Path, metavar="FILE", help="keeps what people say of the answers")
    page.add_argument("--no_docs", action="store_true", help="no /docs and /openapi.json")

    usual = Limits()
    most = p.add_argument_group("limits")
    most.add_argument("--max_upload", type=at_least(1), default=usual.max_bytes // MIB, metavar="MIB")
    most.add_argument(
        "--max_audio_seconds", type=some_seconds, default=usual.max_seconds, help="of a recording"
    )
    most.add_argument("--max_queue", type=at_least(1), default=usual.max_queue, help="pieces that may wait")
    most.add_argument("--max_wait", type=some_seconds, default=usual.max_wait, help="of a batch, for company")
    most.add_argument("--max_requests", type=at_least(1), default=256, help="at a time")
    most.add_argument("--request_seconds", type=some_seconds, default=usual.request_seconds)
    most.add_argument("--body_seconds", type=some_seconds, default=20.0, help="and one more for each 32 KiB")
    most.add_argument("--decoders", type=at_least(1), default=usual.decoders, help="processes for audio")
    most.add_argument(
        "--decode_seconds", type=some_seconds, default=usual.decode_seconds, help="of an upload"
    )
    most.add_argument("--decode_memory", type=at_least(64), default=usual.decode_memory // MIB, metavar="MIB")
    most.add_argument("--grace", type=some_seconds, default=30.0, help="for requests inside, when it ends")
    p.add_argument("--access_log", action="store_true", help="a line for each request")
    return p.parse_args(argv)


def limits_of(args: argparse.Namespace) -> Limits:
    return Limits(
        max_bytes=args.max_upload * MIB,
        max_seconds=args.max_audio_seconds,
        decode_seconds=args.decode_seconds,
        decode_memory=args.decode_memory * MIB,
        decoders=args.decoders,
        max_queue=args.max_queue,
        max_wait=args.max_wait,
        batch_size=args.batch_size,
        request_seconds=args.request_seconds,
        piece_seconds=args.max_seconds,
        vad=args.vad,
    )


def keys_of(args: argparse.Namespace) -> list[str]:
    """The API keys that are given, in the list of processes or in a file.

    Raises:
        OsumError: a key or a file without a name, as an unset variable leaves it: nobody would be kept out.
    """
    for key in args.api_key:
        if not key or key != key.strip():
            raise OsumError("--api_key", "is blank, or has blanks at its ends", "give a key")
    if args.api_keys == "":
        raise OsumError("--api_keys", "names no file", f"give one, or leave out the flag and ${KEYS}")
    from wenet_osum.serve.auth import read_keys  # needs the extra

    return [*args.api_key, *(read_keys(args.api_keys) if args.api_keys is not None else [])]


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    # What clients send is told to them, and is no line for each in the log.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from wenet_osum.serve.app import create_app
        from wenet_osum.serve.http_settings import HttpSettings
        from wenet_osum.serve.server import listen, serve
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("wenet_osum"):
            raise
        mend = "pip install 'wenet_osum[serve]'"
        raise OsumError("osum serve", f"the package {e.name} is missing", mend) from None
    from wenet_osum.serve.model_facts import read_facts
    from wenet_osum.serve.service import Service

    keys = keys_of(args)
    guarded = args.allow_host or (not keys and is_loopback(args.host))
    spec = spec_of(args, mode=args.mode, beam_size=args.beam_size, draft=args.draft)
    sock = listen(args.host, args.port)
    with sock:
        service = Service(spec, limits_of(args))
        settings = HttpSettings(
            names=tuple(args.served_model_name) or (service.model_name,),
            keys=tuple(keys),
            cors=tuple(args.cors),
            hosts=tuple(args.allow_host) if guarded else None,
            max_requests=args.max_requests,
            body_seconds=args.body_seconds,
            examples=args.examples,
            feedback=args.feedback,
            docs=not args.no_docs,
        )
        app = create_app(service, settings, read_facts(spec))
        if not keys and not is_loopback(args.host):
            logging.warning("anyone who reaches %s may ask: no --api_keys", args.host)
        return asyncio.run(serve(app, service, sock, args.grace, args.access_log))


if __name__ == "__main__":
    run_main(main)
