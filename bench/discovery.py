#!/usr/bin/env python3
"""The measuring part of discovery.sh, which prepares what it needs.

usage: discovery.py NAME IMAGE GATEWAY RUNS     (NAME is a network, and the beginning of the services' names)

Two sides are watched at the same time: the engine's task list, for the moment a task runs, and the function's URL.
"""
import collections
import datetime
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

TARGET_MS = 250
LIMIT_S = 30
NO_STATUS = 0  # of a call that broke


class Engine(http.client.HTTPConnection):
    """The Docker engine's API."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))


def engine(method, path):
    """Status and body of one call of the engine."""
    connection = Engine("docker")
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def poll(look, pause_s):
    """What `look` returns once it is not None; None when the time is over."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        seen = look()
        if seen is not None:
            return seen
        time.sleep(pause_s)
    return None


def running(service):
    """When the service's task runs: by its own timestamp, and the moment of seeing it."""
    status, body = engine("GET", "/tasks?filters=" + urllib.parse.quote(json.dumps({"service": [service]})))
    seen = time.time()
    for task in json.loads(body) if status == 200 else []:
        if task["Status"]["State"] == "running":
            # The engine gives nanoseconds, Python reads microseconds.
            stamp = task["Status"]["Timestamp"].rstrip("Z")[:26]
            own = datetime.datetime.fromisoformat(stamp + "+00:00").timestamp()
            return own, seen
    return None


class Caller:
    """Calls one function until it gives the awaited answer; keeps the answers that nobody should have got before that."""

    def __init__(self, gateway, service):
        self.host = gateway.removeprefix("http://")
        self.service = service
        self.odd = []

    def call(self):
        connection = http.client.HTTPConnection(self.host, timeout=LIMIT_S)
        try:
            connection.request("GET", "/function/" + self.service)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return NO_STATUS, repr(error)
        finally:
            connection.close()

    def first(self, awaited, until_then):
        """The moment of the first awaited answer, or None."""

        def look():
            status, body = self.call()
            if status == awaited:
                return time.time()
            if status != until_then:
                text = f"{status} {body}".split(" (call ")[0].replace(self.service, "X")
                self.odd.append(f"instead of {until_then}: {text}")
            return None

        return poll(look, 0.004)


def create(network, image, service):
    command = ["docker", "service", "create", "--detach", "--quiet", "--no-resolve-image"]
    command += ["--network", network, "--name", service, image]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_S)


def one_run(network, image, gateway, service):
    """Milliseconds from running (own timestamp, seen) to the first 200, and from removal to the first 404."""
    caller = Caller(gateway, service)
    found = {}
    watcher = threading.Thread(target=lambda: found.update(running=poll(lambda: running(service), 0.004)))
    calls = threading.Thread(target=lambda: found.update(answered=caller.first(200, until_then=404)))
    watcher.start()
    calls.start()
    create(network, image, service)
    watcher.join()
    calls.join()
    if found["running"] is None or found["answered"] is None:
        sys.exit(f"discovery: {service} did not run and answer within {LIMIT_S} s")
    own, seen = found["running"]
    removed = time.time()
    engine("DELETE", "/services/" + service)
    gone = caller.first(404, until_then=200)
    if gone is None:
        sys.exit(f"discovery: {service} still answered {LIMIT_S} s after its removal")
    answered = found["answered"]
    return [(answered - own) * 1e3, (answered - seen) * 1e3, (gone - removed) * 1e3], caller.odd


def main():
    network, image, gateway, runs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    names = ["200 after task's own time", "200 after seen running", "404 after service rm"]
    rows, odd = [], collections.Counter()
    print("ms, by run:", "; ".join(names))
    for number in range(runs):
        figures, answers = one_run(network, image, gateway, f"{network}-{number}")
        print(f"{number + 1:3}", *(f"{figure:8.0f}" for figure in figures), flush=True)
        rows.append(figures)
        odd.update(answers)
    print(f"{'':28} {'median':>8} {'max':>8}  target <= {TARGET_MS} ms")
    for index, name in enumerate(names):
        figures = [row[index] for row in rows]
        within = sum(figure <= TARGET_MS for figure in figures)
        verdict = "PASS" if within == runs else "FAIL"
        print(f"{name:28} {statistics.median(figures):8.0f} {max(figures):8.0f}  {within} of {runs} {verdict}")
    for answer, count in odd.items():
        print(f"{count} answers {answer}")


main()
