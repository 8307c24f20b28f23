"""Run one of Petastorm's own commands through the layer: `python -m lakefit.petastorm petastorm-throughput.py ...`."""

import sys
from importlib.metadata import distribution

import lakefit.petastorm


def main(arguments: list[str]) -> int:
    """Run the command that `arguments` begin with, after `--trust-pickle` where that is wanted."""
    commands = {
        entry.name: entry for entry in distribution("petastorm").entry_points if entry.group == "console_scripts"
    }
    if arguments[:1] == ["--trust-pickle"]:
        lakefit.petastorm.trust_pickle = True
        arguments = arguments[1:]
    if not arguments or arguments[0] not in commands:
        print(f"usage: python -m lakefit.petastorm [--trust-pickle] COMMAND ...\nCOMMAND: {', '.join(commands)}")
        return 2
    sys.argv = arguments
    return int(commands[arguments[0]].load()() or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
