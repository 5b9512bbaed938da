"""The command of the function: one request on stdin, its answer on stdout."""

import sys

import handler


def main():
    # Bytes that are no UTF-8 reach the handler as replacement characters instead of failing the run.
    request = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    answer = handler.handle(request)
    if answer is not None:
        print(answer)


if __name__ == "__main__":
    main()
