"""Facts about reading images: what is refused, how more than 8 bits become 8, and which way is up."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from utils.dataset.images import MAX_SIDE, UPRIGHT, decode_image, read_image, significant_bits, to_8_bits, write_image
from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip
from utils.errors import DataError, read_bytes

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
TWELVE_BITS = RNG.integers(0, 4096, (24, 40, 3), dtype=np.uint16)


def packed(image, kind="PNG", **options):
    """The bytes of an image file; arrays of 16-bit colour by OpenCV, since Pillow cannot write them."""
    if getattr(image, "dtype", None) == np.uint16 and image.ndim == 3:
        return cv2.imencode(f".{kind.lower()}", np.dstack([image[..., 2::-1], image[..., 3:]]))[1].tobytes()
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, content):
    """A part of a PNG with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, rows=b""):
    """A PNG of 8-bit grey that declares any size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(data, fault):
    with pytest.raises(DataError, match=rf"^frame_7: the image cannot be read \(.*{fault}.*Remedy: deliver"):
        decode_image(data, "frame_7")


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_images_read_back_as_written(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(packed(NOISE, kind))  # whatever the name says
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), NOISE)
    np.testing.assert_array_equal(decode_image(packed(NOISE, kind), "a"), NOISE)


def test_a_jpeg_reads_back_nearly(tmp_path):
    smooth = cv2.GaussianBlur(NOISE, (0, 0), 4)
    assert np.abs(decode_image(packed(smooth, "JPEG", quality=95), "a").astype(int) - smooth).max() < 12


@pytest.mark.parametrize("program", ["(here) (w) file (hello) writestring showpage", "{} loop"])
def test_a_program_named_as_an_image_is_not_run(tmp_path, monkeypatch, at_most, program):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.png").write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{program}\n%%EOF"
    )
    with at_most(10), pytest.raises(DataError, match="1.png.*cannot be read"):
        read_image(tmp_path / "1.png")
    assert [file.name for file in tmp_path.iterdir()] == ["1.png"]


@pytest.mark.parametrize("kind", ["GIF", "PPM", "WEBP", "ICO", "TGA", "PCX", "SGI"])
def test_formats_beyond_the_four_are_refused(kind):
    refused(packed(NOISE, kind), "none of PNG, JPEG, BMP, TIFF")


@pytest.mark.parametrize(
    ("width", "height"), [(20000, 20000), (MAX_SIDE + 1, 1), (10000, 10000), (2**31 - 1, 2**31 - 1)]
)
def test_a_header_that_declares_absurd_sizes_is_refused_before_anything_is_decoded(width, height, recwarn):
    refused(png(width, height), "pixels|none of")
    assert not recwarn.list


def test_a_long_strip_within_the_bounds_is_read():
    assert decode_image(png(MAX_SIDE, 1, bytes(MAX_SIDE + 1)), "a").shape == (1, MAX_SIDE, 3)


def test_a_file_beyond_the_bound_and_what_is_no_file_are_refused(tmp_path, at_most):
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(DataError, match="large: the file cannot be read .it has 11 bytes, more than 10.*Remedy"):
        read_bytes(tmp_path / "large", limit=10)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    faults = {"pipe.png": "no regular file", "folder.png": "no regular file", "device.png": "no regular file"}
    faults |= {"missing.png": "No such file", "x" * 5000: "too long", "nul\0.png": "null"}
    for name, fault in faults.items():
        with at_most(10), pytest.raises(DataError, match=f"the image cannot be read .*{fault}.*Remedy"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_png_whose_checksum_is_wrong_is_refused(place):
    data = bytearray(packed(NOISE, compress_level=0))  # stored: any byte of it would be taken for a pixel
    data[int(place * len(data))] ^= 0x55
    refused(bytes(data), "checksum of its part 'IDAT'")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.8, 0.99])
def test_a_cut_file_is_refused(kind, share):
    data = packed(NOISE, kind)
    refused(data[: int(share * len(data))], "")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_whose_end_is_zeros_or_lacks_its_mark_is_refused(kind):
    data = packed(cv2.GaussianBlur(NOISE, (0, 0), 4), kind)
    refused(data[: len(data) * 2 // 3] + bytes(len(data) // 3), "")
    refused(data[:-2] if kind == "JPEG" else data[:-12], "cut off")


def test_a_thumbnail_does_not_pass_for_the_end_of_a_jpeg():
    data = packed(NOISE, "JPEG", exif=b"Exif\0\0" + packed(NOISE, "JPEG"))
    np.testing.assert_array_equal(decode_image(data, "a"), decode_image(packed(NOISE, "JPEG"), "a"))
    refused(data[:-2], "cut off")


def test_what_follows_the_end_does_not_matter():
    for kind in ("PNG", "JPEG"):
        data = packed(NOISE, kind)
        np.testing.assert_array_equal(decode_image(data + b"appended", "a"), decode_image(data, "a"))


# More than 8 bits, and other kinds of pixels --------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("depth", [8, 9, 12, 16])
def test_16_bits_of_grey_become_8_by_the_most_significant_bit(kind, depth):
    grey = (TWELVE_BITS[..., 0].astype(int) << 4 >> (16 - depth)).astype(np.uint16)
    image = decode_image(packed(grey, kind), "a")
    np.testing.assert_array_equal(image, np.repeat((grey >> (depth - 8))[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colour_keep_what_a_12_bit_camera_saw(kind, channels):
    colour = np.dstack([TWELVE_BITS, np.full((24, 40, channels - 3), 4095, np.uint16)])
    np.testing.assert_array_equal(decode_image(packed(colour, kind), "a"), TWELVE_BITS >> 4)


def test_big_endian_and_wide_integers_are_read():
    for values in (TWELVE_BITS[..., 0].astype(">u2"), TWELVE_BITS[..., 0].astype(np.int32)):
        image = (
            Image.fromarray(values)
            if values.dtype == np.int32
            else Image.frombytes("I;16B", (40, 24), values.tobytes())
        )
        np.testing.assert_array_equal(decode_image(packed(image, "TIFF"), "a")[..., 1], TWELVE_BITS[..., 0] >> 4)


def test_floats_are_shares_of_white_or_counts():
    counts = NOISE[..., 0].astype(np.float32)
    for values in (counts / 255, counts, counts * 16):
        np.testing.assert_array_equal(decode_image(packed(values, "TIFF"), "a")[..., 2], NOISE[..., 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_values_that_are_no_brightness_are_refused(value):
    grey = NOISE[..., 0].astype(np.float32)
    grey[3, 4] = value
    refused(packed(grey, "TIFF"), "negative or no numbers")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_frames_of_one_sequence_share_one_scale(tmp_path, kind):
    """Largest values on both sides of 1024: a scale of each frame's own would halve the brightness of one."""
    for t, largest in enumerate((1000, 1030, 900)):
        grey = np.full((24, 40), 600, np.uint16)
        grey[0, 0] = largest
        (tmp_path / f"frame_{t}.{kind.lower()}").write_bytes(packed(grey, kind))
    sequence = open_sequence(tmp_path)
    assert [int(sequence.texture(t)[5, 5, 0]) for t in (2, 0, 1)] == [600 >> 3] * 3
    assert read_image(sequence.files[0])[5, 5, 0] == 600 >> 2


