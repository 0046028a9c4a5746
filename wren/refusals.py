"""What to do about a request that a worker refused, of which nothing has run."""

from __future__ import annotations

from typing import Any, Final

from anyio import to_thread

from wren.batch import Batch
from wren.errors import (
    DeploymentError,
    IntegrityError,
    SerializationError,
    StorageError,
    TransientError,
    VersionMismatchError,
    WorkerLostError,
    WrenError,
)
from wren.functions import FunctionPacker, PackedFunction
from wren.request import UnpicklableItemsError
from wren.run import Run
from wren.worker import versions

SEND_TRIES: Final = 5
"""How often a request is sent that does not arrive, or not whole."""

_GRANT_TRIES: Final = 5
_UNREADABLE: Final = "the worker could not unpickle it"


class JobError(Exception):
    """Ends the whole job with an error that otherwise is one task's."""

    def __init__(self, error: WrenError) -> None:
        super().__init__(error)
        self.error = error


async def prepare_again(
    run: Run,
    batch: Batch,
    header: dict[str, Any],
    function: PackedFunction | None,
    packer: FunctionPacker,
) -> None:
    """Bring about what was missing, so that the request can be sent again.

    Args:
        run: The job.
        batch: The tasks.
        header: The worker's answer.
        function: What the request named.
        packer: Extends it by a module.

    Raises:
        JobError: No request of this job can be carried out.
        UnpicklableItemsError: One of the arguments cannot be unpickled.
        WrenError: Sending it again at once cannot help.
    """
    reason, detail = header["refused"], header["detail"]
    match reason:
        case "function" if not batch.carry:
            batch.carry = True
        case "version":
            python, wren, cloudpickle = versions()
            raise VersionMismatchError(
                f"the worker has Python, wren, cloudpickle {detail}; this driver "
                f"has {python}, {wren}, {cloudpickle}: deploy again"
            )
        case "module" if function is not run.function:
            pass  # another request of the job has brought what was missing
        case "module":
            assert function is not None  # noqa: S101  # it was sent
            extended = await to_thread.run_sync(packer.with_module, function, detail)
            if extended is None:
                raise DeploymentError(
                    f"the worker has no module {detail!r}: install it there by "
                    "listing it in the file that WREN_REQUIREMENTS names"
                )
            run.use(extended)
        case "argument":
            error = SerializationError(f"{_UNREADABLE}: {detail}")
            raise UnpicklableItemsError({header["position"]: error})
        case "unpickle":
            raise JobError(SerializationError(f"{_UNREADABLE}: {detail}"))
        case "grant":
            batch.refused_grants += 1
            if batch.refused_grants == _GRANT_TRIES:
                raise StorageError(
                    f"{detail}, and so were new ones: look at this machine's clock, "
                    "and at whether the credentials that it signs with are still valid "
                    "and may read what is below wren/jobs/"
                )
            run.spill.renew()
        case "transient":
            raise TransientError(detail)
        case "reply":
            raise WorkerLostError(f"the response could not be stored: {detail}")
        case "corrupt":
            raise IntegrityError(detail)
        case "integrity":
            batch.unsent += 1
            if batch.unsent >= SEND_TRIES:
                raise IntegrityError(detail)
        case _:
            raise StorageError(detail)
