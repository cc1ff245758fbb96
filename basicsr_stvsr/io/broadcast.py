"""Times of recorded broadcasts: transport and program streams, which may be cut, joined, or start below zero."""
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from .frame_source import Notes
from .video_info import early_start

_BACK = Fraction(1, 10)  # seconds by which times must go back where another part begins; FFmpeg's own limit


class BroadcastClock:
    """Makes the times of a broadcast start at 0 or later, and go on where they begin anew.

    The time at which the next part begins is set by the stream whose packet comes first. The others follow, so that
    sound and picture stay in sync. All readers of a file must therefore see the packets of all of its streams.

    Args:
        container: open, at its beginning.
        notes: gets a warning for each joint.
    """

    def __init__(self, container: Any, notes: Notes | None = None):
        self._shifts = [early_start(container)]  # of each part, seconds
        self._notes = notes
        self._part: dict[int, int] = {}  # of each stream
        self._last: dict[int, tuple[Fraction, Fraction]] = {}  # of each stream: shifted decoding time, duration

    def packets(self, container: Any) -> Iterator[Any]:
        """Yield the packets of all streams, with their times changed in place."""
        for packet in container.demux():
            if packet.dts is not None:
                self._set_times(packet)
            yield packet

    def _set_times(self, packet: Any) -> None:
        index, time = packet.stream_index, packet.dts * packet.time_base
        part = self._part.get(index, 0)
        if (last := self._last.get(index)) and time + self._shifts[part] < last[0] - _BACK:
            part = self._part[index] = part + 1
            if part == len(self._shifts):
                self._shifts.append(last[0] + last[1] - time)
                if self._notes:
                    self._notes.add('joint', f'times begin anew after {float(last[0]):.3f} s; the parts are joined')
        shift = self._shifts[part]
        self._last[index] = time + shift, (packet.duration or 0) * packet.time_base
        ticks = round(shift / packet.time_base)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks
