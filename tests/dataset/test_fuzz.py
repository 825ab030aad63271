"""Randomly damaged files of every format that is read: each is read, or refused with a DataError."""

import io
import os
import struct
import time
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from helpers.fuzzing import MEMORY, assert_survives, mutations
from helpers.one_camera import write_video
from openpyxl import Workbook
from PIL import Image

from utils.dataset.boxes import read_boxes
from utils.dataset.cells import read_cells
from utils.dataset.clip_file import CLIP, read_clip
from utils.dataset.images import read_image
from utils.dataset.layout import LAYOUT, read_layout
from utils.dataset.readers import open_sequence
from utils.dataset.tables import load_labels
from utils.errors import DataError
from utils.train.samples import CLASSES

COUNT = 170  # damaged files of a format, times --fuzz
RNG = np.random.default_rng(0)
NOISE = cv2.GaussianBlur(RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8), (0, 0), 1)
DEEP = RNG.integers(0, 4096, (24, 40, 3), dtype=np.uint16)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation=6):
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "camera"
    return tags


PALETTE = Image.fromarray(NOISE).quantize(16)
IMAGES = {
    ".png": [
        saved(NOISE, "PNG", exif=exif()),
        saved(NOISE, "PNG", compress_level=0),
        saved(PALETTE, "PNG", transparency=3),
        saved(DEEP[..., 0], "PNG"),
        cv2.imencode(".png", DEEP)[1].tobytes(),
    ],
    ".jpg": [
        saved(NOISE, "JPEG", exif=exif()),
        saved(NOISE, "JPEG", progressive=True),
        saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
        saved(NOISE[..., 0], "JPEG", restart_marker_blocks=2),
    ],
    ".bmp": [saved(NOISE, "BMP"), saved(PALETTE, "BMP"), saved(PALETTE.convert("1"), "BMP")],
    ".tif": [
        saved(NOISE, "TIFF"),
        saved(NOISE, "TIFF", compression="tiff_lzw", exif=exif(3)),
        saved(NOISE, "TIFF", compression="tiff_adobe_deflate"),
        saved(NOISE, "TIFF", compression="jpeg"),
        saved(NOISE, "TIFF", compression="packbits"),
        saved(DEEP[..., 0], "TIFF"),
        saved(NOISE[..., 0].astype(np.float32), "TIFF"),
        cv2.imencode(".tif", DEEP)[1].tobytes(),
    ],
}


def with_checksums(data):
    """A damaged PNG with correct checksums, up to the first part that is too long."""
    repaired, position = bytearray(data), 8
    while position + 12 <= len(data):
        end = position + 12 + struct.unpack_from(">I", data, position)[0]
        if end > len(data):
            break
        struct.pack_into(">I", repaired, end - 4, zlib.crc32(data[position + 4 : end - 4]))
        position = end
    return bytes(repaired)


def as_image(path):
    image = read_image(path, upright=True)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.flags.c_contiguous


@pytest.mark.parametrize("suffix", IMAGES)
def test_damaged_images_are_read_or_refused(survives, suffix):
    cases = mutations(IMAGES[suffix], 1, survives.many(COUNT), with_checksums if suffix == ".png" else None)
    counts = survives(as_image, f"frame_0001{suffix}", cases)
    assert counts["refused"] > COUNT / 4


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def clip_arrays():
    dome = np.stack([*np.meshgrid(np.arange(5.0), np.arange(5.0)), np.hypot(*np.mgrid[-2:3, -2:3])], -1).reshape(-1, 3)
    faces = np.array([[i, i + 1, i + 5] for i in range(19)], np.int32)
    vertices = np.stack([dome * 40] * 3).astype(np.float32)
    return {"vertices": vertices, "faces": faces, "uv": (dome[:, :2] / 4).astype(np.float32), "fps": np.float32(60)}


def as_clip(path):
    vertices, faces, uv, fps = read_clip(path, 3)
    assert np.isfinite(vertices).all() and np.isfinite(uv).all() and 0 <= faces.min() <= faces.max() < vertices.shape[1]
    assert fps > 0


