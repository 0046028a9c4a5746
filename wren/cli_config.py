"""``wren config``: every setting, its value, and where that comes from."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace

from wren.cli_common import OK, Command, add_json, print_json, print_table
from wren.config import explain, variable


def _configure(parser: ArgumentParser) -> None:
    add_json(parser)


async def _run(args: Namespace) -> int:
    rows = explain()
    if args.json:
        print_json(
            {
                row.name: {
                    # JSON has no infinity.
                    "value": "inf" if row.value == math.inf else row.value,
                    "source": row.source,
                    "variable": variable(row.name),
                    "help": row.help,
                }
                for row in rows
            }
        )
    else:
        print_table(rows)
    return OK


COMMAND = Command(
    "config", "show every setting, its value and its source", _configure, _run
)
