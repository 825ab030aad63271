"""Facts about mesh files: files of exporters are read as these mean them, other files are refused with a remedy."""

import json
import os
import urllib.parse
import zlib

import numpy as np
import pytest
from helpers.mesh_files import BLUE, RED, Gltf, grid, obj_text, plain, png, textured, write_objs, write_png
from helpers.refusals import refused

from utils.dataset.readers import open_sequence
from utils.dataset.wavefront import parse_map, parse_mtl
from utils.dataset.writers import write_obj_sequence
from utils.render.views import make_views

N_VERTICES = len(grid()[0])
MOVE = np.tile(np.array([0, 0.01, 0], "<f4"), (N_VERTICES, 1))  # upwards by 10 mm
MATERIALS = "newmtl skin\nmap_Kd skin.png\nnewmtl eye\nmap_Kd eye.png\n"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(written) (w) file closefile\nshowpage\n"


def refuses(folder, *words, t=0):
    """Reading frame t raises a DataError with these words and a remedy."""
    with refused(*words):
        open_sequence(folder).frame(t)


def vertices_of(folder):
    """The vertices (V, 3) of the first frame, in millimetres."""
    return open_sequence(folder).geometry(0)[0]


def uv_of(folder):
    return open_sequence(folder).geometry(0)[2]


def colour_of(folder):
    """The colour in the middle of the first frame's texture."""
    texture = open_sequence(folder).texture(0)
    return tuple(texture[texture.shape[0] // 2, texture.shape[1] // 2].tolist())


def assert_pixel(views, colour, frame=0, view=0, row=32):
    """The pixel in the middle column of a view of 64 pixels has this colour."""
    assert np.abs(views.frames[frame, view, row, 32].astype(int) - colour).max() <= 1


def write_clip(folder, text, frames=2):
    """A clip of equal OBJ frames, each with a red image beside it."""
    for t in range(frames):
        write_png(folder / f"f_{t}.png", plain())
    return write_objs(folder, text, frames)


def write_texts(folder, suffix, text):
    """A clip of two equal frames of text."""
    folder.mkdir(exist_ok=True)
    for t in range(2):
        (folder / f"f_{t}{suffix}").write_text(text)
    return folder


@pytest.fixture
def clip(tmp_path):
    """Two OBJ frames with the library m.mtl; the test writes the material."""
    return write_objs(tmp_path / "clip", obj_text(*grid()))


@pytest.fixture
def whole(tmp_path):
    """Two OBJ frames with an image beside each."""
    return write_clip(tmp_path / "clip", obj_text(*grid()))


# Materials ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("skin.png", "skin.png"),
        ("-s 1.0 1.0 1.0 skin.png", "skin.png"),
        ("-s 1 1 skin.png", "skin.png"),
        ("-o .5 -.25 0 -t 1e-3 0 0 my skin 2.png", "my skin 2.png"),
        ("-blendu off -blendv on -clamp on -bm 0.4 -imfchan r -mm 0 1 -texres 512 skin.png", "skin.png"),
        ("-CLAMP ON skin.png", "skin.png"),
        ('"my skin.png"', "my skin.png"),
        ("-s 1 1 1 2.png", "2.png"),
        ("-unknown skin.png", "-unknown skin.png"),
        ("-clamp", "-clamp"),
    ],
)
def test_options_before_the_name_of_a_texture_are_not_part_of_it(text, name):
    assert parse_map(text).name == name


def test_the_options_of_a_texture_scale_and_shift_the_uv(clip):
    (clip / "m.mtl").write_text("newmtl skin\nmap_Kd -s .5 .5 1 -o .25 .125 0 skin.png\n")
    write_png(clip / "skin.png", plain())
    np.testing.assert_allclose(uv_of(clip), grid()[2] * 0.5 + [0.25, 0.125], atol=1e-6)


def test_keywords_have_any_case_and_names_have_spaces():
    text = "# made by hand\n\tNEWMTL my skin\nKd 1 1 1\n  MAP_KD  left eye.png \nnewmtl teeth\r\nKd 1 1 1\n"
    maps = parse_mtl(text)
    assert maps["my skin"].name == "left eye.png" and maps["teeth"] is None