def test_damaged_clips_are_read_or_refused(survives):
    whole = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **clip_arrays())
        whole.append(buffer.getvalue())
    survives(as_clip, CLIP, mutations(whole, 2, survives.many(COUNT // 2)))


def test_damaged_arrays_in_a_whole_archive_are_read_or_refused(survives):
    arrays = {}
    for name, array in clip_arrays().items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        arrays[name] = buffer.getvalue()

    def archives():
        for name in arrays:
            for case, data in mutations([arrays[name]], 3, survives.many(COUNT // 4)):
                members = {f"{key}.npy": content for key, content in (arrays | {name: data}).items()}
                yield f"{name}, {case}", zipped(members)

    counts = survives(as_clip, CLIP, archives())
    assert counts["read"] and counts["refused"]


HEAD = ",".join(["Id", "subject", *CLASSES, "onset", "apex", "offset"])
LABELS = f'{HEAD}\nS01_001,S01,1,0,0,1.0,0,0,3,9\nS01_002,S01,0,1,0,0,0,,,\n"S02_001",S02, 0 ,0,0,0,1,2,,\n'.encode()
BOXES = b"Id,left_x,left_y,left_side,right_x,right_y,right_side\nS01_001,1,2,99.5,3,4,99\nS01_002,-1,2,50,3,4,1e2\n"


def test_damaged_tables_are_read_or_refused(survives):
    whole = [LABELS, LABELS.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + LABELS, LABELS.decode().encode("utf-16")]
    cases = mutations(whole, 4, survives.many(COUNT))
    counts = survives(lambda path: load_labels(path.parent, CLASSES), "train.csv", cases)
    assert counts["read"] and counts["refused"]


def test_damaged_boxes_are_read_or_refused(survives):
    cases = mutations([BOXES], 5, survives.many(COUNT // 2))
    counts = survives(lambda path: read_boxes(path.parent, 2), "boxes.csv", cases)
    assert counts["read"] and counts["refused"]


SHEET, TEXTS, TYPES = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "[Content_Types].xml"


def workbook():
    """The parts of a workbook with a table of two rows and one shared text; Excel shares all texts."""
    book, buffer = Workbook(), io.BytesIO()
    for row in (["Subject", "Filename", "Apex"], ["S01", "EP02_01f", 46], [2, "EP03 <&> 7", 1.5]):
        book.active.append(row)
    book.create_sheet("notes")["B2"] = "=1+1"
    book.save(buffer)
    with zipfile.ZipFile(buffer) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    inline, shared = b't="inlineStr"><is><t>Filename</t></is>', b't="s"><v>1</v>'
    parts[SHEET] = parts[SHEET].replace(inline, shared)
    kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    entry = b'<Override PartName="/xl/sharedStrings.xml" ContentType="' + kind + b'" /></Types>'
    parts[TYPES] = parts[TYPES].replace(b"</Types>", entry)
    space = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    texts = b"<si><t>x</t></si><si><r><t>File</t></r><r><t>name</t></r></si>"
    return parts | {TEXTS: b'<sst xmlns="' + space + b'" count="2" uniqueCount="2">' + texts + b"</sst>"}


def test_damaged_workbooks_are_read_or_refused(survives, tmp_path):
    """Some are damaged as a whole, but most within one part, for which the checksum of the archive is correct."""
    parts = workbook()
    (tmp_path / "whole.xlsx").write_bytes(zipped(parts))
    assert list(read_cells(tmp_path / "whole.xlsx").columns) == ["Subject", "Filename", "Apex"]

    def books():
        yield from mutations([zipped(parts)], 7, survives.many(COUNT // 4))
        for name in (SHEET, TEXTS, TYPES, "xl/workbook.xml", "xl/styles.xml"):
            for case, data in mutations([parts[name]], 8, survives.many(COUNT // 8)):
                yield f"{name}, {case}", zipped(parts | {name: data})

    counts = survives(read_cells, "train.xlsx", books())
    assert counts["read"] and counts["refused"]


LAYOUTS = (
    b'preset = "casme2"\nclips = "Cropped"\n[columns]\nonset = ["OnsetFrame", "On"]\n[labels]\njoy = "Positive"\n',
    b'table = "t*.csv"\nsheet = "one"\nskip_rows = 3\nfolder = "sub{subject:2}/{filename}"\nframes = "numbers"\n'
    b"cut = true\nseparator = \"+\"\nsubject_pattern = '^S(\\d+)'\n",
)


def test_damaged_layouts_are_read_or_refused(survives):
    cases = mutations(LAYOUTS, 9, survives.many(COUNT))
    counts = survives(lambda path: read_layout(path.parent, CLASSES), LAYOUT, cases)
    assert counts["read"] and counts["refused"]


def as_video(path):
    for frame in open_sequence(path):
        assert frame.texture.dtype == np.uint8 and frame.texture.ndim == 3 and frame.texture.shape[2] == 3


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mp4v"), (".avi", "MJPG")])
def test_damaged_videos_are_read_or_refused(survives, tmp_path, suffix, codec):
    frames = np.stack([np.roll(NOISE.repeat(2, 0).repeat(2, 1), t, axis=1) for t in range(5)])
    write_video(tmp_path / f"good{suffix}", frames, codec)
    cases = mutations([(tmp_path / f"good{suffix}").read_bytes()], 10, survives.many(COUNT // 2))
    counts = survives(as_video, f"P1_001{suffix}", cases)
    assert counts["read"] and counts["refused"]


# The harness itself ---------------------------------------------------------------------------------


def raise_an_index_error(path):
    raise IndexError("of a loader")


def write_beside(path):
    (path.parent / "written").write_text("")


def take_memory(path):
    np.ones(2 * MEMORY, np.uint8)


def refuse_without_a_remedy(path):
    raise DataError("bad")


def end_the_process(path):
    os._exit(3)


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (raise_an_index_error, "2 of 2:\ncase 0.*IndexError: of a loader"),
        (write_beside, "left behind: {'written'}"),
        (take_memory, "case 0.*MemoryError"),
        (refuse_without_a_remedy, "case 0.*bad"),
        (end_the_process, "case 0.*the process ended with it .3."),
        (lambda path: time.sleep(9), "case 0.*TooLongError"),
    ],
)
def test_the_harness_reports_every_other_ending(tmp_path, monkeypatch, read, fault):
    monkeypatch.setattr("helpers.fuzzing.SECONDS", 1)
    with pytest.raises(AssertionError, match=f"(?s){fault}"):
        assert_survives(read, "a", [("case 0", b"0"), ("case 1", b"1")], tmp_path)
