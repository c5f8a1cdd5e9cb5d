"""Type what a document says, in an empty folder and a network of its own: ``python tutorial.py DOCUMENT``.

It needs nothing but Python, bash and unshare, so that it runs beside an installed wheel too.
"""

import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

PATIENCE = 120.0
END = "end of the answer"

# Its own loopback, on which the ports of the document are free; its programs end with it.
NETWORK = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
LOOPBACK_UP = """
import fcntl, os, socket, struct
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp("bash", ["bash", "--norc", "--noprofile"])
"""
LISTENS = "until (: < /dev/tcp/127.0.0.1/{}) 2> /dev/null; do sleep 0.1; done"
# Where programs listen that say nothing.
PORTS = {"authz issuer 2>": 9190, "authz serve": 9191, "envoy": 10_000, "CERT_FILE=": 50_051}


class Step(NamedTuple):
    """A command, and what the document says that it prints."""

    command: str
    answer: list[str]


def steps(text: str) -> list[Step]:
    """Return the commands of a text in their order."""
    blocks = re.findall(r"(?ms)^```console\n(.*?)^```$", text)
    commands = re.findall(r"(?m)^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks))
    return [Step(command, answer.splitlines()) for command, answer in commands]


def files(text: str) -> dict[str, str]:
    """Return the files that a reader is told to save: those whose first line is their name."""
    return {match[2]: match[1] for match in re.finditer(r"(?ms)^```\w+\n(# (\S+\.\w+)\n.*?)^```$", text)}


class Terminal:
    """A shell in which a reader types; a context manager.

    Args:
        folder: where it begins.
        variables: its environment.

    """

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            [*NETWORK, sys.executable, "-c", LOOPBACK_UP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**variables, "PYTHONUNBUFFERED": "1"},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._lines.put(line.rstrip("\n"))

    def type(self, step: Step) -> list[str]:
        """Return what is answered until the command ends, or is ready where it stays in the background."""
        stays = step.command.endswith("&")
        waits = [LISTENS.format(port) for start, port in PORTS.items() if stays and step.command.startswith(start)]
        # What stays and says something is ready when it has said it.
        last = step.answer[-1] if stays and step.answer else END
        assert self._shell.stdin is not None
        self._shell.stdin.write("\n".join([step.command, *waits, *([f"echo {END}"] if last == END else [])]) + "\n")
        self._shell.stdin.flush()
        answer: list[str] = []
        while not answer or answer[-1] != last:
            try:
                answer.append(self._lines.get(timeout=PATIENCE))
            except queue.Empty:
                raise TimeoutError("\n".join([f"$ {step.command}", *answer])) from None
        return answer if last != END else answer[:-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()


def follow(text: str, folder: Path, variables: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Do what a text says; return the commands whose answers are others than it says, with these answers.

    Args:
        text: the document, from the first step that is to be typed.
        folder: an empty one.
        variables: the environment.

    """
    for name, content in files(text).items():
        (folder / name).write_text(content, encoding="utf-8")
    with Terminal(folder, variables) as terminal:
        answers = [(step, terminal.type(step)) for step in steps(text)]
    # The issuer goes on with a command that is too long for the document.
    shown = [(step, [line for line in answer if not line.startswith("curl ")]) for step, answer in answers]
    return [(step.command, answer) for step, answer in shown if answer != step.answer]


def main(document: str) -> None:
    """Follow the document from its second step, with the programs beside this interpreter."""
    _, _, text = Path(document).read_text(encoding="utf-8").partition("\n## 2. ")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        wrong = follow(text, Path(folder), {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"})
    for command, answer in wrong:
        print(f"$ {command}", *answer, sep="\n")
    print(f"{document}: {len(steps(text))} commands, {len(wrong)} wrong answers, {time.monotonic() - began:.1f} s")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(sys.argv[1])
