"""Reads images, from a file or from bytes, as (H, W, 3) uint8 RGB, and writes them. Every fault is a `DataError`.

Only PNG, JPEG, BMP and TIFF are read, since Pillow also knows formats that run programs (PostScript). The content tells
the format, not the file's name. Sizes are checked before anything is decoded. PNG and JPEG files must be whole, which
is checked here: Pillow accepts a PNG with altered pixels, and a JPEG whose lost end is filled with zeros.

- Orientation: with `upright` the EXIF orientation is applied, as for photographs. Textures are read without it, since
  uv refer to the stored rows. In a TIFF the orientation is part of the pixels, so it always applies.
- Alpha is dropped, not composited: the colours of a texture extend beyond its islands, where alpha is zero.
- Pillow converts palettes, grey and CMYK, without colour profiles.
- More than 8 bits: values are divided by a power of two, chosen by the most significant bit of the image or given as
  `bits`, so that the frames of a sequence stay comparable. Floats up to 1 are shares of white.
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
MAX_SIDE = 16384  # pixels: OpenGL's limit for textures, within the 32766 of OpenCV's warps
MAX_PIXELS = 2**26  # of an image, 8192 x 8192: 200 MB of memory
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000  # of a PNG; writers cut pixels into chunks of 8 kB and more
ORIENTATION = 0x0112  # EXIF tag
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed byte of a scan, a restart marker or padding


def read_image(path: str | Path, upright: bool = False) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB; see the module's docstring for `upright`.

    Raises DataError if the file is missing, damaged, too large or none of FORMATS.
    """
    return to_8_bits(read_pixels(path, upright))


def read_pixels(path: str | Path, upright: bool = False) -> np.ndarray:
    """An image from a file, as `decode_pixels` returns it."""
    return decode_pixels(read_bytes(path, "the image"), path, upright)


def decode_pixels(data: bytes, name: object, upright: bool = False) -> np.ndarray:
    """The image in the bytes of a file: (H, W, 3) uint8 RGB, or its stored values if these have more than 8 bits.

    Stored values are (H, W) or (H, W, 3) of type uint16, int32 or float32. Raises a DataError that begins with `name`
    for anything but a whole image of FORMATS within MAX_SIDE and MAX_PIXELS.
    """
    with reading(name, "the image"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header alone
        except UnidentifiedImageError:  # its text names an address in memory
            raise ValueError(f"it is none of {', '.join(FORMATS)}, or its header is damaged") from None
        with image:
            if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise ValueError(f"{size} are more than {MAX_SIDE} a side or {MAX_PIXELS} in all")
            if image.format == "PNG":
                _check_png(data)
            elif image.format in ("JPEG", "MPO"):
                _check_jpeg(data)
            pixels = _pixels(image, data)
            orientation = image.getexif().get(ORIENTATION) if upright else 1  # a PNG may have it behind its pixels
        pixels = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
        pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
        pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
        if pixels.dtype != np.uint8 and not (np.isfinite(pixels).all() and pixels.min() >= 0):
            raise ValueError("some of its values are negative or not finite")
    return np.ascontiguousarray(pixels)


def to_8_bits(pixels: np.ndarray, bits: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 from the result of `decode_pixels`: divided so that 2 ** bits becomes 256, and clipped.

    bits: significant bits of all images that are compared, by default of this image.
    """
    if pixels.dtype != np.uint8:
        bits = significant_bits(pixels) if bits is None else bits
        scaled = pixels * np.float32(2.0 ** (8 - bits)) if pixels.dtype == np.float32 else pixels >> max(bits - 8, 0)
        pixels = np.minimum(scaled, 255).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def significant_bits(pixels: np.ndarray) -> int:
    """Bits that hold the largest value: at least 8 for integers; at least 0 for floats, so that 1.0 is white."""
    largest = pixels.max()
    if pixels.dtype == np.float32:
        return 0 if largest <= 1 else int(np.frexp(largest)[1])
    return max(8, int(largest).bit_length())


def _check_png(data: bytes) -> None:
    """Raise ValueError for a PNG that is cut off, and for a wrong checksum."""
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
    """Raise ValueError for a JPEG without its end marker. Segments are skipped: a thumbnail in one has its own."""
    position = 2
    while marker := JPEG_MARKER.search(data, position):
        kind, position = data[marker.start() + 1], marker.end()
        if kind == 0xD9:
            return
        if position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]
    raise ValueError("it is cut off")


def _pixels(image: Image.Image, data: bytes) -> np.ndarray:
    """The decoded image, as `decode_pixels` returns it, without the EXIF orientation."""
    is_deep_colour = any(";16" in str(tile.args) for tile in image.tile) and not image.mode.startswith("I")
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        return values.astype({"f": np.float32, "u": np.uint16, "i": np.int32}[values.dtype.kind])
    rgb = np.array(image.convert("RGB"))
    return _deep_colour(data, rgb) if is_deep_colour else rgb


def _deep_colour(data: bytes, high: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint16 RGB of an image with 16 bits per colour, whose high bytes are `high`.

    Pillow drops the low bytes, which hold nearly all of a 12-bit camera's signal. OpenCV keeps them, but fills damaged
    parts with grey without an error: therefore its high bytes must equal Pillow's.
    """
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3 or deep.shape[2] < 3:
        raise ValueError("colours of 16 bits in this form; 8 bits, or PNG, can be read")
    deep = deep[..., 2::-1]
    if not np.array_equal(deep >> 8, high):
        raise ValueError("colours of 16 bits in this form: two decoders disagree on the pixels")
    return deep


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix: PNG with fast compression, JPEG at quality 95.

    Sensor noise does not compress: a PNG with Huffman codes alone is smaller and written in half the time, and one
    filter for all rows halves that time again.
    """
    png = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    png += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, 95]
    options = {".png": png, ".jpg": jpeg, ".jpeg": jpeg}.get(Path(path).suffix.lower(), [])
    if not cv2.imwrite(str(path), cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR), options):
        raise DataError.at(path, "the image cannot be written", "check the folder and the space on the disk")
