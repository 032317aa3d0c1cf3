"""Scripts that are asked for at the same time go to Redis in one piece, over a connection for that piece alone.

A thousand requests at once are a few pieces, each one system call there and one back, and nobody waits behind others
for a connection of his own. The library's own way to do that, its pipelines, is for one caller with many commands.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from switchboard.ledger import LedgerAway
from switchboard.ledger.patience import Patience

MOST = 128  # commands in one piece: Redis is busy with it for a few milliseconds
AT_ONCE = 4  # pieces under way: enough to keep a Redis busy that is some milliseconds away

Answer: TypeAlias = "int | bytes | Sequence[Answer] | None"
Asked: TypeAlias = "tuple[bytes, asyncio.Future[Answer]]"


class Pool(Protocol):
    """Where connections come from, and go in the end."""

    async def get_connection(self) -> AbstractConnection: ...
    async def release(self, connection: AbstractConnection) -> None: ...


class Pipeline:
    """See the module.

    Args:
        pool: of one server.
        wait: seconds for one piece; longer than `at_most` by the clock on the wall it never is.
    """

    def __init__(self, pool: Pool, *, wait: float, at_most: float) -> None:
        self._pool = pool
        self._wait = wait
        self._at_most = at_most
        self._waiting: list[Asked] = []
        self._free: list[AbstractConnection] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, sha: str, key: str, args: Sequence[str | int]) -> Answer:
        """What a script answers.

        Args:
            sha: its name.
            key: its one key.
            args: what else it is given.

        Raises:
            ResponseError: what Redis says against it.
            LedgerAway: it says nothing, or not in time.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            # Not at once: others who ask in this turn of the event loop come along.
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append((pack_command(("EVALSHA", sha, 1, key, *args)), answer))  # type: ignore[arg-type]  # too narrow
        return await answer

    async def aclose(self) -> None:
        """Give the connections back that nobody uses."""
        while self._free:
            await self._give_up(self._free.pop())

    def _send(self) -> None:
        while self._waiting and len(self._under_way) < AT_ONCE:
            piece, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            sending = asyncio.get_running_loop().create_task(self._converse(piece))
            self._under_way.add(sending)
            sending.add_done_callback(self._done)

    def _done(self, sent: asyncio.Task[None]) -> None:
        self._under_way.discard(sent)
        self._send()

    async def _converse(self, piece: Sequence[Asked]) -> None:
        try:
            async with Patience(self._wait, at_most=self._at_most):
                await self._answer(piece, await self._connection())
        except Exception as error:  # noqa: BLE001 - whatever it is, each of them hears of it
            # Those who wait would wait for the same; they may try another time, or do without.
            late, self._waiting = self._waiting, []
            for _, answer in (*piece, *late):
                if not answer.done():
                    answer.set_exception(LedgerAway(type(error).__name__))
        except BaseException:
            for _, answer in piece:
                answer.cancel()
            raise

    async def _answer(self, piece: Sequence[Asked], connection: AbstractConnection) -> None:
        try:
            await connection.send_packed_command([b"".join(packed for packed, _ in piece)], check_health=False)
            for _, answer in piece:
                said: Answer | ResponseError
                try:
                    said = await connection.read_response(timeout=math.inf)
                except ResponseError as error:  # an answer like another
                    said = error
                if answer.done():  # whoever asked has gone
                    continue
                if isinstance(said, ResponseError):
                    answer.set_exception(said)
                else:
                    answer.set_result(said)
        except BaseException:
            # Answers may still come, and would be taken for those to the next ones.
            await self._give_up(connection)
            raise
        self._free.append(connection)

    async def _connection(self) -> AbstractConnection:
        while self._free:
            known = self._free.pop()
            if known.is_connected and not await known.can_read():
                return known
            await self._give_up(known)  # the server has closed it meanwhile
        made = await self._pool.get_connection()
        made.socket_timeout = None  # it would make a task of each command; the piece has a bound of its own
        return made

    async def _give_up(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)
