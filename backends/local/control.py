"""What driver and zygote say to each other; apart, as only one of them is the zygote.

Commands, from the driver:  operation (1 byte), worker's number (4)
Events, to the driver:      worker's number (4), exit status (4), bytes of output (4),
                            output
"""

from __future__ import annotations

import struct
from typing import Final

COMMAND: Final = struct.Struct("<cI")
EVENT: Final = struct.Struct("<IiI")
FORK: Final = b"f"
KILL: Final = b"k"

NOT_FORKED: Final = 1 << 16
"""In place of an exit status: there is no such worker, and the output says why."""

CUT_OFF: Final = 113
"""Exit status of a worker whose connection to the driver was closed by its own task."""