@pytest.mark.parametrize(
    ("named", "stored"),
    [
        ("textures\\skin.png", "textures/skin.png"),
        ("./textures/skin.png", "textures/skin.png"),
        ("D:\\work\\face 1\\textures\\skin.png", "textures/skin.png"),
        ("D:\\work\\face 1\\textures\\skin.png", "skin.png"),
        ("/home/someone/scans/skin.png", "skin.png"),
        ("../../elsewhere/skin.png", "skin.png"),
        ("Skin.PNG", "skin.png"),
        ("häut.png", "häut.png"),
        ("textures\\skin.png", "textures\\skin.png"),  # some programs unpack archives of Windows like this
    ],
)
def test_a_texture_is_found_by_its_name_in_the_folder_of_the_clip(clip, named, stored):
    (clip / "m.mtl").write_bytes(f"newmtl skin\nmap_Kd {named}\n".encode("latin-1"))
    write_png(clip / stored, plain(BLUE))
    assert colour_of(clip) == BLUE


def test_a_texture_outside_the_clip_is_never_read(tmp_path, clip):
    outside = write_png(tmp_path / "outside" / "other.png", plain(BLUE))
    inside = write_png(clip / "f_0.png", plain(RED))
    for named in (outside, "../outside/other.png", outside.as_uri()):
        (clip / "m.mtl").write_text(f"newmtl skin\nmap_Kd {named}\n")
        assert colour_of(clip) == RED
    inside.unlink()
    refuses(clip, "f_0.obj", "other.png")


