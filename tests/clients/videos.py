"""Makes the videos for Chromium in the given folder, all of the same frames.

A frame tells its second on the left: a grey for the tens above one for the ones. On the right is
noise, which cannot be compressed, so that there is enough of it to jump in. video.mp4 is as a muxer
leaves it, with the index at the end, where a player has to look first. In early.mp4 the index comes
first, for those who watch before all is there; in video.webm too, since without one at hand
Chromium at times reads all that lies between instead of jumping.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

WIDTH, HEIGHT = 640, 360
RATE, SECONDS = 5, 60  # frames in a second, and seconds
BIT_RATE = 3_000_000
BLACK, STEP = 16, 20  # the grey for 0, and what each further digit adds; white is 235
COLOURLESS = 128


def fill(plane: VideoPlane, rows: Iterator[bytes]) -> None:
    plane.update(b"".join(row.ljust(plane.line_size, b"\0") for row in rows))


def frames() -> Iterator[VideoFrame]:
    for number in range(RATE * SECONDS):
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        digits = divmod(number // RATE, 10)
        greys = [bytes([BLACK + STEP * digit]) * (WIDTH // 2) for digit in digits]
        rows = (greys[2 * row // HEIGHT] + os.urandom(WIDTH // 2) for row in range(HEIGHT))
        fill(frame.planes[0], rows)
        for colour in frame.planes[1:]:
            fill(colour, (bytes([COLOURLESS]) * (WIDTH // 2) for _ in range(HEIGHT // 2)))
        frame.pts = number
        yield frame


def add_stream(output: OutputContainer) -> VideoStream:
    stream = output.add_stream("libvpx-vp9", rate=RATE)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.bit_rate = BIT_RATE
    stream.codec_context.gop_size = RATE  # a key frame every second
    stream.codec_context.options = {"deadline": "realtime", "cpu-used": "8"}
    return stream


def encode(file: Path) -> None:
    with av.open(file, "w", options={"cues_to_front": "1"}) as output:
        stream = add_stream(output)
        for frame in frames():
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def copy(source: Path, file: Path, **options: str) -> None:
    """Puts the frames of `source` into another container as they are."""
    with av.open(source) as read, av.open(file, "w", options=options) as output:
        stream = output.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:  # the last one is empty
                packet.stream = stream
                output.mux(packet)


def main() -> None:
    folder = Path(sys.argv[1])
    encode(folder / "video.webm")
    copy(folder / "video.webm", folder / "video.mp4")
    copy(folder / "video.webm", folder / "early.mp4", movflags="faststart")


if __name__ == "__main__":
    main()
