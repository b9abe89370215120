"""DVC's command line, in a process of its own, for one command after the other: each start takes a second.

    python -P dvc_process.py

Each line of stdin is the arguments of a command, as JSON. After a command's output there is a line with MARK
and its exit code.

SIGTERM is for the stage that DVC runs: DVC could be writing dvc.lock just now, and ends when stdin does.
"""

from __future__ import annotations

import json
import os
import signal
import sys

MARK = "DVC's exit code: "


def main() -> None:
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a stage has nobody to ask
    signal.signal(signal.SIGTERM, lambda *_: None)
    # By its arguments DVC names a process to another that has to wait for it.
    sys.argv.append("(a flow run or sweep of this project)")
    from dvc.cli import main as dvc

    for line in commands:
        arguments = json.loads(line)
        code = dvc(arguments)
        sys.stdout.write(f"\n{MARK}{code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