def test_a_material_library_outside_the_clip_is_not_read(tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    write_png(tmp_path / "skin.png", plain())
    refuses(write_objs(tmp_path / "clip", obj_text(*grid(), head="mtllib ../m.mtl\nusemtl skin")), "texture is missing")


def test_a_link_out_of_the_clip_is_refused_unless_the_mesh_is_linked_to_the_same_place(tmp_path, clip):
    (clip / "m.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    outside = write_png(tmp_path / "outside" / "skin.png", plain(BLUE))
    (clip / "skin.png").symlink_to(outside)
    refuses(clip, "skin.png is a link that leads out")
    (clip / "f_0.obj").rename(outside.parent / "f_0.obj")  # a clip of links to one folder of scans
    (clip / "f_0.obj").symlink_to(outside.parent / "f_0.obj")
    assert colour_of(clip) == BLUE
    (clip / "skin.png").unlink()
    write_png(clip / "maps" / "one.png", plain(RED))
    (clip / "skin.png").symlink_to(clip / "maps" / "one.png")
    assert colour_of(clip) == RED


def test_hidden_files_and_linked_folders_hold_no_texture(tmp_path, clip):
    for named in (".skin.png", "textures/skin.png"):
        (clip / "m.mtl").write_text(f"newmtl skin\nmap_Kd {named}\n")
        write_png(clip / ".skin.png", plain())
        write_png(tmp_path / "outside" / "skin.png", plain())
        if not (clip / "textures").exists():
            (clip / "textures").symlink_to(tmp_path / "outside")
        refuses(clip, "texture is missing")


@pytest.mark.parametrize("name", ["a" * 5000 + ".png", "a/" * 3000 + "b.png", "\0.png", "..", "/", "map_Kd " * 100])
def test_a_name_that_no_file_can_have_is_a_missing_texture(clip, name):
    (clip / "m.mtl").write_text(f"newmtl skin\nmap_Kd {name}\n")
    refuses(clip, "f_0.obj")
    (clip / "m.mtl").unlink()
    (clip / "f_0.obj").write_text((clip / "f_0.obj").read_text().replace("m.mtl", name))
    refuses(clip, "f_0.obj", "texture is missing")


@pytest.mark.parametrize(
    ("line", "stored"),
    [
        ("mtllib a.mtl\nmtllib b c.mtl", "b c.mtl"),
        ('mtllib "b c.mtl"', "b c.mtl"),
        ("mtllib a.mtl b.mtl", "b.mtl"),
        ('mtllib a.mtl "b c.mtl"', "b c.mtl"),
    ],
)
def test_a_mesh_may_have_several_libraries(tmp_path, line, stored):
    folder = write_objs(tmp_path / "clip", obj_text(*grid(), head=f"{line}\nusemtl skin"))
    (folder / "a.mtl").write_text("newmtl other\nmap_Kd other.png\n")
    (folder / stored).write_text("newmtl skin\nmap_Kd skin.png\n")
    write_png(folder / "skin.png", plain(BLUE))
    assert colour_of(folder) == BLUE


# Parts ----------------------------------------------------------------------------------------------


def two_parts(eye_uv=True):
    """An OBJ of a skin and a smaller eye in front of it."""
    vertices, faces, uv = grid(30, 20)
    eye = obj_text(vertices, faces, uv if eye_uv else None, "usemtl eye", first=N_VERTICES + 1)
    return obj_text(*grid()) + eye


@pytest.fixture
def two(tmp_path):
    folder = write_objs(tmp_path / "two", two_parts())
    (folder / "m.mtl").write_text(MATERIALS)
    write_png(folder / "skin.png", plain(RED))
    write_png(folder / "eye.png", plain(BLUE))
    return folder


def two_images():
    gltf = Gltf()
    for (vertices, faces, uv), colour, name in ((grid(0.03, 0.02), BLUE, "a_eye"), (grid(0.12), RED, "skin")):
        gltf.part(vertices, faces, uv, gltf.image(png(plain(colour))), name)
    return gltf


@pytest.mark.parametrize("kind", ["obj", "glb"])
@pytest.mark.parametrize("renderer", ["auto", "embree"])
def test_each_part_is_drawn_with_its_own_texture(tmp_path, two, kind, renderer):
    folder = two if kind == "obj" else two_images().write(tmp_path / "glb")
    views = make_views(open_sequence(folder), "render", 64, renderer=renderer)
    assert views.stabilised and not views.warnings
    for frame in range(2):
        assert_pixel(views, BLUE, frame)
        assert_pixel(views, RED, frame, row=10)


def test_several_textures_are_neither_a_composite_nor_a_single_image(tmp_path, two):
    sequence = open_sequence(two)
    with refused("several textures", "no composite"):
        make_views(sequence, "split", 64)
    with refused("no single texture"):
        write_obj_sequence(sequence, tmp_path / "again")


def test_parts_with_the_same_image_are_one_surface(two):
    (two / "m.mtl").write_text(MATERIALS.replace("eye.png", "skin.png"))
    sequence = open_sequence(two)
    assert len(sequence.surfaces(0)) == 1 and len(sequence.geometry(0)[1]) == 64


@pytest.mark.parametrize("eye_uv", [True, False])
def test_a_part_without_texture_is_left_out_with_a_warning(tmp_path, eye_uv):
    folder = write_objs(tmp_path / "clip", two_parts(eye_uv))
    (folder / "m.mtl").write_text("newmtl skin\nmap_Kd skin.png\nnewmtl eye\nKd 1 1 1\n")
    write_png(folder / "skin.png", plain())
    views = make_views(open_sequence(folder), "render", 64)
    assert "left out (eye)" in views.warnings[0] and "Remedy" in views.warnings[0]
    assert len(vertices_of(folder)) == N_VERTICES  # its vertices too, which would widen the crop


def test_a_missing_texture_of_one_part_is_named(two):
    (two / "eye.png").unlink()
    refuses(two, "f_0.obj", "eye.png")


def test_a_mesh_without_a_texture_is_drawn_in_the_colours_of_its_vertices(tmp_path):
    vertices, faces, _ = grid()
    coloured = np.column_stack([vertices, np.tile(np.array(BLUE) / 255, (len(vertices), 1))])
    lines = ["v " + " ".join(f"{number:.5f}" for number in row) for row in coloured]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    folder = write_objs(tmp_path / "clip", "\n".join(lines) + "\n")
    assert_pixel(make_views(open_sequence(folder), "render", 64), BLUE, frame=1)


def test_the_linear_colours_of_a_gltf_become_srgb(tmp_path):
    gltf, (vertices, faces, _) = Gltf(), grid(0.12)
    primitive = gltf.part(vertices, faces)
    colours = np.tile(np.array([0.5, 0, 1], "<f4"), (len(vertices), 1))
    primitive["attributes"]["COLOR_0"] = gltf.numbers(colours)
    tint = open_sequence(gltf.write(tmp_path / "clip")).surfaces(0)[0].tint
    np.testing.assert_allclose(tint[0], [0.7354, 0, 1], atol=1e-3)


def test_thousands_of_parts_are_refused_before_they_are_read(tmp_path, at_most):
    """A megabyte can name more materials, libraries or nodes than could be searched for in a day."""
    numbers = range(30_000)
    for lines in ((f"usemtl m{i}\nf 1/1 2/2 7/7\n" for i in numbers), (f"mtllib {i}.mtl\n" for i in numbers)):
        with at_most(5):
            refuses(write_objs(tmp_path / "clip", obj_text(*grid()) + "".join(lines)), "f_0.obj", "1,000 parts")
    gltf = textured()
    gltf.json["nodes"] = [{"mesh": 0} for _ in numbers]
    gltf.json["scenes"][0]["nodes"] = list(numbers)
    with at_most(5):
        refuses(gltf.write(tmp_path / "glb"), "f_0.glb", "1,000 parts")


# OBJ ------------------------------------------------------------------------------------------------


def surface_of(folder):
    """The corners of all triangles of the first frame, with their uv (F, 3, 5)."""
    vertices, faces, uv = open_sequence(folder).geometry(0)
    return np.concatenate([vertices[faces], uv[faces]], -1)


def test_all_forms_of_a_face_are_read_alike(tmp_path):
    vertices, faces, uv = grid()
    expected = surface_of(write_clip(tmp_path / "clip", obj_text(vertices, faces, uv)))
    forms = {"negative": "{minus}/{minus}", "normals": "{plus}/{plus}/1"}
    for name in ("negative", "normals", "windows", "tabs", "continued", "mixed"):
        text = obj_text(vertices, [], uv) + "vn 0 0 1\n"
        for row, face in enumerate(faces):
            corner = forms["normals"] if name == "mixed" and row % 2 else forms.get(name, "{plus}/{plus}")
            text += "f " + " ".join(corner.format(plus=i + 1, minus=i - N_VERTICES) for i in face) + "\n"
        text = text.replace("\n", "\r\n") if name == "windows" else text
        text = text.replace("f ", "f\t") if name == "tabs" else text
        text = text.replace("f ", "f \\\n  ") if name == "continued" else text
        np.testing.assert_allclose(surface_of(write_objs(tmp_path / "clip", text)), expected, err_msg=name)


def test_polygons_become_triangles_of_the_same_area(tmp_path):
    head = obj_text(grid()[0], [], grid()[2])
    for polygon, n_triangles in (("f 1/1 5/5 25/25 21/21\n", 2), ("f 1/1 5/5 25/25 23/23 21/21\n", 3)):
        corners = surface_of(write_clip(tmp_path / "clip", head + polygon + "f 1/1 2/2 6/6\n"))[:-1]
        assert len(corners) == n_triangles
        flat = corners[..., :3] * [1, 1, 0]
        area = np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]).sum() / 2
        assert area == pytest.approx(120**2)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda text: text + "f 1/1 2/2\n", "a face cannot be read"),
        (lambda text: text + "f 1/1 2/2 3/\n", "f_1.obj"),
        (lambda text: text + "f 1/1 2/2 x/3\n", "a face cannot be read"),
        (lambda text: text + "f 1/1 2/2 26/26\n", "names vertex 26 of 25"),
        (lambda text: text + "f 1/1 2/2 3/99999999999999999999\n", "f_1.obj"),
        (lambda text: text + "f 0/1 2/2 3/3\n", "names vertex 0 of 25"),
        (lambda text: text.replace("vt 0.000000 0.000000\n", ""), "texture coordinate 25 of 24"),
        (lambda text: "\n".join(line for line in text.splitlines() if line[:2] != "vt") + "\n", "texture coordinate"),
        (lambda text: text.replace("vt 0.000000 0.000000\n", "vt 0.000000\n"), "vt number 1 is cut off"),
        (lambda text: text.replace("v -60.000000 ", "v ", 1), "v number 1 is cut off"),
        (lambda text: text.replace("v -60.000000 ", "v -60.0x0000 ", 1), "line v cannot be read"),
        (lambda text: "# Vertices: 25\n# Faces: 33\n" + text, "announces 33 faces, but it has 32"),
        (lambda text: text.replace("v -60.000000 ", "v 1e300 ", 1), "not finite"),
        (lambda text: text.replace("v -60.000000 ", "v 1e25 ", 1), "coordinate of 1e+25"),
        (lambda text: text.replace("v -60.000000 ", "v 5e3 ", 1), "off the face"),
        (lambda text: text.replace("v -60.000000 ", "v inf ", 1), "NaN or infinite"),
        (lambda text: text.replace("vt 0.000000 ", "vt 1e30 ", 1), "its uv reach from 0 to 1e+30"),
        (lambda text: text.replace("vt 0.000000 ", "vt nan ", 1), "uv are not finite"),
    ],
)
def test_a_damaged_obj_is_named_with_its_fault(whole, damage, fault):
    (whole / "f_1.obj").write_text(damage((whole / "f_1.obj").read_text()))
    refuses(whole, "f_1.obj", fault, t=1)


