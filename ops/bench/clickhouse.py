#!/usr/bin/env python3
"""Tallymesh and ClickHouse side by side: the same events over HTTP, the same four questions, CPU of the server process.

    make build
    ops/bench/clickhouse.py target/release/tallymesh --stream sparse --events 3000000

ClickHouse is the engine itself (npm package @chdb/lib-linux-x64-gnu) with its own HTTP handler. It is downloaded once, into ~/.cache. It gets what suits
it: an empty raw table (engine Null), three aggregating views (minute, hour, day), no fsync, no deduplication.
"""
import argparse
import ctypes
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

PACKAGE = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "tallymesh-bench"
CONNECTIONS = 16
READY_WITHIN_S = 30
# Merges that go on longer are not waited for; the table says so.
MERGED_WITHIN_S = 120
WARM_UP = 10

EVENTS = """
CREATE TABLE bench.events (
    event_id UUID, event LowCardinality(String), timestamp DateTime64(3, 'UTC'), session_id String, user_id Nullable(String),
    device_type LowCardinality(String), country_code LowCardinality(String), source LowCardinality(String), value Float64, properties String
) ENGINE = Null"""

VIEW = """
CREATE MATERIALIZED VIEW bench.by_{grain} ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(start) ORDER BY (event, start, device_type, country_code, source) AS
SELECT toStartOf{Grain}(timestamp) AS start, event, device_type, country_code, source,
    countState() AS events, sumState(value) AS total, minState(value) AS least, maxState(value) AS greatest,
    uniqState(user_id) AS users, uniqState(session_id) AS sessions, quantilesDDState(0.01, 0.5, 0.95, 0.99)(value) AS quantiles
FROM bench.events GROUP BY start, event, device_type, country_code, source"""

# The names of `tallymesh bench query`.
QUERIES = {
    "events per minute": "SELECT start, countMerge(events) FROM bench.by_minute WHERE {range} GROUP BY start ORDER BY start",
    "top 10 events by unique users": "SELECT event, uniqMerge(users) AS u FROM bench.by_hour WHERE {range} GROUP BY event ORDER BY u DESC LIMIT 10",
    "by country, device = mobile": "SELECT country_code, countMerge(events) FROM bench.by_hour WHERE {range} AND device_type = 'mobile' GROUP BY country_code",
    "p95 of value by hour": "SELECT start, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(quantiles)[2] FROM bench.by_hour WHERE {range} GROUP BY start ORDER BY start",
}


def library():
    path = CACHE / "package" / "libchdb.so"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
        archive = next(CACHE.glob("chdb-lib-*.tgz"))
        subprocess.run(["tar", "xzf", archive.name], cwd=CACHE, check=True)
        archive.unlink()
    return path


def serve(directory, port):
    """The child: clickhouse-local with its HTTP handler open, until it is killed."""
    forever = (
        "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM numbers(100000000) "
        "SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null"
    )
    args = ["clickhouse", "--path", directory, "--listen_host", "127.0.0.1", "--http_port", str(port), "--query", forever]
    argv = (ctypes.c_char_p * len(args))(*[a.encode() for a in args])
    ctypes.CDLL(str(library())).chdb_query_cmdline(len(args), argv)


