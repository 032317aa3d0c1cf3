"""The emulator's own routes, for tests and for people: which calls there are, which faults it shows."""

from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from switchboard.emulator.options import Faults
from switchboard.emulator.refusal import call_not_found
from switchboard.emulator.routes import Media
from switchboard.emulator.state import Emulator

_FAULTS: Final[TypeAdapter[Faults]] = TypeAdapter(Faults)


class Control:
    """The routes under `/_emulator`."""

    def __init__(self, emulator: Emulator, media: Media) -> None:
        self._emulator = emulator
        self._media = media

    def routes(self) -> list[Route]:
        return [
            Route("/_emulator/calls", self.calls, methods=["GET"]),
            Route("/_emulator/calls/{call_id}", self.drop, methods=["DELETE"]),
            Route("/_emulator/faults", self.faults, methods=["GET"]),
            Route("/_emulator/faults", self.set_faults, methods=["PUT"]),
        ]

    async def calls(self, request: Request) -> Response:  # noqa: ARG002
        rows: list[dict[str, Any]] = [
            {
                "id": call.id,
                "state": "ended" if self._emulator.is_over(call) else "open",
                "started_at": call.started_at,
                "ended_at": self._emulator.ended_at(call),
                "session": call.session,
                "safety_identifier": call.safety_identifier,
                "connected": call.connected,
            }
            for call in self._emulator.calls
        ]
        return JSONResponse({"calls": rows})

    async def drop(self, request: Request) -> Response:
        """The provider loses a call: its far end is gone, and nobody has asked for that."""
        call_id = request.path_params["call_id"]
        if self._emulator.call(call_id) is None:
            raise call_not_found()
        self._emulator.end(call_id)
        await self._media.close(call_id)
        return Response(status_code=204)

    async def faults(self, request: Request) -> Response:  # noqa: ARG002
        return Response(_FAULTS.dump_json(self._emulator.faults), media_type="application/json")

    async def set_faults(self, request: Request) -> Response:
        """Replaces all faults; an empty object ends them."""
        try:
            faults = _FAULTS.validate_json(await request.body())
        except ValidationError as error:
            mistakes = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            return JSONResponse({"error": {"message": "; ".join(mistakes)}}, 422)
        self._emulator.set_faults(faults)
        return await self.faults(request)
