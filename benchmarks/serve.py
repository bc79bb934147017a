"""``osum serve`` under load: requests a second, their times, errors, memory; with ``--kill``, a model that is lost.

    python benchmarks/serve.py exp/tiny/final.pt --config exp/tiny/train.yaml --audio data/tiny/kaldi/wav/test

The server is a process of its own, the clients are coroutines of this one, which does nothing but pass bytes: each
asks ``/v1/audio/transcriptions`` again as soon as it is answered. First one client, then ``--clients`` of them, with
``--warm_up`` seconds before that do not count. Memory is the proportional set size (PSS) of the server and all its
descendants, every second; "growth" compares the medians of the first and the last sixth of the measured time.

``--kill``: instead, under the same load, SIGKILL to the model's process; the time until a request that was sent
behind the kill is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--config")
    parser.add_argument("--audio", type=Path, required=True, help="a folder with wave files")
    parser.add_argument("--files", type=int, default=200, help="of the folder, the first ones by name")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm_up", type=float, default=20.0)
    parser.add_argument("--alone", type=float, default=20.0, help="seconds with one client")
    parser.add_argument("--think", type=float, default=0.0, help="seconds a client waits between requests")
    parser.add_argument("--kill", type=int, default=0, metavar="TIMES", help="kill the model so often")
    parser.add_argument("--flags", default="--num_threads 1", help="of osum serve")
    return parser.parse_args(argv)


# --- the server ---


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    def tree(self) -> list[int]:
        """The server and all its descendants."""
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (thread / "children").read_text().split())
        return found

    def pss(self) -> dict[int, int]:
        """Bytes of each process."""
        sizes = {}
        for pid in self.tree():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                sizes[pid] = 1024 * int(re.findall(r"^Pss: +(\d+) kB", rollup, re.M)[0])
        return sizes

    def model(self) -> int:
        """The model's process: the child of the fork server that takes most memory."""
        sizes = self.pss()
        parents = {
            pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in sizes
        }
        forked = [pid for pid in sizes if parents[pid] not in (os.getpid(), self.process.pid)]
        return max(forked, key=sizes.__getitem__)


@contextlib.contextmanager
def served(args: argparse.Namespace) -> Iterator[Server]:
    config = ["--config", args.config] if args.config else []
    command = [sys.executable, "-m", "wenet_osum.bin.serve", args.checkpoint, *config, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *args.flags.split()], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        port, said = 0, []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"listening on \S+:(\d+)", line):
                port = int(found[1])
            if " ready: " in line:
                break
        else:
            raise SystemExit("".join(said))
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, rest = process.communicate(timeout=60)
        print(f"\nSIGTERM: ended with status {process.returncode} after {time.monotonic() - begun:.2f} s")
        print(rest, end="")


# --- the clients ---


@dataclass
class Seen:
    """``answers``: when a request was sent, when its answer was there (monotonic), and its status."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def within(self, begun: float, ended: float) -> list[tuple[float, float, int]]:
        return [a for a in self.answers if begun <= a[1] < ended]


def request(file: Path) -> bytes:
    """A transcription's request, whole."""
    head = 'Content-Disposition: form-data; name="file"; filename="a.wav"'
    form = b"--x\r\n" + head.encode() + b"\r\n\r\n" + file.read_bytes()
    form += b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nmodel\r\n--x--\r\n'
    lines = ["POST /v1/audio/transcriptions HTTP/1.1", "Host: x", f"Content-Length: {len(form)}"]
    lines += ["Content-Type: multipart/form-data; boundary=x", "", ""]
    return "\r\n".join(lines).encode() + form


