"""Streaming blocks through two places in GPU memory: one is read while the other is filled."""

from __future__ import annotations

from fllm_export.engines.tensorrt.device_table import PLACES, Block, DeviceTable
from fllm_export.engines.tensorrt.gpu import Event, Gpu, Memory, Stream


class Staging:
    """The places and the stream that fills them. One pass at a time.

    Args:
        gpu: whose memory holds the places.
        table: whose blocks come through; without streamed ones there are no places.
    """

    def __init__(self, gpu: Gpu, table: DeviceTable) -> None:
        places = PLACES if table.place_size else 0
        self._places = [Memory(gpu, table.place_size) for _ in range(places)]
        self._held: list[Block | None] = [None] * places
        self._arrived = [Event(gpu) for _ in range(places)]
        self._left = [Event(gpu) for _ in range(places)]
        self._stream = Stream(gpu)
        self._current = 1

    def bring(self, block: Block) -> None:
        """Put a streamed block's copy on its way, as soon as its place has been read; a resident one is there."""
        if block.resident or block in self._held:
            return
        # The other place holds the block that was begun last.
        place = 1 - self._current
        self._stream.wait(self._left[place])
        self._stream.copy(self._places[place].address, block.memory.address, block.layout.size)
        self._stream.record(self._arrived[place])
        self._held[place] = block

    def begin(self, block: Block, stream: Stream) -> int:
        """Let a stream wait for a block, and return where it lies."""
        if block.resident:
            return block.memory.address
        self.bring(block)
        self._current = self._held.index(block)
        stream.wait(self._arrived[self._current])
        return self._places[self._current].address

    def end(self, block: Block, stream: Stream) -> None:
        """Say that what was put on the stream is the last to read the block."""
        if not block.resident:
            stream.record(self._left[self._held.index(block)])

    def forget(self) -> None:
        """Take nothing for granted of what the places hold, after a failure."""
        self._held = [None] * len(self._places)
