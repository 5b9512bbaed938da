"""What h11, another reader of HTTP/1.1, makes of messages: `differential.rs` compares it with ours.

Reads cases from stdin: one byte for the kind (Q: what a client sends, A: what a server answers to a GET before it closes), four
bytes of length (big-endian), the bytes. Writes one line of JSON for each: the messages, and why there are no more.
"""

import json
import struct
import sys

import h11


def message(first, event):
    fields = {}
    for name, value in event.headers:
        fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    said = [word.strip().lower() for line in fields.get("connection", []) for word in line.split(",")]
    goes_on = event.http_version == b"1.0" and "keep-alive" in said and "close" not in said
    return {"first": first, "id": fields.get("x-id"), "body": "", "whole": False, "goes_on": goes_on}


def read(connection, messages, first):
    """Events until there are no more; says why."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            return "incomplete"
        if event is h11.PAUSED:
            return "paused"
        if isinstance(event, h11.ConnectionClosed):
            return "closed"
        if isinstance(event, (h11.Request, h11.Response)):
            messages.append(message(first(event), event))
        elif isinstance(event, h11.Data):
            messages[-1]["body"] += bytes(event.data).hex()
        elif isinstance(event, h11.EndOfMessage):
            messages[-1]["whole"] = True
            return None


def requests(text, messages):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(text)
    while True:
        end = read(
            connection,
            messages,
            lambda event: [event.method.decode("latin-1"), event.target.decode("latin-1")],
        )
        if end:
            return end
        if connection.our_state is not h11.SEND_RESPONSE:
            return "other protocol"
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
        elif messages[-1]["goes_on"]:
            # h11 does not know that HTTP/1.0 can go on.
            left, _ = connection.trailing_data
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            connection.receive_data(left)
        else:
            return "last"


def answer(text, messages):
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "t")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(text)
    first = lambda event: [str(event.status_code)]
    end = read(connection, messages, first)
    if end == "incomplete":
        connection.receive_data(b"")
        end = read(connection, messages, first)
    return end or "last"


def main():
    source = sys.stdin.buffer
    while head := source.read(5):
        kind, length = struct.unpack(">cI", head)
        text = source.read(length)
        messages = []
        try:
            end = (requests if kind == b"Q" else answer)(text, messages)
        except h11.ProtocolError as error:
            end = "refused: " + str(error)
        print(json.dumps({"messages": messages, "end": end}), flush=True)


main()