async def client(
    port: int,
    requests: list[bytes],
    number: int,
    seen: Seen,
    think: float,
    writers: list[asyncio.StreamWriter],
) -> None:
    """Ask one file after the other, until cancelled; ``writers`` are for whoever cancels."""
    writer = None
    at = number * 37
    while True:
        sent, used = time.monotonic(), False
        try:
            used = writer is not None
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writers.append(writer)
            writer.write(requests[at % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)
            body = await reader.readexactly(int(length))
            status = int(head.split(b" ", 2)[1])
            seen.answers.append((sent, time.monotonic(), status))
            if status != 200:
                code = re.findall(rb'"code":"?(\w+)', body)
                seen.faults[f"{status} {code[0].decode() if code else ''}"] += 1
                await asyncio.sleep(0.1)
        except (OSError, EOFError) as e:
            if used and not getattr(e, "partial", b""):  # it had idled too long: as any client, once more
                writer = None
                continue
            seen.faults[type(e).__name__] += 1
            writer = None
            await asyncio.sleep(0.1)
        at += 1
        await asyncio.sleep(think)


@contextlib.asynccontextmanager
async def load(server: Server, requests: list[bytes], clients: int, seen: Seen, think: float = 0.0):
    writers: list[asyncio.StreamWriter] = []
    tasks = [
        asyncio.ensure_future(client(server.port, requests, n, seen, think, writers)) for n in range(clients)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, Exception):
                raise done
        for writer in writers:
            writer.close()
        await asyncio.sleep(1)  # the server sees that they are gone


def told(name: str, answers: list[tuple[float, float, int]], seconds: float, faults: Counter[str]) -> float:
    times = sorted(ended - sent for sent, ended, status in answers if status == 200)
    rate = len(times) / seconds
    cuts = statistics.quantiles(times, n=100)
    print(
        f"{name}: {len(times)} answers in {seconds:.0f} s, {rate:.1f} a second; "
        f"p50 {1000 * cuts[49]:.0f} ms, p95 {1000 * cuts[94]:.0f} ms, longest {1000 * times[-1]:.0f} ms; "
        f"errors: {dict(faults) or 'none'}",
        flush=True,
    )
    return rate


async def measure(server: Server, requests: list[bytes], args: argparse.Namespace) -> None:
    alone = 0.0
    if args.alone:
        seen = Seen()
        async with load(server, requests, 1, seen):
            await asyncio.sleep(3)
            begun = time.monotonic()
            await asyncio.sleep(args.alone)
        alone = told("1 client", seen.within(begun, begun + args.alone), args.alone, seen.faults)
    seen, sizes = Seen(), []
    async with load(server, requests, args.clients, seen, args.think):
        await asyncio.sleep(args.warm_up)
        begun, used = time.monotonic(), time.process_time()
        while (now := time.monotonic()) < begun + args.seconds:
            sizes.append((now - begun, server.pss()))
            await asyncio.sleep(max(0.0, begun + len(sizes) - time.monotonic()))
        used = (time.process_time() - used) / args.seconds
    many = told(
        f"{args.clients} clients", seen.within(begun, begun + args.seconds), args.seconds, seen.faults
    )
    if alone:
        print(f"times one client: {many / alone:.2f}")
    print(f"the clients took {100 * used:.0f} % of a core")
    every = max(1, len(sizes) // 10)
    for at, size in sizes[::every]:
        parts = " ".join(f"{value / MIB:.0f}" for value in size.values())
        print(f"  {at:4.0f} s: {sum(size.values()) / MIB:7.1f} MiB of PSS in {len(size)} processes: {parts}")
    sixth = max(1, len(sizes) // 6)
    first, last = (
        statistics.median(sum(size.values()) for _, size in part) for part in (sizes[:sixth], sizes[-sixth:])
    )
    print(f"memory: {first / MIB:.1f} -> {last / MIB:.1f} MiB, growth {100 * (last / first - 1):+.2f} %")


async def kill(server: Server, requests: list[bytes], args: argparse.Namespace) -> None:
    seen = Seen()
    async with load(server, requests, args.clients, seen, args.think):
        await asyncio.sleep(args.warm_up)
        for n in range(args.kill):
            if n:
                await asyncio.sleep(10)
            seen.faults.clear()
            killed = time.monotonic()
            os.kill(server.model(), signal.SIGKILL)
            while not (behind := [a for a in seen.answers if a[0] > killed and a[2] == 200]):
                await asyncio.sleep(0.01)
                if time.monotonic() > killed + 120:
                    raise SystemExit("no service for 120 s")
            print(
                f"killed: service again after {behind[0][1] - killed:.2f} s; {dict(seen.faults)}", flush=True
            )


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    args.flags += " --served_model_name model"
    files = sorted(args.audio.rglob("*.wav"))[: args.files]
    if not files:
        raise SystemExit(f"{args.audio}: no wave files")
    requests = [request(file) for file in files]
    with served(args) as server:
        asyncio.run((kill if args.kill else measure)(server, requests, args))


if __name__ == "__main__":
    main()