class ClickHouse:
    def __init__(self, directory):
        with __import__("socket").socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        command = [sys.executable, os.path.abspath(__file__), "--serve", str(directory), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        while True:
            try:
                self.ask("SELECT 1")
                return
            except OSError:
                if time.monotonic() - began > READY_WITHIN_S or self.process.poll() is not None:
                    self.end()
                    sys.exit("ClickHouse did not start")
                time.sleep(0.05)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port)

    def ask(self, query, body=b"", connection=None, settings=""):
        connection = connection or self.connect()
        connection.request("POST", "/?query=" + urllib.parse.quote(query) + settings, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            sys.exit(f"ClickHouse answered {answer.status}: {text[:500]}")
        return text

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def bodies(path, batch):
    body, lines = bytearray(), 0
    with open(path, "rb") as events:
        for line in events:
            body += line
            lines += 1
            if lines == batch:
                yield bytes(body)
                body, lines = bytearray(), 0
    if body:
        yield bytes(body)


def send(server, path, batch):
    """Over kept-alive connections, each sends its next batch when the last is answered. Seconds, and the times of the batches, sorted."""
    waiting, times, lock = bodies(path, batch), [], threading.Lock()
    insert = "INSERT INTO bench.events FORMAT JSONEachRow"
    settings = "&input_format_json_read_objects_as_strings=1&date_time_input_format=best_effort"

    def drive():
        connection = server.connect()
        while True:
            with lock:
                body = next(waiting, None)
            if body is None:
                return
            began = time.monotonic()
            server.ask(insert, body, connection, settings)
            took = time.monotonic() - began
            with lock:
                times.append(took)

    began = time.monotonic()
    threads = [threading.Thread(target=drive) for _ in range(CONNECTIONS)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return time.monotonic() - began, sorted(times)


def merged(server):
    """Waits until nothing is merged any more and little CPU is used."""
    began, before = time.monotonic(), server.cpu_s()
    while time.monotonic() - began < MERGED_WITHIN_S:
        time.sleep(2)
        now = server.cpu_s()
        if server.ask("SELECT count() FROM system.merges").strip() == "0" and now - before < 0.1:
            return True
        before = now
    return False


def percentile(times, q):
    return times[round((len(times) - 1) * q)]


def measure_clickhouse(args, events, directory):
    server = ClickHouse(directory)
    try:
        server.ask("CREATE DATABASE bench ENGINE = Atomic")
        server.ask(EVENTS)
        for grain in ("minute", "hour", "day"):
            server.ask(VIEW.format(grain=grain, Grain=grain.capitalize()))
        before = server.cpu_s()
        took, acks = send(server, events, args.batch)
        at_last = server.cpu_s() - before
        was_merged = merged(server)
        settled = server.cpu_s() - before
        counted = int(server.ask("SELECT countMerge(events) FROM bench.by_day"))
        if counted != args.events:
            sys.exit(f"ClickHouse counted {counted} of {args.events} events")
        figures = {
            "events per CPU-second": args.events / at_last,
            "events per CPU-second, settled": args.events / settled,
            "events/s": args.events / took,
            "ack p50 ms": percentile(acks, 0.5) * 1e3,
            "ack p99 ms": percentile(acks, 0.99) * 1e3,
            "resident peak MiB": server.peak_mib(),
        }
        if not was_merged:
            print(f"merges of ClickHouse still ran after {MERGED_WITHIN_S} s", file=sys.stderr)
        first, last = server.ask("SELECT min(start), max(start) FROM bench.by_day").split("\t")
        span = f"start >= '{first}' AND start < toDateTime('{last.strip()}', 'UTC') + INTERVAL 1 DAY"
        connection = server.connect()
        for name, query in QUERIES.items():
            times = []
            for n in range(WARM_UP + args.queries):
                began = time.monotonic()
                server.ask(query.format(range=span), b"", connection)
                if n >= WARM_UP:
                    times.append(time.monotonic() - began)
            times.sort()
            figures[name + ", p50 ms"] = percentile(times, 0.5) * 1e3
            figures[name + ", p99 ms"] = percentile(times, 0.99) * 1e3
        return figures
    finally:
        server.end()


def bench(args, *command):
    command = [args.tallymesh, "bench", *command, "--stream", args.stream, "--events", str(args.events), "--batch", str(args.batch)]
    return json.loads(subprocess.run([*command, "--output", "json"], check=True, stdout=subprocess.PIPE).stdout)


def measure_tallymesh(args):
    rows = {row["measure"]: row["value"] for row in bench(args, "ingest", "--settle")}
    figures = {
        "events per CPU-second": rows["events per server CPU-second"],
        "events per CPU-second, settled": rows["sealed: events per server CPU-second"],
        "events/s": rows["throughput"],
        "ack p50 ms": rows["ack p50"],
        "ack p99 ms": rows["ack p99"],
        "resident peak MiB": rows["sealed: server resident, peak"],
    }
    for row in bench(args, "query", "--settle", "--repeat", str(args.queries)):
        figures[row["query"] + ", p50 ms"] = row["p50_ms"]
        figures[row["query"] + ", p99 ms"] = row["p99_ms"]
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tallymesh", nargs="?", help="the release binary")
    parser.add_argument("--stream", choices=["sparse", "dense"], default="sparse")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=100, help="how often each question is asked")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.port)
    if not args.tallymesh:
        parser.error("name the release binary of tallymesh")
    library()
    # Beside the working directory, not in memory: both have to reach a disk.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tallymesh-bench-", dir="."))
    try:
        events = directory / "events.ndjson"
        with open(events, "wb") as out:
            make = [args.tallymesh, "bench", "stream", "--stream", args.stream, "--events", str(args.events)]
            subprocess.run(make, check=True, stdout=out)
        ours = measure_tallymesh(args)
        theirs = measure_clickhouse(args, events, directory / "clickhouse")
    finally:
        shutil.rmtree(directory)
    print(f"{args.stream}, {args.events} events, {args.batch} a batch, {CONNECTIONS} connections\n")
    print(f"{'':44} {'Tallymesh':>12} {'ClickHouse':>12} {'ratio':>8}")
    for name, value in theirs.items():
        lower_is_better = name.endswith(("ms", "MiB"))
        ratio = value / ours[name] if lower_is_better else ours[name] / value
        print(f"{name:44} {ours[name]:12,.2f} {value:12,.2f} {ratio:8.1f}")


if __name__ == "__main__":
    main()
