"""Facts about reading images: what is refused, how more than 8 bits become 8, and the EXIF orientation."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image, ImageOps

from utils.dataset.images import MAX_SIDE, decode_pixels, read_image, significant_bits, to_8_bits
from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip
from utils.errors import DataError, read_bytes

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = cv2.GaussianBlur(NOISE, (0, 0), 4)
TWELVE_BITS = RNG.integers(0, 4096, (24, 40, 3), dtype=np.uint16)


def packed(image, kind="PNG", **options):
    """The bytes of an image file; OpenCV writes arrays of 16-bit colour, since Pillow cannot."""
    if getattr(image, "dtype", None) == np.uint16 and image.ndim == 3:
        return cv2.imencode(f".{kind.lower()}", np.dstack([image[..., 2::-1], image[..., 3:]]))[1].tobytes()
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data, upright=False):
    return to_8_bits(decode_pixels(data, "a", upright))


def chunk(kind, content):
    """A part of a PNG with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, rows=b""):
    """A PNG of 8-bit grey that declares any size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def assert_refused(data, fault=""):
    with pytest.raises(DataError, match=rf"^frame_7: the image cannot be read \(.*{fault}.*Remedy: deliver"):
        decode_pixels(data, "frame_7")


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_images_read_back_as_written_whatever_their_name(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(packed(NOISE, kind))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), NOISE)


def test_a_jpeg_reads_back_nearly(tmp_path):
    assert np.abs(decoded(packed(SMOOTH, "JPEG", quality=95)).astype(int) - SMOOTH).max() < 12


@pytest.mark.parametrize("program", ["(here) (w) file (hello) writestring showpage", "{} loop"])
def test_a_program_with_the_name_of_an_image_is_not_run(tmp_path, monkeypatch, at_most, program):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.png").write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{program}\n%%EOF"
    )
    with at_most(10), refused("1.png", "cannot be read"):
        read_image(tmp_path / "1.png")
    assert [file.name for file in tmp_path.iterdir()] == ["1.png"]


@pytest.mark.parametrize("kind", ["GIF", "PPM", "WEBP", "ICO", "TGA", "PCX", "SGI"])
def test_other_formats_are_refused(kind):
    assert_refused(packed(NOISE, kind), "none of PNG, JPEG, BMP, TIFF")


@pytest.mark.parametrize(
    ("width", "height"), [(20000, 20000), (MAX_SIDE + 1, 1), (10000, 10000), (2**31 - 1, 2**31 - 1)]
)
def test_an_absurd_size_is_refused_before_anything_is_decoded(width, height, recwarn):
    assert_refused(png(width, height), "pixels|none of")
    assert not recwarn.list


def test_a_long_strip_within_the_bounds_is_read():
    assert decoded(png(MAX_SIDE, 1, bytes(MAX_SIDE + 1))).shape == (1, MAX_SIDE, 3)


def test_a_file_that_is_too_large_missing_or_not_regular_is_refused(tmp_path, at_most):
    (tmp_path / "large").write_bytes(bytes(11))
    with refused("large: the file cannot be read (it has 11 bytes, more than 10"):
        read_bytes(tmp_path / "large", limit=10)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    faults = dict.fromkeys(("pipe.png", "folder.png", "device.png"), "regular file")
    faults |= {"missing.png": "No such file", "x" * 5000: "too long", "nul\0.png": "null"}
    for name, fault in faults.items():
        with at_most(10), refused("the image cannot be read", fault):
            read_image(tmp_path / name)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_png_with_a_wrong_checksum_is_refused(place):
    data = bytearray(packed(NOISE, compress_level=0))  # not compressed: a decoder takes any byte for a pixel
    data[int(place * len(data))] ^= 0x55
    assert_refused(bytes(data), "checksum of its part 'IDAT'")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.8, 0.99])
def test_a_file_that_is_cut_off_is_refused(kind, share):
    data = packed(NOISE, kind)
    assert_refused(data[: int(share * len(data))])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_without_its_end_mark_or_with_zeros_at_its_end_is_refused(kind):
    for data in (packed(SMOOTH, kind), cv2.imencode(f".{kind.lower()}", NOISE)[1].tobytes()):
        for share in (0.5, 0.66, 0.9, 0.98):
            length = int(share * len(data))
            assert_refused(data[:length] + bytes(len(data) - length))
        assert_refused(data[:-2] if kind == "JPEG" else data[:-12], "cut off")


def test_the_end_mark_of_a_thumbnail_is_not_the_end_of_a_jpeg():
    data = packed(NOISE, "JPEG", exif=b"Exif\0\0" + packed(NOISE, "JPEG"))
    np.testing.assert_array_equal(decoded(data), decoded(packed(NOISE, "JPEG")))
    assert_refused(data[:-2], "cut off")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_bytes_behind_the_end_are_ignored(kind):
    data = packed(NOISE, kind)
    np.testing.assert_array_equal(decoded(data + b"appended"), decoded(data))


# More than 8 bits, and other kinds of pixels --------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("depth", [8, 9, 12, 16])
def test_16_bits_of_grey_become_8_by_the_most_significant_bit(kind, depth):
    grey = (TWELVE_BITS[..., 0].astype(int) << 4 >> (16 - depth)).astype(np.uint16)
    np.testing.assert_array_equal(decoded(packed(grey, kind)), np.repeat((grey >> (depth - 8))[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colour_keep_the_signal_of_a_12_bit_camera(kind, channels):
    colour = np.dstack([TWELVE_BITS, np.full((24, 40, channels - 3), 4095, np.uint16)])
    np.testing.assert_array_equal(decoded(packed(colour, kind)), TWELVE_BITS >> 4)


def test_big_endian_and_wide_integers_are_read():
    grey = TWELVE_BITS[..., 0]
    for image in (
        Image.fromarray(grey.astype(np.int32)),
        Image.frombytes("I;16B", (40, 24), grey.astype(">u2").tobytes()),
    ):
        np.testing.assert_array_equal(decoded(packed(image, "TIFF"))[..., 1], grey >> 4)


def test_floats_are_shares_of_white_or_counts():
    counts = NOISE[..., 0].astype(np.float32)
    for values in (counts / 255, counts, counts * 16):
        np.testing.assert_array_equal(decoded(packed(values, "TIFF"))[..., 2], NOISE[..., 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_values_that_are_no_brightness_are_refused(value):
    grey = NOISE[..., 0].astype(np.float32)
    grey[3, 4] = value
    assert_refused(packed(grey, "TIFF"), "negative or not finite")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_frames_of_a_sequence_share_one_scale(tmp_path, kind):
    """Their largest values lie on both sides of 1024: with its own scale, one frame would have half the brightness."""
    for t, largest in enumerate((1000, 1030, 900)):
        grey = np.full((24, 40), 600, np.uint16)
        grey[0, 0] = largest
        (tmp_path / f"frame_{t}.{kind.lower()}").write_bytes(packed(grey, kind))
    sequence = open_sequence(tmp_path)
    assert [int(sequence.texture(t)[5, 5, 0]) for t in (2, 0, 1)] == [600 >> 3] * 3
    assert read_image(sequence.files[0])[5, 5, 0] == 600 >> 2


def test_a_shared_scale_clips_and_never_wraps():
    grey = np.array([[300, 70000]], np.int32)
    assert to_8_bits(grey, 9)[0, :, 0].tolist() == [150, 255]
    assert significant_bits(grey) == 17 and significant_bits(np.zeros((1, 1), np.uint16)) == 8


def test_alpha_is_dropped_and_palettes_and_grey_become_colours():
    alpha = np.dstack([NOISE, NOISE[..., :1]])
    np.testing.assert_array_equal(decoded(packed(alpha)), NOISE)
    palette = Image.fromarray(NOISE).quantize(16)
    np.testing.assert_array_equal(decoded(packed(palette)), np.array(palette.convert("RGB")))
    np.testing.assert_array_equal(decoded(packed(NOISE[..., 0])), np.repeat(NOISE[..., :1], 3, 2))
    cmyk = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).convert("CMYK")
    assert np.abs(decoded(packed(cmyk, "TIFF"))[2, 2].astype(int) - (200, 100, 50)).max() < 3


# EXIF orientation -----------------------------------------------------------------------------------


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_photographs_come_upright_and_textures_as_stored(kind, orientation):
    data = packed(NOISE, kind, exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(decoded(data, upright=True), expected)
    np.testing.assert_array_equal(decoded(data), decoded(packed(NOISE, kind)))


def test_16_bit_colour_comes_upright_too():
    data = packed(TWELVE_BITS)
    part = chunk(b"eXIf", exif(6).tobytes()[6:])
    np.testing.assert_array_equal(decoded(data[:33] + part + data[33:], upright=True), np.rot90(TWELVE_BITS >> 4, -1))


@pytest.mark.parametrize("form", ["composites", "clip"])
def test_composites_with_an_exif_orientation_are_read_upright(tmp_path, dome, form):
    folder = write_clip(tmp_path / "c", np.stack([dome.vertices] * 2), dome.faces, dome.uv, 60, [SMOOTH] * 2)
    for file in sorted(folder.glob("*.png")):
        Image.fromarray(np.rot90(SMOOTH)).save(file.with_suffix(".jpg"), quality=95, exif=exif(6))
        file.unlink()
    if form == "composites":
        (folder / "clip.npz").unlink()
    assert np.abs(open_sequence(folder).texture(1).astype(int) - SMOOTH).max() < 12
