"""Reads images, from a file or from bytes, as (H, W, 3) uint8 RGB, and writes them. What is wrong is a `DataError`.

PNG, JPEG, BMP and TIFF alone, told apart by their content and never by the file's name: Pillow knows formats that run
programs (PostScript). Sizes are checked before anything is decoded, and that a file is whole, since decoders accept
altered pixels (Pillow of a PNG) and cut ones (libjpeg).

- Orientation: with `upright` the EXIF orientation is applied, as for photographs. A UV texture is addressed by its
  stored rows, so it is read as it is; TIFF counts its orientation as part of the pixels, so there it always applies.
- Alpha is dropped and not composited: a texture's colours reach beyond its islands, where alpha is zero.
- Palettes, grey and CMYK are converted by Pillow, without colour profiles.
- More than 8 bits: divided by one power of two, that of the most significant bit of the image, or the `bits` given, so
  that the frames of one sequence stay comparable. Floats up to 1 are taken for shares of white.
"""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import DataError, read_bytes, reading

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_SIDE = 16384  # pixels: what OpenGL takes as a texture; OpenCV's warps end at 32766
MAX_PIXELS = 2**26  # of an image, 8192 x 8192: 200 MB of memory
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000  # of a PNG; writers cut pixels into chunks of 8 kB and more
ORIENTATION = 0x0112  # EXIF tag
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte of the scan nor a restart nor padding
# What brings stored rows upright, by EXIF orientation.
UPRIGHT = {
    2: lambda rows: rows[:, ::-1],
    3: lambda rows: rows[::-1, ::-1],
    4: lambda rows: rows[::-1],
    5: lambda rows: rows.swapaxes(0, 1),
    6: lambda rows: np.rot90(rows, -1),
    7: lambda rows: rows[::-1, ::-1].swapaxes(0, 1),
    8: lambda rows: np.rot90(rows),
}


def read_image(path: str | Path, upright: bool = False, bits: int | None = None) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB; see the module for `upright` and `bits`.

    Raises DataError if it is missing, damaged, too large or none of FORMATS.
    """
    return to_8_bits(read_pixels(path, upright), bits)


def decode_image(data: bytes, name: object, upright: bool = False, bits: int | None = None) -> np.ndarray:
    """The same from the bytes of a file; `name` stands in the messages."""
    return to_8_bits(decode_pixels(data, name, upright), bits)


def read_pixels(path: str | Path, upright: bool = False) -> np.ndarray:
    """An image as `decode_pixels` gives it, from a file."""
    return decode_pixels(read_bytes(path, "the image"), path, upright)


def decode_pixels(data: bytes, name: object, upright: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 RGB, or with their stored values what has more bits: (H, W) or (H, W, 3) uint16, int32, float32.

    Raises DataError that begins with `name` for anything but a whole image of FORMATS within MAX_SIDE and MAX_PIXELS.
    """
    with reading(name, "the image"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _opened(data) as image:
            _check_size(*image.size)
            _check_whole(data, image.format)
            pixels = _pixels(image, data)
            if upright:  # asked after decoding, since a PNG may have its EXIF behind its pixels
                pixels = UPRIGHT.get(image.getexif().get(ORIENTATION), np.asarray)(pixels)
        if pixels.dtype != np.uint8 and not (np.isfinite(pixels).all() and pixels.min() >= 0):
            raise ValueError("some of its values are negative or no numbers")
    return np.ascontiguousarray(pixels)


def to_8_bits(pixels: np.ndarray, bits: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 of what `decode_pixels` gives: divided such that 2 ** bits becomes 256, and clipped there.

    bits: of all images that are to be compared, by default those of this one.
    """
    if pixels.dtype != np.uint8:
        bits = significant_bits(pixels) if bits is None else bits
        scaled = pixels * np.float32(2.0 ** (8 - bits)) if pixels.dtype == np.float32 else pixels >> max(bits - 8, 0)
        pixels = np.minimum(scaled, 255).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def significant_bits(pixels: np.ndarray) -> int:
    """Bits that hold the largest value: 8 and more for integers; for floats 0 and more, so that 1.0 is white."""
    largest = pixels.max()
    if pixels.dtype == np.float32:
        return 0 if largest <= 1 else int(np.frexp(largest)[1])
    return max(8, int(largest).bit_length())


# Before and while decoding ------------------------------------------------------------------------


def _opened(data: bytes) -> Image.Image:
    """The image with its header read alone. Pillow's own words would name an address in memory."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}, or its header is damaged") from None


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MAX_SIDE} a side or {MAX_PIXELS} in all")


def _check_whole(data: bytes, kind: str | None) -> None:
    """Raise ValueError for a PNG or JPEG that is cut off, and a PNG whose checksums are wrong.

    The others have no mark of an end or a checksum, and Pillow itself refuses one whose pixels are cut.
    """
    if kind == "PNG":
        _check_png(data)
    elif kind in ("JPEG", "MPO"):
        _check_jpeg(data)


def _check_png(data: bytes) -> None:
    content, position = memoryview(data), len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise ValueError("it is cut off")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ValueError("it is cut off")
        if zlib.crc32(content[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ValueError(f"the checksum of its part {kind.decode('latin-1')!r} is wrong")
        if kind == b"IEND":
            return
        position = end
    raise ValueError(f"it has more than {MAX_CHUNKS} parts")


def _check_jpeg(data: bytes) -> None:
    """Walk the segments and scans up to the mark of the end (a thumbnail within a segment has its own)."""
    position = 2
    while found := JPEG_MARKER.search(data, position):
        kind, position = data[found.start() + 1], found.end()
        if kind == 0xD9:
            return
        if position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]
    raise ValueError("it is cut off")


def _pixels(image: Image.Image, data: bytes) -> np.ndarray:
    """The decoded image as `decode_pixels` says, as stored (not turned)."""
    is_deep_colour = any(";16" in str(tile.args) for tile in image.tile) and not image.mode.startswith("I")
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        return values.astype({"f": np.float32, "u": np.uint16, "i": np.int32}[values.dtype.kind])
    rgb = np.array(image.convert("RGB"))
    return _deep_colour(data, rgb) if is_deep_colour else rgb


def _deep_colour(data: bytes, high: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint16 RGB. Pillow keeps the high bytes alone, which hold next to nothing of a 12-bit camera.

    OpenCV gives all, and is held against Pillow, which notices damage where OpenCV leaves a grey remainder.
    """
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3 or deep.shape[2] < 3:
        raise ValueError("colours of 16 bits in this form; 8 bits, or PNG, can be read")
    deep = deep[..., 2::-1]
    if not np.array_equal(deep >> 8, high):
        raise ValueError("colours of 16 bits in this form, of which two decoders make other pixels")
    return deep


# Writing --------------------------------------------------------------------------------------------


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix: PNG packed for speed, JPEG at quality 95.

    Sensor noise does not compress: without the search for repetitions a PNG is written in half the time, and smaller;
    with one filter for all rows, rather than the best of five for each, in half of that, and it is read sooner.
    """
    packing = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    packing += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if is_jpeg else packing if Path(path).suffix.lower() == ".png" else []
    if not cv2.imwrite(str(path), cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR), options):
        raise DataError.at(path, "the image cannot be written", "check the folder and the space on the disk")