@pytest.mark.parametrize("scale", [[0, 0, 0], [1, 0, 0]])
def test_a_mesh_without_area_is_refused(tmp_path, scale):
    vertices, faces, uv = grid()
    refuses(write_clip(tmp_path / "clip", obj_text(vertices * scale, faces, uv)), "f_0.obj", "a point or a line")


@pytest.mark.parametrize("name", ["f_1.obj", "m.mtl"])
def test_a_pipe_with_the_name_of_a_mesh_or_library_is_refused_at_once(clip, at_most, name):
    (clip / name).unlink(missing_ok=True)
    os.mkfifo(clip / name)
    with at_most(5):
        refuses(clip, name if name == "f_1.obj" else "texture is missing", t=1)


@pytest.mark.parametrize("t", [0, 1, 2])
def test_a_frame_that_is_cut_off_anywhere_is_noticed(tmp_path, t):
    folder = write_clip(tmp_path / "clip", obj_text(*grid()), frames=3)
    text = (folder / f"f_{t}.obj").read_bytes()
    assert open_sequence(folder).constant_topology
    for length in range(1, len(text), 7):
        (folder / f"f_{t}.obj").write_bytes(text[:length])
        with refused():
            make_views(open_sequence(folder), "render", 16, stabilise=False)
    ends = [i + 1 for i, byte in enumerate(text[:-1]) if byte == ord("\n")]
    for length in ends:  # between two lines, so that each line is whole
        (folder / f"f_{t}.obj").write_bytes(text[:length])
        with refused():
            _ = open_sequence(folder).constant_topology


