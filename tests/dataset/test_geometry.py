"""Facts about the checks of a mesh and about `clip.npz`: what is refused, and how little is read before."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from helpers.refusals import refused

from utils.dataset.clip_file import CLIP, read_clip
from utils.dataset.geometry import MAX_TILES, check_mesh
from utils.dataset.readers import open_sequence
from utils.errors import DataError

T = 3


@pytest.fixture
def mesh(dome):
    """The arrays of a clip: vertices (T, V, 3), faces (F, 3), uv (V, 2), fps."""
    return {"vertices": np.stack([dome.vertices] * T), "faces": dome.faces, "uv": dome.uv, "fps": np.float32(60)}


@pytest.fixture
def write(tmp_path):
    def written(arrays):
        np.savez(tmp_path / CLIP, **arrays)
        return tmp_path / CLIP

    return written


def replaced(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def float_faces(value):
    return lambda mesh: {"faces": replaced(mesh["faces"].astype(float), (3, 1), value)}


FAULTS = {
    "texts for vertices": (lambda m: {"vertices": m["vertices"].astype(str)}, "vertices are <U"),
    "texts for faces": (lambda m: {"faces": m["faces"].astype(str)}, "faces are <U.*not all of them whole"),
    "texts for uv": (lambda m: {"uv": m["uv"].astype("S8")}, r"uv are \|S8"),
    "bool faces": (lambda m: {"faces": m["faces"] > 5}, "faces are bool"),
    "bool vertices": (lambda m: {"vertices": m["vertices"] > 5}, "vertices are bool"),
    "complex vertices": (lambda m: {"vertices": m["vertices"] + 1j}, "vertices are complex"),
    "dates for vertices": (lambda m: {"vertices": m["vertices"].astype("datetime64[s]")}, "vertices are datetime"),
    "NaN among faces": (float_faces(np.nan), "faces are float64, not all of them whole"),
    "infinite face": (float_faces(np.inf), "faces are float64, not all of them whole"),
    "half a face": (float_faces(3.5), "faces are float64, not all of them whole"),
    "negative face": (lambda m: {"faces": replaced(m["faces"], (0, 0), -1)}, "beyond the 1681"),
    "huge face": (lambda m: {"faces": replaced(m["faces"].astype(np.uint64), (0, 0), 2**63 + 5)}, "beyond the 1681"),
    "faces all of one vertex": (lambda m: {"faces": np.zeros_like(m["faces"])}, "faces have no area"),
    "faces of two vertices": (lambda m: {"faces": m["faces"][:, [0, 1, 1]]}, "faces have no area"),
    "one tiny face": (lambda m: {"faces": m["faces"][:1]}, "faces have no area"),
    "a NaN": (lambda m: {"vertices": replaced(m["vertices"], (..., 4, 2), np.nan)}, "NaN .* the first is number 4"),
    "huge vertices": (lambda m: {"vertices": m["vertices"] * np.float32(1e25)}, "fits no length unit"),
    "beyond float32": (lambda m: {"vertices": m["vertices"].astype(float) * 1e300}, "not finite"),
    "large vertices": (lambda m: {"vertices": m["vertices"] * 1e6}, "fits no length unit"),
    "all in one point": (lambda m: {"vertices": m["vertices"] * 0}, "a point or a line in frame 0"),
    "one frame a point": (lambda m: {"vertices": replaced(m["vertices"], 1, 7)}, "a point or a line in frame 1"),
    "a line": (lambda m: {"vertices": m["vertices"][..., :1] * np.float32([1, 2, 3])}, "a point or a line"),
    "uv huge": (lambda m: {"uv": replaced(m["uv"], 5, 1e30)}, "its uv reach from .* to 1e.30"),
    "uv in pixels": (lambda m: {"uv": m["uv"] * 640}, "its uv reach from 0 to 640"),
    "uv of a tile": (lambda m: {"uv": m["uv"] + [1, 0]}, "its uv reach from 0 to 2"),
    "uv beyond float32": (lambda m: {"uv": m["uv"].astype(float) + 1e300}, "uv are not finite"),
    "uv all one point": (lambda m: {"uv": m["uv"] * 0 + 0.5}, "uv are one point"),
    "uv of other vertices": (lambda m: {"uv": m["uv"][:-1]}, "the arrays have the shapes"),
    "uv of three": (lambda m: {"uv": np.ones((1681, 3))}, "the arrays have the shapes"),
    "quads": (lambda m: {"faces": np.zeros((4, 4), int)}, "the arrays have the shapes"),
    "no vertices": (lambda m: {"vertices": m["vertices"][:, :0]}, "empty"),
    "no faces": (lambda m: {"faces": m["faces"][:0]}, "empty"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_mesh_that_cannot_be_drawn_is_refused(mesh, write, name):
    change, fault = FAULTS[name]
    changed = mesh | change(mesh)
    with pytest.raises(DataError, match=rf"clip.npz: .*{fault}.*Remedy: "):
        read_clip(write(changed), T)
    if name != "one frame a point":  # the same for a single frame
        with pytest.raises(DataError, match=rf"^a.obj: .*{fault.replace(' in frame 0', '')}.*Remedy: "):
            check_mesh("a.obj", changed["vertices"][0], changed["faces"], changed["uv"])


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.uint8, np.int64])
def test_numbers_of_any_type_become_float32_and_int32(mesh, write, kind):
    moved = np.round(mesh["vertices"] + 100).astype(kind)
    faces = mesh["faces"].astype(float if kind == np.float64 else np.uint64)
    vertices, faces, uv, fps = read_clip(write(mesh | {"vertices": moved, "faces": faces}), T)
    np.testing.assert_array_equal(vertices, moved)
    np.testing.assert_array_equal(faces, mesh["faces"])
    assert (vertices.dtype, faces.dtype, uv.dtype, fps) == (np.float32, np.int32, np.float32, 60.0)


def test_a_plane_a_stray_vertex_and_uv_slightly_outside_are_accepted(mesh):
    for change in (
        {"vertices": mesh["vertices"] * np.float32([1, 1, 0])},
        {"vertices": replaced(mesh["vertices"], (0, 0), 900)},
        {"vertices": replaced(mesh["vertices"], (0, slice(3)), 1e5)},
        {"uv": mesh["uv"] * 1.02 - 0.01},
        {"uv": np.stack([mesh["uv"]] * T)},
        {"vertices": mesh["vertices"] * np.float32(1e-3)},
        {"vertices": mesh["vertices"] * np.float32(1e3)},
    ):
        changed = mesh | change
        check_mesh("a", changed["vertices"], changed["faces"], changed["uv"])


def test_uv_of_a_texture_that_repeats_may_lie_in_other_tiles_within_a_bound(mesh):
    vertices, faces, uv = mesh["vertices"][0], mesh["faces"], mesh["uv"]
    for tiles in ([3, 0], [-MAX_TILES + 1, 2]):
        np.testing.assert_allclose(check_mesh("a", vertices, faces, uv + tiles, tiled=True)[2], uv + tiles, atol=1e-4)
    far = replaced(uv, 5, MAX_TILES + 9)
    for wrong, fault in ((far, "its uv reach from 0 to 1.01e+03"), (uv * 0 + 0.5, "uv are one point")):
        with refused("a: ", fault):
            check_mesh("a", vertices, faces, wrong, tiled=True)


def test_a_mesh_without_a_texture_has_uv_of_zeros(mesh):
    uv = check_mesh("a", mesh["vertices"][0], mesh["faces"], None)[2]
    assert uv.shape == (1681, 2) and uv.dtype == np.float32 and not uv.any()


# The file -------------------------------------------------------------------------------------------


def test_a_compressed_clip_in_column_order_is_read(mesh, tmp_path):
    np.savez_compressed(tmp_path / CLIP, **{name: np.asfortranarray(array) for name, array in mesh.items()})
    np.testing.assert_array_equal(read_clip(tmp_path / CLIP, T)[0], mesh["vertices"])


@pytest.mark.parametrize("fps", ["sixty", np.nan, 0, -60, np.inf, [60, 60, 60], True, 1e9])
def test_an_impossible_frame_rate_is_refused(mesh, write, fps):
    with refused("clip.npz: fps is ", "write it again"):
        read_clip(write(mesh | {"fps": fps}), T)


def test_a_clip_without_a_frame_rate_gets_60_frames_per_second(mesh, write):
    del mesh["fps"]
    assert read_clip(write(mesh), T)[3] == 60


def test_objects_are_not_unpickled(mesh, write, tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path / "harm").mkdir, ()

    path = write(mesh | {"uv": np.array([Harm()], dtype=object)})
    with refused("clip.npz: the clip cannot be read"):
        read_clip(path, T)
    pickled = pickle.dumps(Harm())
    shape = (1 + len(pickled) // 8,)  # bytes behind a pickle are ignored, so that it can have any declared size
    path = write({name: array for name, array in mesh.items() if name != "fps"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("fps.npy", member(shape, "|O", pickled.ljust(8 * shape[0])))
    with refused("clip.npz: the clip cannot be read (Object arrays"):
        read_clip(path, T)
    assert not (tmp_path / "harm").exists()


def test_a_missing_array_is_named(mesh, write):
    del mesh["uv"]
    with refused("clip.npz: the clip cannot be read", "uv.npy"):
        read_clip(write(mesh), T)


def member(shape, dtype="<f4", content=b"", zeros=0):
    """The member of an archive: a header that declares any shape, then some content, then so many zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue() + content + bytes(zeros)


@pytest.mark.parametrize(
    ("shape", "zeros"),
    [
        ((T, 2**22 + 1, 3), 0),
        ((T, 10**6, 3), 0),
        ((T, 10**15, 3), 0),
        ((T, 2**22, 3), 10),
        ((T + 1, 10**6, 3), 48 * 10**6),
    ],
)
def test_a_clip_that_declares_more_than_it_has_is_refused_before_memory_is_allocated(mesh, write, shape, zeros):
    path = write({name: array for name, array in mesh.items() if name != "vertices"})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vertices.npy", member(shape, zeros=zeros))
    tracemalloc.start()
    try:
        with refused("clip.npz: "):
            read_clip(path, T)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_an_altered_byte_is_noticed(mesh, write):
    path = write(mesh)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with refused("clip.npz: the clip cannot be read", "CRC"):
        read_clip(path, T)


def test_a_pipe_with_the_name_of_a_clip_is_refused(tmp_path, at_most):
    os.mkfifo(tmp_path / CLIP)
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").write_bytes(b"")
    with at_most(10), refused("regular file"):
        open_sequence(tmp_path)
