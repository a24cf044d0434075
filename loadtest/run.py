"""A load test in one command: starts a server, runs the load without a browser, prints what it took, stops the server.

    python loadtest/run.py                                       # this server, in memory, 10 seconds
    python loadtest/run.py --seconds 30 --subscribers 40
    python loadtest/run.py --server ours='tiled-stream serve catalog --temp --api-key secret --port {port}' \\
                           --server peer='tiled serve catalog --temp --api-key secret --port {port}'

Every server gets the same load, one after the other, and the last columns say what it cost: CPU per write and delivery, of the
server and all its children. On a small machine the load generator takes a core of its own: compare CPU and ratios, not rates.
"""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import psutil

HERE = Path(__file__).resolve().parent
OURS = f"{shlex.quote(sys.executable)} -m tiled_stream.run.cli serve catalog --temp --api-key secret --port {{port}}"
KEY = "secret"
WRITES = ("PATCH array", "PATCH table")
DELIVERIES = ("array delivery", "table delivery")


class Outcome(NamedTuple):
    """What one server did under the load: times in milliseconds, CPU in seconds of the server's whole process tree."""

    name: str
    writes: int
    write_p50: float
    write_p99: float
    deliveries: int
    delivery_p50: float
    delivery_p99: float
    failures: int
    cpu: float
    megabytes: float

    @property
    def cpu_a_piece(self) -> float:
        """Microseconds of server CPU per write and delivery."""
        return 1e6 * self.cpu / max(1, self.writes + self.deliveries)


def main() -> int:
    """Run the load against each server. 1 if anything failed."""
    options = parsed()
    outcomes = [measured(name, command, options) for name, command in options.server]
    show(outcomes)
    return 1 if any(o.failures or not o.writes or (options.subscribers and not o.deliveries) for o in outcomes) else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--server", action="append", type=named, metavar="NAME=COMMAND", help="{port} is filled in; repeat to compare"
    )
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--array-writers", type=int, default=2)
    parser.add_argument("--table-writers", type=int, default=2)
    parser.add_argument("--subscribers", type=int, default=6)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--write-rate", type=float, default=10.0, help="rows per second and writer")
    parser.add_argument("--row-length", type=int, default=16)
    options = parser.parse_args()
    options.server = options.server or [("tiled_stream", OURS)]
    return options


def named(text: str) -> tuple[str, str]:
    """`NAME=COMMAND`."""
    name, equals, command = text.partition("=")
    if not equals or "{port}" not in command:
        raise argparse.ArgumentTypeError("give NAME=COMMAND with {port} in the command")
    return name, command


def measured(name: str, command: str, options: argparse.Namespace) -> Outcome:
    """Start the server, load it, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"{name}: starting", flush=True)
    with tempfile.TemporaryDirectory(prefix="loadtest-") as directory:
        log = Path(directory) / "server.log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                shlex.split(command.format(port=port)), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        try:
            if not ready(server, port):
                sys.exit(f"{name} did not start:\n{log.read_text()[-3000:]}")
            process = psutil.Process(server.pid)
            before = cpu(process)
            print(f"{name}: {options.seconds} seconds of load", flush=True)
            stats = loaded(port, options)
            if server.poll() is not None:
                print(f"{name} did not survive (exit status {server.returncode}); it said last:\n{log.read_text()[-1000:]}")
                return outcome(name, stats, float("nan"), float("nan"))
            return outcome(name, stats, cpu(process) - before, memory(process))
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def ready(server: subprocess.Popen[bytes], port: int) -> bool:
    """True once it answers; False if it ended, or said nothing for a minute."""
    patience = time.monotonic() + 60
    while time.monotonic() < patience and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def loaded(port: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run locust; its statistics, one entry a name."""
    users = options.array_writers + options.table_writers + options.subscribers + options.readers
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--json", "--only-summary"]
    command += ["--host", f"http://127.0.0.1:{port}", "--api-key", KEY, "--loglevel", "WARNING"]
    command += ["-u", str(users), "-r", str(users), "-t", f"{options.seconds}s", "--exit-code-on-error", "0"]
    for name in ("array_writers", "table_writers", "subscribers", "readers", "write_rate", "row_length"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds + 60, check=False)
    if run.returncode != 0:
        sys.exit(f"locust ended with {run.returncode}:\n{run.stderr[-3000:]}")
    if "Error report" in run.stderr:
        print(run.stderr[run.stderr.index("Error report") :].rstrip())
    entries: list[dict[str, Any]] = json.loads(run.stdout)
    return entries


def outcome(name: str, stats: list[dict[str, Any]], seconds: float, megabytes: float) -> Outcome:
    """Add up what locust saw."""
    writes = together(stats, WRITES)
    deliveries = together(stats, DELIVERIES)
    return Outcome(
        name=name,
        writes=sum(writes.values()),
        write_p50=percentile(writes, 0.5),
        write_p99=percentile(writes, 0.99),
        deliveries=sum(deliveries.values()),
        delivery_p50=percentile(deliveries, 0.5),
        delivery_p99=percentile(deliveries, 0.99),
        failures=sum(entry["num_failures"] for entry in stats),
        cpu=seconds,
        megabytes=megabytes,
    )


def together(stats: list[dict[str, Any]], names: tuple[str, ...]) -> dict[float, int]:
    """How many took how many milliseconds, over all entries of these names."""
    counts: dict[float, int] = {}
    for entry in stats:
        if entry["name"] in names:
            for milliseconds, count in entry["response_times"].items():
                counts[float(milliseconds)] = counts.get(float(milliseconds), 0) + count
    return counts


def percentile(counts: dict[float, int], part: float) -> float:
    """Milliseconds within which `part` of them were done; NaN if there were none."""
    left = part * sum(counts.values())
    for milliseconds in sorted(counts):
        left -= counts[milliseconds]
        if left <= 0:
            return milliseconds
    return float("nan")


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU of a process and its children."""
    return float(sum(t.user + t.system for t in (p.cpu_times() for p in [process, *process.children(recursive=True)])))


def memory(process: psutil.Process) -> float:
    """Resident memory of a process and its children, in MB."""
    return float(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])) / 1e6


def show(outcomes: list[Outcome]) -> None:
    """One line a server, and the ratio to the first."""
    head = f"{'':14}{'writes':>8}{'p50 ms':>8}{'p99 ms':>8}{'delivered':>11}{'p50 ms':>8}{'p99 ms':>8}{'failed':>8}"
    print(f"\n{head}{'CPU us/op':>11}{'MB':>6}")
    for o in outcomes:
        print(
            f"{o.name[:13]:14}{o.writes:8}{o.write_p50:8.0f}{o.write_p99:8.0f}{o.deliveries:11}{o.delivery_p50:8.1f}{o.delivery_p99:8.1f}"
            f"{o.failures:8}{o.cpu_a_piece:11.0f}{o.megabytes:6.0f}"
        )
    for o in outcomes[1:]:
        print(f"{o.name} costs {o.cpu_a_piece / outcomes[0].cpu_a_piece:.1f} times the CPU of {outcomes[0].name}")


if __name__ == "__main__":
    sys.exit(main())