@pytest.mark.parametrize("t", [0, 1])
def test_of_two_frames_with_the_same_vertices_the_one_with_fewer_faces_is_cut_off(whole, t):
    lines = obj_text(*grid()).splitlines(keepends=True)
    (whole / f"f_{t}.obj").write_text("".join(lines[:-5]))
    refuses(whole, f"f_{t}.obj: it has 27 faces, and 32 another frame", t=1)


def test_a_part_that_one_frame_lacks_is_noticed(two):
    write_objs(two, (two / "f_0.obj").read_text(), frames=3)
    (two / "f_1.obj").write_text(obj_text(*grid()))
    with refused("f_1.obj: it has 25 vertices and 32 faces, 2 others 50 and 64"):
        _ = open_sequence(two).constant_topology


def test_files_may_all_lack_the_last_newline(tmp_path):
    assert open_sequence(write_clip(tmp_path / "clip", obj_text(*grid()).rstrip("\n"))).constant_topology


def test_a_frame_of_another_scale_than_the_first_is_refused(whole):
    (whole / "f_1.obj").write_text(obj_text(*grid(12.0)))
    refuses(whole, "f_1.obj", "the first frame 170 mm", t=1)


# Scale ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mm_per_unit", [1e3, 10, 1, 1e-3])
def test_an_obj_in_any_length_unit_is_scaled_to_millimetres(tmp_path, mm_per_unit):
    folder = write_clip(tmp_path / "clip", obj_text(grid(160)[0] / mm_per_unit, *grid()[1:]))
    np.testing.assert_allclose(vertices_of(folder), grid(160)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "cause"), [(1800, "whole body"), (2e4, "tenths"), (5e6, "nanometres"), (1e-4, "kilometres")]
)
def test_a_mesh_that_is_no_face_in_any_length_unit_is_refused_with_the_likely_cause(tmp_path, size, cause):
    refuses(write_clip(tmp_path / "clip", obj_text(grid(size)[0], *grid()[1:])), "f_0.obj", cause)


def test_a_gltf_is_in_metres(tmp_path):
    np.testing.assert_allclose(vertices_of(textured(0.16).write(tmp_path / "clip")), grid(160)[0], atol=1e-3)


