"""Has Chromium render a page into a picture, and looks at the picture: style, script, words and canvas."""

import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

WIDTH, HEIGHT = 800, 400
PAGE = "file:///srv/page.html"
TIMES = 2
PLACES = {  # a point in the middle of each, and its colour
    "what the style colours": ((200, 100), (0, 114, 178)),
    "what the script colours": ((600, 100), (0, 158, 115)),
    "the left of the canvas": ((500, 300), (230, 0, 0)),
    "the right of the canvas": ((700, 300), (0, 0, 230)),
}

Pixel = tuple[int, int, int]


def render(picture: Path, profile: str) -> None:
    """A browser that starts, renders and ends. It is root here: its own sandbox would not start, the boundary is."""
    argv = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        "--force-color-profile=srgb",
        f"--user-data-dir={profile}",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={picture}",
        PAGE,
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode or not picture.exists():
        sys.exit(f"chromium ended with {done.returncode} and no picture: {done.stderr[-2000:]}")


def pixels(picture: Path) -> list[list[Pixel]]:
    """The rows of a PNG of 8 bits a channel, without interlacing (PNG specification, sections 5, 9 and 11)."""
    data, place, packed = picture.read_bytes(), 8, b""
    channels = width = 0
    while place < len(data):
        (size,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + size]
        if kind == b"IHDR":
            width, _, depth, colour = struct.unpack(">IIBB", body[:10])
            channels = {2: 3, 6: 4}[colour]
            assert depth == 8
        elif kind == b"IDAT":
            packed += body
        place += 12 + size
    raw, stride, rows = zlib.decompress(packed), width * channels, []
    before = bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        row = unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before, channels)
        rows.append([(row[at], row[at + 1], row[at + 2]) for at in range(0, stride, channels)])
        before = row
    return rows


def unfiltered(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    for at in range(len(row)):
        left, corner = (row[at - step], above[at - step]) if at >= step else (0, 0)
        guess = (0, left, above[at], (left + above[at]) // 2, nearest(left, above[at], corner))[kind]
        row[at] = (row[at] + guess) & 255
    return row


def nearest(left: int, above: int, corner: int) -> int:
    """Paeth's predictor."""
    estimate = left + above - corner
    return min((left, above, corner), key=lambda each: abs(estimate - each))


def look(picture: Path) -> None:
    """Ends the program for a picture that is not the page."""
    rows = pixels(picture)
    if (len(rows), len(rows[0])) != (HEIGHT, WIDTH):
        sys.exit(f"the picture has {len(rows[0])} × {len(rows)} pixels, not {WIDTH} × {HEIGHT}")
    for what, ((x, y), right) in PLACES.items():
        if any(abs(mine - its) > 3 for mine, its in zip(rows[y][x], right, strict=True)):
            sys.exit(f"{what} has the colour {rows[y][x]}, not {right}")
    words = [pixel for row in rows[200:] for pixel in row[:400]]
    dark, light = (sum(test(sum(pixel)) for pixel in words) for test in (lambda v: v < 150, lambda v: v > 700))
    if not (1_000 < dark < light):
        sys.exit(f"of the pixels where words should be, {dark} are dark and {light} are light")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(TIMES):
            picture = Path(folder, f"{number}.png")
            began = time.monotonic()
            render(picture, f"{folder}/profile")
            print(f"{'again' if number else 'first'}: {time.monotonic() - began:.3f} s", flush=True)
            look(picture)
    print("the page is as it should be")


main()
