"""Who waits for a block of some height to be durable. Used from one event loop."""

import asyncio

from freehold.base.errors import FreeholdError


class HeightWaiters:
    """Futures by height."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, height: int) -> None:
        """Wait until `reached` tells of a height.

        Raises:
            FreeholdError: what `fail` was told.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(height, []).append(future)
        try:
            await future
        finally:
            waiting = self._waiting.get(height, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[height]

    def reached(self, height: int) -> None:
        """Tell those who wait for a height up to this one."""
        for waited in [waited for waited in self._waiting if waited <= height]:
            for future in self._waiting.pop(waited):
                if not future.done():
                    future.set_result(None)

    def fail(self, error: FreeholdError) -> None:
        """Tell everyone that nothing will come any more."""
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()