@pytest.mark.parametrize(("size", "cause"), [(1.6, "without the body"), (16, "centimetres"), (160, "millimetres")])
def test_a_gltf_larger_than_a_face_is_refused(tmp_path, size, cause):
    refuses(textured(size).write(tmp_path / "clip"), "f_0.glb", "more than a face", cause)


# UV -------------------------------------------------------------------------------------------------


def test_uv_in_another_tile_are_moved_to_the_first(tmp_path):
    vertices, faces, uv = grid()
    for shift in ((0, 0), (1, 0), (-3, 2)):
        folder = write_clip(tmp_path / "clip", obj_text(vertices, faces, uv + shift))
        np.testing.assert_allclose(uv_of(folder), uv, atol=1e-6)


def test_a_clamped_texture_does_not_repeat(tmp_path):
    ramp = np.repeat(np.repeat([RED, BLUE], 4, 0)[None], 8, 0).astype(np.uint8)  # red at the left, blue at the right
    for clamp, colour in (("on", BLUE), ("off", RED)):
        folder = write_objs(tmp_path / "clip", obj_text(*grid()[:2], grid()[2] * 0.2 + [1.1, 0.4]))
        (folder / "m.mtl").write_text(f"newmtl skin\nmap_Kd -clamp {clamp} skin.png\n")
        write_png(folder / "skin.png", ramp)
        for renderer in ("auto", "embree"):
            assert_pixel(make_views(open_sequence(folder), "render", 64, renderer=renderer), colour)


# glTF -----------------------------------------------------------------------------------------------


def test_a_gltf_with_files_beside_it_is_read_like_one_with_all_inside(tmp_path):
    inside = textured()
    expected = surface_of(inside.write(tmp_path / "glb"))
    folder = tmp_path / "gltf"
    write_png(folder / "maps" / "my skin.png", plain(BLUE))
    (folder / "data 1.bin").write_bytes(inside.binary)
    inside.json["images"] = [{"uri": urllib.parse.quote("maps/my skin.png")}]
    inside.json["buffers"] = [{"byteLength": len(inside.binary), "uri": "data%201.bin"}]
    write_texts(folder, ".gltf", json.dumps(inside.json))
    np.testing.assert_array_equal(surface_of(folder), expected)
    assert colour_of(folder) == BLUE
    (folder / "data 1.bin").unlink()
    refuses(folder, "f_0.gltf", "buffer 'data 1.bin' is missing")


@pytest.mark.parametrize("uri", ["../secret.bin", "/etc/hostname", "file:///etc/hostname"])
def test_a_gltf_reads_no_buffer_outside_the_clip(tmp_path, uri):
    gltf = textured()
    (tmp_path / "secret.bin").write_bytes(gltf.binary)
    gltf.json["buffers"] = [{"byteLength": len(gltf.binary), "uri": uri}]
    refuses(write_texts(tmp_path / "clip", ".gltf", json.dumps(gltf.json)), "f_0.gltf", "buffer", "missing")


def test_the_nodes_of_a_gltf_move_its_parts(tmp_path):
    gltf = textured()
    gltf.json["nodes"] = [
        {"children": [1], "translation": [0.01, 0.02, 0.03]},
        {"mesh": 0, "rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)], "scale": [2, 1, 1]},
    ]
    vertices = vertices_of(gltf.write(tmp_path / "clip"))
    x, y, z = grid(120)[0].T
    np.testing.assert_allclose(vertices, np.stack([-y + 10, 2 * x + 20, z + 30], 1), atol=1e-3)


@pytest.mark.parametrize(
    "extension", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu", "X_new"]
)
def test_an_extension_that_is_not_supported_is_named(tmp_path, extension):
    gltf = textured()
    gltf.json["extensionsRequired"] = ["KHR_materials_unlit", extension]
    del gltf.json["accessors"][0]["bufferView"]
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", extension)


def test_a_compressed_primitive_or_texture_is_refused_even_if_it_is_not_declared_as_required(tmp_path):
    gltf = textured()
    primitive = gltf.json["meshes"][0]["primitives"][0]
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    del gltf.json["accessors"][primitive["attributes"]["POSITION"]]["bufferView"]
    refuses(gltf.write(tmp_path / "one"), "KHR_draco_mesh_compression", "Compression")
    gltf = textured()
    gltf.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
    refuses(gltf.write(tmp_path / "two"), "EXT_texture_webp", "PNG or JPEG")


def morphed(**weights):
    """A glTF with a morph target that moves all vertices upwards by 10 mm."""
    gltf = textured()
    gltf.json["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": gltf.numbers(MOVE)}]
    gltf.json["meshes"][0].update(weights)
    return gltf


