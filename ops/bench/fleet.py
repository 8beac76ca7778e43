#!/usr/bin/env python3
"""What an event costs a fleet beside what it costs a single node, how long a node that was away takes to come back, and what an upgrade node by node does.

    ops/bench/fleet.py target/release/tallymesh cost --events 1000000
    ops/bench/fleet.py target/release/tallymesh back --events 6000000
    ops/bench/fleet.py target/release/tallymesh upgrade --old ../older/target/release/tallymesh

cost: one node alone, three nodes with one copy of each shard, and three with three, each on new directories; the same events go through one of the nodes, and the
CPU of all of them is read. back: of three nodes with three copies one is killed, the events come, it is started again; then it is killed and wiped, and takes a
new place. Timed until every shard has all three copies and none lacks an entry. upgrade: three nodes of an older build take events all the time; one is restarted
with the newer build, goes back to the older, and then all are restarted with the newer, one by one; in the end every node has to have counted every event once.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid

READY_WITHIN_S = 60
STOP_WITHIN_S = 30
WHOLE_WITHIN_S = 300
TICKS = os.sysconf("SC_CLK_TCK")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_until_ready(port, process):
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a node ended at once: {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"a node was not ready within {READY_WITHIN_S} s")


class Fleet:
    def __init__(self, binary, nodes, replication, directory):
        ports = free_ports(2 * nodes)
        self.http, peers = ports[:nodes], ports[nodes:]
        self.directory = directory
        self.processes = [None] * nodes
        cookie = directory / "cookie"
        cookie.write_text("only for this measurement")
        cookie.chmod(0o600)
        self.commands = []
        for n in range(nodes):
            command = [binary, "serve", "--data-dir", self.data_dir(n), "--http", f"127.0.0.1:{self.http[n]}", "--set", "logs.level=error"]
            if nodes > 1:
                join = ",".join(f"127.0.0.1:{port}" for port in peers)
                command += ["--node", f"n{n + 1}", "--peer", f"127.0.0.1:{peers[n]}", "--join", join]
                command += ["--set", f"cluster.replication={replication}", "--set", f"peer.cookie_file={cookie}"]
            self.commands.append(list(map(str, command)))

    def data_dir(self, n):
        return self.directory / f"n{n + 1}"

    def start(self, *which):
        for n in which or range(len(self.processes)):
            self.processes[n] = subprocess.Popen(self.commands[n], stdout=subprocess.DEVNULL)
        for n in which or range(len(self.processes)):
            wait_until_ready(self.http[n], self.processes[n])

    def kill(self, n):
        self.processes[n].kill()
        self.processes[n].wait()

    def cpu_seconds(self):
        return [cpu_seconds(process.pid) for process in self.processes]

    def send(self, binary, args):
        bench = [binary, "bench", "ingest", "--url", f"http://127.0.0.1:{self.http[0]}", "--stream", args.stream, "--batch", args.batch]
        bench += ["--events", args.events, "-o", "json"]
        out = subprocess.run(list(map(str, bench)), stdout=subprocess.PIPE, check=True).stdout
        accepted = next(row["value"] for row in json.loads(out) if row["measure"] == "accepted")
        if accepted != args.events:
            raise SystemExit(f"{accepted} of {args.events} events were accepted")

    def is_whole(self, lag_max):
        """Every shard is led, is where it is to be, and no copy lacks more entries than that."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http[0]}/v1/cluster", timeout=5) as answer:
            cluster = json.load(answer)
        alive = sum(node["alive"] for node in cluster["nodes"])
        return alive == len(self.processes) and all(
            s["leader"] and s["lag"] <= lag_max and not s["coming"] and not s["going"] and len(s["replicas"]) == len(s["placed"]) for s in cluster["shards"]
        )

    def wait_until_whole(self, lag_max=0):
        began = time.monotonic()
        while time.monotonic() < began + WHOLE_WITHIN_S:
            if self.is_whole(lag_max):
                return
            time.sleep(0.1)
        raise SystemExit(f"the fleet was not whole within {WHOLE_WITHIN_S} s")

    def stop(self):
        running = [process for process in self.processes if process and process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


def with_fleet(binary, nodes, replication, do):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tallymesh-fleet-", dir=".")).resolve()
    fleet = Fleet(binary, nodes, replication, directory)
    try:
        fleet.start()
        return do(fleet)
    finally:
        fleet.stop()
        shutil.rmtree(directory, ignore_errors=True)


def cost(binary, args):
    def used(fleet):
        time.sleep(args.settle)
        before = fleet.cpu_seconds()
        fleet.send(binary, args)
        return [after - b for after, b in zip(fleet.cpu_seconds(), before)]

    one = None
    print(f"{'nodes':>5} {'copies':>6} {'CPU s':>8} {'events a CPU-second':>20} {'of one node':>12}  by node")
    for nodes, replication in [(1, 1), (3, 1), (3, 3)]:
        by_node = with_fleet(binary, nodes, replication, used)
        total = sum(by_node)
        one = one or total
        by_node = ", ".join(f"{u:.2f}" for u in by_node)
        print(f"{nodes:>5} {replication:>6} {total:>8.2f} {args.events / total:>20,.0f} {total / one:>11.2f}x  {by_node}", flush=True)


def size_bytes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def back(binary, args):
    def away(fleet):
        time.sleep(args.settle)
        fleet.kill(2)
        fleet.send(binary, args)
        began = time.monotonic()
        fleet.start(2)
        ready = time.monotonic() - began
        fleet.wait_until_whole()
        whole = time.monotonic() - began
        print(f"away for {args.events} events: ready after {ready:.1f} s, all caught up after {whole:.1f} s", flush=True)
        fleet.kill(2)
        shutil.rmtree(fleet.data_dir(2))
        time.sleep(args.settle)
        began = time.monotonic()
        fleet.start(2)
        fleet.wait_until_whole()
        healed = time.monotonic() - began
        gigabytes = size_bytes(fleet.data_dir(2)) / 1e9
        print(f"wiped: whole again after {healed:.1f} s, {gigabytes:.2f} GB of log and shards, {healed / gigabytes:.0f} s a GB", flush=True)

    with_fleet(binary, 3, 3, away)


class Writers:
    """Send batches to all nodes in turn; what is not acked is sent again, to another node, with the same ids."""

    BATCH = 50
    THREADS = 3
    # While they write a copy is never without any.
    LAG_MAX = 50
    REQUEST_WITHIN_S = 10

    def __init__(self, fleet):
        self.fleet = fleet
        self.lock = threading.Lock()
        self.acked = self.attempts_failed = 0
        self.last_ack, self.longest_gap_s = time.monotonic(), 0.0
        self.going_on = True
        self.threads = [threading.Thread(target=self.write, args=(n,)) for n in range(self.THREADS)]
        for thread in self.threads:
            thread.start()

    def write(self, node):
        while self.going_on:
            events = [{"event_id": str(uuid.uuid4()), "event": f"e{n % 7}", "country_code": "SE", "value": n} for n in range(self.BATCH)]
            body = json.dumps(events).encode()
            while True:
                node = (node + 1) % len(self.fleet.http)
                try:
                    self.send(node, body)
                    break
                except OSError:
                    with self.lock:
                        self.attempts_failed += 1
                    time.sleep(0.02)

    def send(self, node, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.fleet.http[node]}/v1/events", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=self.REQUEST_WITHIN_S) as answer:
            answer.read()
        with self.lock:
            now = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_ack)
            self.last_ack = now
            self.acked += self.BATCH

    def take_gap(self):
        with self.lock:
            gap, self.longest_gap_s = self.longest_gap_s, 0.0
            return gap

    def stop(self):
        self.going_on = False
        for thread in self.threads:
            thread.join()