def test_one_scale_clips_and_never_wraps():
    grey = np.array([[300, 70000]], np.int32)
    assert to_8_bits(grey, 9)[0, :, 0].tolist() == [150, 255]
    assert significant_bits(grey) == 17 and significant_bits(np.zeros((1, 1), np.uint16)) == 8


def test_alpha_is_dropped_and_palettes_and_grey_are_colours():
    alpha = np.dstack([NOISE, NOISE[..., :1]])
    np.testing.assert_array_equal(decode_image(packed(alpha), "a"), NOISE)
    palette = Image.fromarray(NOISE).quantize(16)
    np.testing.assert_array_equal(decode_image(packed(palette), "a"), np.array(palette.convert("RGB")))
    np.testing.assert_array_equal(decode_image(packed(NOISE[..., 0]), "a"), np.repeat(NOISE[..., :1], 3, 2))
    cmyk = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).convert("CMYK")
    assert np.abs(decode_image(packed(cmyk, "TIFF"), "a")[2, 2].astype(int) - (200, 100, 50)).max() < 3


# Which way is up ------------------------------------------------------------------------------------


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_photographs_come_upright_and_textures_as_stored(kind, orientation):
    data = packed(NOISE, kind, exif=turned(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, "a", upright=True), expected)
    np.testing.assert_array_equal(decode_image(data, "a"), decode_image(packed(NOISE, kind), "a"))
    assert UPRIGHT.keys() == set(range(2, 9))


def test_16_bit_colour_comes_upright_too():
    data = packed(TWELVE_BITS)
    exif = chunk(b"eXIf", turned(6).tobytes()[6:])
    image = decode_image(data[:33] + exif + data[33:], "a", upright=True)
    np.testing.assert_array_equal(image, np.rot90(TWELVE_BITS >> 4, -1))


@pytest.mark.parametrize("form", ["composites", "clip"])
def test_composites_turned_by_exif_are_read_upright(tmp_path, dome, form):
    smooth = cv2.GaussianBlur(NOISE, (0, 0), 5)
    folder = write_clip(tmp_path / "c", np.stack([dome.vertices] * 2), dome.faces, dome.uv, 60, [smooth] * 2, ".jpg")
    for file in folder.glob("*.jpg"):
        Image.fromarray(np.rot90(smooth)).save(file, quality=95, exif=turned(6))
    if form == "composites":
        (folder / "clip.npz").unlink()
    assert np.abs(open_sequence(folder).texture(1).astype(int) - smooth).max() < 12


def test_tiff_frames_are_frames(tmp_path):
    for t in range(2):
        write_image(tmp_path / f"{t}.tif", NOISE)
    np.testing.assert_array_equal(open_sequence(tmp_path).texture(1), NOISE)