def test_morph_targets_are_applied_by_their_weights(tmp_path):
    vertices = vertices_of(morphed(weights=[0.5]).write(tmp_path / "clip"))
    np.testing.assert_allclose(vertices, grid(120)[0] + [0, 5, 0], atol=1e-3)


def test_a_sparse_morph_target_moves_the_listed_vertices(tmp_path):
    gltf = morphed(weights=[1.0])
    rows = np.array([0, N_VERTICES - 1], "<u2")
    listed = {"count": 2, "indices": {"bufferView": gltf.view(rows.tobytes()), "componentType": 5123}}
    listed["values"] = {"bufferView": gltf.view(MOVE[:2].tobytes())}
    target = gltf.json["meshes"][0]["primitives"][0]["targets"][0]["POSITION"]
    del gltf.json["accessors"][target]["bufferView"]
    gltf.json["accessors"][target]["sparse"] = listed
    vertices = vertices_of(gltf.write(tmp_path / "clip"))
    np.testing.assert_allclose((vertices - grid(120)[0])[[0, 1, -1], 1], [10, 0, 10], atol=1e-3)


def test_morph_targets_without_weights_or_with_an_animation_are_refused(tmp_path):
    refuses(morphed().write(tmp_path / "one"), "morph targets", "shape keys")
    animated = morphed(weights=[0.0])
    animated.json["animations"] = [{"channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}]}]
    refuses(animated.write(tmp_path / "two"), "morph targets")


def test_a_texture_transform_moves_the_uv(tmp_path):
    gltf = textured()
    use = gltf.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    moved = {"offset": [0.5, 0.25], "scale": [0.5, 0.25], "rotation": np.pi / 2}
    use["extensions"] = {"KHR_texture_transform": moved}
    gltf.json["extensionsRequired"] = ["KHR_texture_transform"]
    u, v = grid()[2].T
    down = 1 - v  # glTF counts v downwards, and turns by a quarter from u to -v
    expected = np.stack([0.25 * down + 0.5, 1 - (-0.5 * u + 0.25)], 1)
    moved_uv = uv_of(gltf.write(tmp_path / "clip"))
    np.testing.assert_allclose(moved_uv - moved_uv.min(0), expected - expected.min(0), atol=1e-6)


def test_normalised_integers_are_read_as_shares(tmp_path):
    gltf = textured()
    attributes = gltf.json["meshes"][0]["primitives"][0]["attributes"]
    uv = np.rint(np.column_stack([grid()[2][:, 0], 1 - grid()[2][:, 1]]) * 65535).astype("<u2")
    attributes["TEXCOORD_0"] = gltf.numbers(uv, 5123, "VEC2", normalized=True)
    np.testing.assert_allclose(uv_of(gltf.write(tmp_path / "clip")), grid()[2], atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "corners", "faces"),
    [(5, [0, 4, 20, 24], [[0, 4, 20], [4, 20, 24]]), (6, [0, 4, 24, 20], [[0, 4, 24], [0, 24, 20]])],
)
def test_strips_and_fans_become_triangles(tmp_path, mode, corners, faces):
    gltf, (vertices, _, uv) = Gltf(), grid(0.12)
    gltf.part(vertices, corners, uv, gltf.image(png(plain())))["mode"] = mode
    assert open_sequence(gltf.write(tmp_path / "clip")).geometry(0)[1].tolist() == faces


def test_postscript_as_an_embedded_image_is_not_run(tmp_path, monkeypatch):
    def run(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", run)
    monkeypatch.setattr("subprocess.check_call", run)
    refuses(textured(image=POSTSCRIPT).write(tmp_path / "clip"), "f_0.glb", "image cannot be read")


def test_an_embedded_image_that_would_fill_the_memory_is_refused(tmp_path):
    data = bytearray(png(plain()))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")  # so that the header is valid
    refuses(textured(image=bytes(data)).write(tmp_path / "clip"), "f_0.glb", "decompression bomb")


@pytest.mark.parametrize("cut", [0, 3, 11, 19, 200, -1])
def test_a_glb_that_is_cut_off_is_refused(tmp_path, cut):
    folder = textured().write(tmp_path / "clip")
    (folder / "f_0.glb").write_bytes((folder / "f_0.glb").read_bytes()[:cut])
    refuses(folder, "f_0.glb", *(["it is cut off ("] if cut in (200, -1) else []))


@pytest.mark.parametrize(
    ("part", "changes", "fault"),
    [
        ("accessors", {"count": 10**12}, "cut off"),
        ("accessors", {"byteOffset": -4}, "cut off"),
        ("accessors", {"bufferView": -1}, "not a number from 0"),
        ("accessors", {"type": "MAT4"}, "cannot be read"),
        ("bufferViews", {"byteLength": 10**12}, "cut off"),
        ("bufferViews", {"byteStride": 10**9}, "cut off"),
        ("nodes", {"children": [0]}, "its own ancestor"),
        ("nodes", {"matrix": [1, 2, 3]}, "cannot be read"),
        ("nodes", {"skin": 0}, "a skeleton moves its mesh. Remedy: apply the armature"),
        ("scenes", {"nodes": ["0"]}, "not a number from 0"),
        ("scenes", {"nodes": [-1]}, "not a number from 0"),
        ("meshes", {"primitives": None}, "cannot be read"),
    ],
)
def test_a_gltf_that_contradicts_itself_or_has_a_skeleton_is_refused(tmp_path, part, changes, fault):
    gltf = textured()
    for item in gltf.json[part]:
        item.update(changes)
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", fault)


def test_a_gltf_with_fewer_colours_than_vertices_is_refused(tmp_path):
    gltf, (vertices, faces, _) = Gltf(), grid(0.12)
    primitive = gltf.part(vertices, faces)
    primitive["attributes"]["COLOR_0"] = gltf.numbers(np.ones((len(vertices) - 1, 3), "<f4"))
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", "a part of 25 vertices has more or fewer uv or colours")


def test_a_mesh_that_too_many_nodes_repeat_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.dataset.gltf.MAX_VERTICES", 3 * N_VERTICES)
    gltf = textured()
    gltf.json["nodes"] = [{"mesh": 0} for _ in range(4)]
    gltf.json["scenes"][0]["nodes"] = [0, 1, 2, 3]
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", "more than 75 vertices")


# PLY ------------------------------------------------------------------------------------------------


def ply_text(coloured=False):
    vertices, faces, uv = grid()
    names = [f"uchar {name}" for name in ("red", "green", "blue")] if coloured else ["float s", "float t"]
    head = ["ply", "format ascii 1.0", *([] if coloured else ["comment TextureFile skin.png"])]
    head += [f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    head += [*(f"property {name}" for name in names), f"element face {len(faces)}"]
    head += ["property list uchar int vertex_indices", "end_header"]
    values = np.column_stack([vertices, np.tile(BLUE, (len(vertices), 1)) if coloured else uv])
    rows = [" ".join(f"{number:.5g}" for number in row) for row in values]
    return "\n".join(head + rows + [f"3 {a} {b} {c}" for a, b, c in faces]) + "\n"


def test_a_ply_names_its_texture_or_has_colours(tmp_path):
    folder = write_texts(tmp_path / "named", ".ply", ply_text())
    write_png(folder / "skin.png", plain(BLUE))
    assert colour_of(folder) == BLUE
    np.testing.assert_allclose(vertices_of(folder), grid()[0], atol=1e-2)
    folder = write_texts(tmp_path / "coloured", ".ply", ply_text(coloured=True))
    assert_pixel(make_views(open_sequence(folder), "render", 64), BLUE, view=1)


def test_a_ply_of_text_that_is_cut_off_anywhere_is_noticed(tmp_path):
    text = ply_text()
    folder = write_texts(tmp_path / "clip", ".ply", text)
    write_png(folder / "skin.png", plain())
    for length in range(1, len(text), 11):
        (folder / "f_1.ply").write_text(text[:length])
        refuses(folder, "f_1.ply", t=1)


def test_a_ply_that_announces_more_than_it_has_is_refused(tmp_path):
    text = ply_text().replace("element vertex 25", "element vertex 999999999999")
    refuses(write_texts(tmp_path / "clip", ".ply", text), "f_0.ply", "cut off")