def counted(port):
    url = f"http://127.0.0.1:{port}/v1/query?metric=*&agg=count&range=2d"
    with urllib.request.urlopen(url, timeout=10) as answer:
        answer = json.load(answer)
    assert answer["receipt"]["complete"], answer["receipt"]
    return answer["data"][0]["values"]["count"]


def upgrade(binary, args):
    if args.old is None:
        raise SystemExit("--old is missing: the build to upgrade from")
    old = args.old.resolve()

    def by_and_by(fleet):
        fleet.wait_until_whole()
        writers = Writers(fleet)
        try:
            for n, build in [(0, binary), (0, old), (0, binary), (1, binary), (2, binary)]:
                time.sleep(args.settle)
                fleet.processes[n].terminate()
                fleet.processes[n].wait(STOP_WITHIN_S)
                fleet.commands[n][0] = str(build)
                fleet.start(n)
                fleet.wait_until_whole(Writers.LAG_MAX)
                print(f"n{n + 1} with {build}: whole; longest time without an ack {writers.take_gap():.2f} s", flush=True)
            time.sleep(args.settle)
            fleet.kill(2)
            fleet.start(2)
            fleet.wait_until_whole(Writers.LAG_MAX)
            print(f"n3 killed and started: whole; longest time without an ack {writers.take_gap():.2f} s", flush=True)
        finally:
            writers.stop()
        fleet.wait_until_whole()
        counts = [counted(port) for port in fleet.http]
        print(f"{writers.acked} events acked, {writers.attempts_failed} attempts failed; counted at the nodes: {counts}")
        if counts != [writers.acked] * len(counts):
            raise SystemExit("events were lost or counted twice")

    with_fleet(old, 3, 3, by_and_by)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path, help="a release build")
    parser.add_argument("what", choices=["cost", "back", "upgrade"])
    parser.add_argument("--old", type=pathlib.Path, help="upgrade: the build to begin with")
    parser.add_argument("--stream", default="sparse", choices=["sparse", "dense"])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--settle", type=float, default=5, help="seconds between the fleet's founding and the first event")
    args = parser.parse_args()
    {"cost": cost, "back": back, "upgrade": upgrade}[args.what](args.binary.resolve(), args)


if __name__ == "__main__":
    main()
