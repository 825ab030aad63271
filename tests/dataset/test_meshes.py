"""Facts about mesh files: what exporters write is read as they mean it, and what cannot be is named with a remedy."""

import json
import os
import urllib.parse
import zlib

import numpy as np
import pytest
from helpers.mesh_files import BLUE, RED, Gltf, grid, obj_text, plain, png, textured, write_objs, write_png

from utils.dataset.readers import open_sequence
from utils.dataset.wavefront import parse_map, parse_mtl
from utils.dataset.writers import write_obj_sequence
from utils.errors import DataError
from utils.render.views import make_views

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(written) (w) file closefile\nshowpage\n"


def refuses(folder, *words, t=0):
    """Reading frame t raises DataError, and the message names these words and a remedy."""
    with pytest.raises(DataError) as caught:
        open_sequence(folder).frame(t)
    for word in (*words, "Remedy: "):
        assert str(word) in str(caught.value)


def colour_of(folder):
    """The colour in the middle of the first frame's texture."""
    texture = open_sequence(folder).texture(0)
    return tuple(texture[texture.shape[0] // 2, texture.shape[1] // 2].tolist())


@pytest.fixture
def clip(tmp_path):
    """Two OBJ frames with the library m.mtl; the material is written by the test."""
    return write_objs(tmp_path / "clip", obj_text(*grid()))


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
def test_options_before_a_textures_name_are_not_its_name(text, name):
    assert parse_map(text).name == name


def test_a_texture_is_scaled_and_shifted_as_its_options_say(clip):
    (clip / "m.mtl").write_text("newmtl skin\nmap_Kd -s .5 .5 1 -o .25 .125 0 skin.png\n")
    write_png(clip / "skin.png", plain())
    np.testing.assert_allclose(open_sequence(clip).geometry(0)[2], grid()[2] * 0.5 + [0.25, 0.125], atol=1e-6)


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
        ("textures\\skin.png", "textures\\skin.png"),  # as some unpack what was packed on Windows
    ],
)
def test_a_texture_is_found_by_its_name_within_the_clip(clip, named, stored):
    (clip / "m.mtl").write_bytes(f"newmtl skin\nmap_Kd {named}\n".encode("latin-1"))
    write_png(clip / stored, plain(BLUE))
    assert colour_of(clip) == BLUE


def test_a_file_elsewhere_is_never_read_for_one_of_the_clip(tmp_path, clip):
    outside = write_png(tmp_path / "outside" / "other.png", plain(BLUE))
    own = write_png(clip / "f_0.png", plain(RED))
    for named in (outside, "../outside/other.png", outside.as_uri()):
        (clip / "m.mtl").write_text(f"newmtl skin\nmap_Kd {named}\n")
        assert colour_of(clip) == RED
    own.unlink()
    refuses(clip, "f_0.obj", "other.png")


def test_a_material_library_elsewhere_is_not_read(tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    write_png(tmp_path / "skin.png", plain())
    refuses(write_objs(tmp_path / "clip", obj_text(*grid(), head="mtllib ../m.mtl\nusemtl skin")), "texture is missing")


def test_a_link_out_of_the_clip_is_refused_and_one_within_or_beside_the_linked_mesh_is_not(tmp_path, clip):
    (clip / "m.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    outside = write_png(tmp_path / "outside" / "skin.png", plain(BLUE))
    (clip / "skin.png").symlink_to(outside)
    refuses(clip, "skin.png is a link that leads out")
    (clip / "f_0.obj").rename(outside.parent / "f_0.obj")  # a clip of links alone, each into one folder of scans
    (clip / "f_0.obj").symlink_to(outside.parent / "f_0.obj")
    assert colour_of(clip) == BLUE
    (clip / "skin.png").unlink()
    write_png(clip / "maps" / "one.png", plain(RED))
    (clip / "skin.png").symlink_to(clip / "maps" / "one.png")
    assert colour_of(clip) == RED


def test_hidden_files_and_linked_folders_are_no_texture_since_no_key_holds_them(tmp_path, clip):
    for named in (".skin.png", "textures/skin.png"):
        (clip / "m.mtl").write_text(f"newmtl skin\nmap_Kd {named}\n")
        write_png(clip / ".skin.png", plain())
        write_png(tmp_path / "outside" / "skin.png", plain())
        if not (clip / "textures").exists():
            (clip / "textures").symlink_to(tmp_path / "outside")
        refuses(clip, "texture is missing")


@pytest.mark.parametrize("name", ["a" * 5000 + ".png", "a/" * 3000 + "b.png", "\0.png", "..", "/", "map_Kd " * 100])
def test_names_that_no_file_can_have_are_a_missing_texture(clip, name):
    (clip / "m.mtl").write_text(f"newmtl skin\nmap_Kd {name}\n")
    refuses(clip, "f_0.obj")
    (clip / "m.mtl").unlink()
    text = (clip / "f_0.obj").read_text().replace("m.mtl", name)
    (clip / "f_0.obj").write_text(text)
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


def two_parts(eye_uv=True, materials="newmtl skin\nmap_Kd skin.png\nnewmtl eye\nmap_Kd eye.png\n"):
    """An OBJ of a skin and a smaller eye before it, and its library."""
    vertices, faces, uv = grid(30, 20)
    eye = obj_text(vertices, faces, uv if eye_uv else None, "usemtl eye", first=SIDE_SQUARED + 1)
    return obj_text(*grid()) + eye, materials


SIDE_SQUARED = len(grid()[0])


@pytest.fixture
def two(tmp_path):
    text, materials = two_parts()
    folder = write_objs(tmp_path / "two", text)
    (folder / "m.mtl").write_text(materials)
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
    for picture in views.frames[:, 0]:
        assert np.abs(picture[32, 32].astype(int) - BLUE).max() <= 1
        assert np.abs(picture[10, 32].astype(int) - RED).max() <= 1


def test_several_textures_are_no_composite_and_no_single_image(tmp_path, two):
    sequence = open_sequence(two)
    with pytest.raises(DataError, match="several textures.*no composite.*Remedy"):
        make_views(sequence, "split", 64)
    with pytest.raises(DataError, match="Remedy"):
        write_obj_sequence(sequence, tmp_path / "again")


def test_parts_of_one_image_are_one_surface(two):
    (two / "m.mtl").write_text(two_parts()[1].replace("eye.png", "skin.png"))
    sequence = open_sequence(two)
    assert len(sequence.surfaces(0)) == 1 and len(sequence.geometry(0)[1]) == 64


@pytest.mark.parametrize("eye_uv", [True, False])
def test_a_part_without_texture_is_left_out_with_a_word(tmp_path, eye_uv):
    text, _ = two_parts(eye_uv)
    folder = write_objs(tmp_path / "clip", text)
    (folder / "m.mtl").write_text("newmtl skin\nmap_Kd skin.png\nnewmtl eye\nKd 1 1 1\n")
    write_png(folder / "skin.png", plain())
    views = make_views(open_sequence(folder), "render", 64)
    assert "left out (eye)" in views.warnings[0] and "Remedy" in views.warnings[0]
    assert len(open_sequence(folder).geometry(0)[0]) == SIDE_SQUARED  # its vertices too, which would widen the crop


def test_a_missing_texture_of_one_part_is_named(two):
    (two / "eye.png").unlink()
    refuses(two, "f_0.obj", "eye.png")


def test_a_mesh_without_any_texture_is_drawn_in_the_colours_of_its_vertices(tmp_path):
    vertices, faces, _ = grid()
    coloured = np.column_stack([vertices, np.tile(np.array(BLUE) / 255, (len(vertices), 1))])
    lines = ["v " + " ".join(f"{number:.5f}" for number in row) for row in coloured]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    views = make_views(open_sequence(write_objs(tmp_path / "clip", "\n".join(lines) + "\n")), "render", 64)
    assert np.abs(views.frames[1, 0, 32, 32].astype(int) - BLUE).max() <= 1


def test_linear_colours_of_a_gltf_are_shown_as_a_screen_shows_them(tmp_path):
    gltf, (vertices, faces, _) = Gltf(), grid(0.12)
    primitive = gltf.part(vertices, faces)
    colours = np.tile(np.array([0.5, 0, 1], "<f4"), (len(vertices), 1))
    primitive["attributes"]["COLOR_0"] = gltf.numbers(colours)
    tint = open_sequence(gltf.write(tmp_path / "clip")).surfaces(0)[0].tint
    np.testing.assert_allclose(tint[0], [0.7354, 0, 1], atol=1e-3)


def test_thousands_of_parts_are_refused_before_they_are_read(tmp_path, at_most):
    """A megabyte can name more materials, libraries or nodes than could be looked up in a day."""
    vertices, faces, uv = grid()
    one, many = obj_text(vertices, faces, uv), range(30_000)
    for lines in ((f"usemtl m{i}\nf 1/1 2/2 7/7\n" for i in many), (f"mtllib {i}.mtl\n" for i in many)):
        with at_most(5):
            refuses(write_objs(tmp_path / "clip", one + "".join(lines)), "f_0.obj", "1,000 parts")
    gltf = textured()
    gltf.json["nodes"] = [{"mesh": 0} for _ in range(30_000)]
    gltf.json["scenes"][0]["nodes"] = list(range(30_000))
    with at_most(5):
        refuses(gltf.write(tmp_path / "glb"), "f_0.glb", "1,000 parts")


# OBJ ------------------------------------------------------------------------------------------------


def surface_of(folder):
    """Corners of all triangles of the first frame, with their uv."""
    vertices, faces, uv = open_sequence(folder).geometry(0)
    return np.concatenate([vertices[faces], uv[faces]], -1)


def test_all_forms_of_a_face_are_read_alike(tmp_path):
    vertices, faces, uv = grid()
    usual = obj_text(vertices, faces, uv)
    write_png(tmp_path / "clip" / "f_0.png", plain())
    expected = surface_of(write_objs(tmp_path / "clip", usual))
    n = len(vertices)
    forms = {
        "negative": "{v}/{v}".replace("{v}", "{minus}"),
        "normals": "{plus}/{plus}/1",
        "windows": "{plus}/{plus}",
        "tabs": "{plus}/{plus}",
        "continued": "{plus}/{plus}",
        "mixed": "{plus}/{plus}",
    }
    for name, form in forms.items():
        text = obj_text(vertices, [], uv) + "vn 0 0 1\n"
        for row, face in enumerate(faces):
            corner = "{plus}/{plus}/1" if name == "mixed" and row % 2 else form
            text += "f " + " ".join(corner.format(plus=i + 1, minus=i - n) for i in face) + "\n"
        text = text.replace("\n", "\r\n") if name == "windows" else text
        text = text.replace("f ", "f\t") if name == "tabs" else text
        text = text.replace("f ", "f \\\n  ") if name == "continued" else text
        np.testing.assert_allclose(surface_of(write_objs(tmp_path / "clip", text)), expected, err_msg=name)


def test_polygons_become_triangles_of_the_same_area(tmp_path):
    head = obj_text(grid()[0], [], grid()[2])
    write_png(tmp_path / "clip" / "f_0.png", plain())
    for polygon, triangles in (("f 1/1 5/5 25/25 21/21\n", 2), ("f 1/1 5/5 25/25 23/23 21/21\n", 3)):
        corners = surface_of(write_objs(tmp_path / "clip", head + polygon + "f 1/1 2/2 6/6\n"))[:-1]
        assert len(corners) == triangles
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
        (lambda text: "# Vertices: 25\n# Faces: 33\n" + text, "announces 33 faces, and 32"),
        (lambda text: text.replace("v -60.000000 ", "v 1e300 ", 1), "not finite"),
        (lambda text: text.replace("v -60.000000 ", "v 1e25 ", 1), "coordinate of 1e+25"),
        (lambda text: text.replace("v -60.000000 ", "v 5e3 ", 1), "off the face"),
        (lambda text: text.replace("v -60.000000 ", "v inf ", 1), "NaN or infinite"),
        (lambda text: text.replace("vt 0.000000 ", "vt 1e30 ", 1), "its uv reach from 0 to 1e+30"),
        (lambda text: text.replace("vt 0.000000 ", "vt nan ", 1), "uv are not finite"),
    ],
)
def test_a_damaged_obj_is_named_with_what_is_wrong(clip, damage, fault):
    for t in range(2):
        write_png(clip / f"f_{t}.png", plain())
    (clip / "f_1.obj").write_text(damage((clip / "f_1.obj").read_text()))
    refuses(clip, "f_1.obj", fault, t=1)


@pytest.mark.parametrize("flat", ["point", "line"])
def test_a_mesh_without_area_is_refused(tmp_path, flat):
    vertices, faces, uv = grid()
    vertices = vertices * ([0, 0, 0] if flat == "point" else [1, 0, 0])
    write_png(tmp_path / "clip" / "f_0.png", plain())
    refuses(write_objs(tmp_path / "clip", obj_text(vertices, faces, uv)), "f_0.obj", "a point or a line")


@pytest.mark.parametrize("name", ["f_1.obj", "m.mtl"])
def test_a_pipe_by_the_name_of_a_mesh_or_library_is_not_waited_for(clip, at_most, name):
    (clip / name).unlink(missing_ok=True)
    os.mkfifo(clip / name)
    with at_most(5):
        refuses(clip, name if name == "f_1.obj" else "texture is missing", t=1)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_frame_that_was_cut_off_anywhere_is_noticed(clip, which):
    write_objs(clip, obj_text(*grid()), frames=3)
    for t in range(3):
        write_png(clip / f"f_{t}.png", plain())
    whole = (clip / f"f_{which}.obj").read_bytes()
    assert open_sequence(clip).constant_topology
    for length in range(1, len(whole), 7):
        (clip / f"f_{which}.obj").write_bytes(whole[:length])
        with pytest.raises(DataError, match="Remedy"):
            make_views(open_sequence(clip), "render", 16, stabilise=False)
    ends = [i + 1 for i, byte in enumerate(whole[:-1]) if byte == ord("\n")]
    for length in ends:  # between two lines, where nothing of a line is lost
        (clip / f"f_{which}.obj").write_bytes(whole[:length])
        with pytest.raises(DataError, match="Remedy"):
            _ = open_sequence(clip).constant_topology


@pytest.mark.parametrize("which", [0, 1])
def test_of_two_frames_with_the_same_vertices_the_one_with_fewer_faces_is_cut_off(clip, which):
    for t in range(2):
        write_png(clip / f"f_{t}.png", plain())
    lines = obj_text(*grid()).splitlines(keepends=True)
    (clip / f"f_{which}.obj").write_text("".join(lines[:-5]))
    refuses(clip, f"f_{which}.obj: it has 27 faces, and 32 another frame", t=1)


def test_an_object_that_one_frame_lacks_is_noticed(two):
    text = (two / "f_0.obj").read_text()
    write_objs(two, text, frames=3)
    (two / "f_1.obj").write_text(obj_text(*grid()))
    with pytest.raises(DataError, match="f_1.obj: it has 25 vertices and 32 faces, 2 others 50 and 64.*Remedy"):
        _ = open_sequence(two).constant_topology


def test_whole_files_without_a_last_newline_are_whole(clip):
    for t in range(2):
        write_png(clip / f"f_{t}.png", plain())
        (clip / f"f_{t}.obj").write_text(obj_text(*grid()).rstrip("\n"))
    assert open_sequence(clip).constant_topology


def test_frames_in_other_units_than_the_first_are_refused(clip):
    for t in range(2):
        write_png(clip / f"f_{t}.png", plain())
    (clip / "f_1.obj").write_text(obj_text(*grid(12.0)))
    refuses(clip, "f_1.obj", "the first frame 170 mm", t=1)


# Units ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1e3, 10, 1, 1e-3])
def test_obj_in_any_unit_of_a_face_comes_out_in_millimetres(tmp_path, unit):
    folder = write_objs(tmp_path / "clip", obj_text(grid(160)[0] / unit, *grid()[1:]))
    write_png(folder / "f_0.png", plain())
    np.testing.assert_allclose(open_sequence(folder).geometry(0)[0], grid(160)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "word"), [(1800, "whole body"), (2e4, "tenths"), (5e6, "nanometres"), (1e-4, "kilometres")]
)
def test_what_is_a_face_in_no_unit_is_refused_with_the_likely_one(tmp_path, size, word):
    folder = write_objs(tmp_path / "clip", obj_text(grid(size)[0], *grid()[1:]))
    write_png(folder / "f_0.png", plain())
    refuses(folder, "f_0.obj", word)


def test_a_gltf_is_in_metres(tmp_path):
    folder = textured(0.16).write(tmp_path / "clip")
    np.testing.assert_allclose(open_sequence(folder).geometry(0)[0], grid(160)[0], atol=1e-3)


@pytest.mark.parametrize(("size", "word"), [(1.6, "without the body"), (16, "centimetres"), (160, "millimetres")])
def test_a_gltf_larger_than_a_face_is_refused(tmp_path, size, word):
    refuses(textured(size).write(tmp_path / "clip"), "f_0.glb", "more than a face", word)


# UV -------------------------------------------------------------------------------------------------


def test_uv_in_another_tile_are_those_of_the_first(tmp_path):
    vertices, faces, uv = grid()
    for shift in ((0, 0), (1, 0), (-3, 2)):
        folder = write_objs(tmp_path / "clip", obj_text(vertices, faces, uv + shift))
        write_png(folder / "f_0.png", plain())
        np.testing.assert_allclose(open_sequence(folder).geometry(0)[2], uv, atol=1e-6)


def test_a_clamped_texture_does_not_repeat(tmp_path):
    ramp = np.repeat(np.repeat([RED, BLUE], 4, 0)[None], 8, 0).astype(np.uint8)  # red at the left, blue at the right
    for clamp, colour in (("on", BLUE), ("off", RED)):
        folder = write_objs(tmp_path / "clip", obj_text(*grid()[:2], grid()[2] * 0.2 + [1.1, 0.4]))
        (folder / "m.mtl").write_text(f"newmtl skin\nmap_Kd -clamp {clamp} skin.png\n")
        write_png(folder / "skin.png", ramp)
        for renderer in ("auto", "embree"):
            views = make_views(open_sequence(folder), "render", 32, renderer=renderer)
            assert np.abs(views.frames[0, 0, 16, 16].astype(int) - colour).max() <= 1


# glTF -----------------------------------------------------------------------------------------------


def test_a_gltf_with_files_beside_it_is_read_as_one_with_all_inside(tmp_path):
    inside = textured()
    expected = surface_of(inside.write(tmp_path / "glb"))
    folder = tmp_path / "gltf"
    write_png(folder / "maps" / "my skin.png", plain(BLUE))
    (folder / "data 1.bin").write_bytes(inside.binary)
    inside.json["images"] = [{"uri": urllib.parse.quote("maps/my skin.png")}]
    inside.json["buffers"] = [{"byteLength": len(inside.binary), "uri": "data%201.bin"}]
    for t in range(2):
        (folder / f"f_{t}.gltf").write_text(json.dumps(inside.json))
    np.testing.assert_array_equal(surface_of(folder), expected)
    assert colour_of(folder) == BLUE
    (folder / "data 1.bin").unlink()
    refuses(folder, "f_0.gltf", "buffer 'data 1.bin' is missing")


@pytest.mark.parametrize("uri", ["../secret.bin", "/etc/hostname", "file:///etc/hostname"])
def test_a_gltf_reads_no_buffer_from_elsewhere(tmp_path, uri):
    gltf, folder = textured(), tmp_path / "clip"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(gltf.binary)
    gltf.json["buffers"] = [{"byteLength": len(gltf.binary), "uri": uri}]
    for t in range(2):
        (folder / f"f_{t}.gltf").write_text(json.dumps(gltf.json))
    refuses(folder, "f_0.gltf", "buffer", "missing")


def test_a_gltf_places_its_parts_where_its_nodes_stand(tmp_path):
    gltf = textured()
    gltf.json["nodes"] = [
        {"children": [1], "translation": [0.01, 0.02, 0.03]},
        {"mesh": 0, "rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)], "scale": [2, 1, 1]},
    ]
    vertices = open_sequence(gltf.write(tmp_path / "clip")).geometry(0)[0]
    x, y, z = grid(120)[0].T
    np.testing.assert_allclose(vertices, np.stack([-y + 10, 2 * x + 20, z + 30], 1), atol=1e-3)


@pytest.mark.parametrize(
    "extension", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu", "X_new"]
)
def test_an_extension_that_is_not_read_is_named(tmp_path, extension):
    gltf = textured()
    gltf.json["extensionsRequired"] = ["KHR_materials_unlit", extension]
    del gltf.json["accessors"][0]["bufferView"]
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", extension)


def test_a_compressed_primitive_or_texture_is_refused_though_nothing_says_required(tmp_path):
    gltf = textured()
    primitive = gltf.json["meshes"][0]["primitives"][0]
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    del gltf.json["accessors"][primitive["attributes"]["POSITION"]]["bufferView"]
    refuses(gltf.write(tmp_path / "one"), "KHR_draco_mesh_compression", "Compression")
    gltf = textured()
    gltf.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
    refuses(gltf.write(tmp_path / "two"), "EXT_texture_webp", "PNG or JPEG")


def test_morph_targets_are_applied_by_their_weights_or_refused(tmp_path):
    def morphed(**weights):
        gltf = textured()
        move = np.tile(np.array([0, 0.01, 0], "<f4"), (SIDE_SQUARED, 1))
        gltf.json["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": gltf.numbers(move)}]
        gltf.json["meshes"][0].update(weights)
        return gltf

    def sparse():
        """The same move of the first and the last vertex alone."""
        gltf = morphed(weights=[1.0])
        rows, move = np.array([0, SIDE_SQUARED - 1], "<u2"), np.tile(np.array([0, 0.01, 0], "<f4"), (2, 1))
        listed = {"count": 2, "indices": {"bufferView": gltf.view(rows.tobytes()), "componentType": 5123}}
        listed["values"] = {"bufferView": gltf.view(move.tobytes())}
        target = gltf.json["meshes"][0]["primitives"][0]["targets"][0]["POSITION"]
        del gltf.json["accessors"][target]["bufferView"]
        gltf.json["accessors"][target]["sparse"] = listed
        return gltf

    vertices = open_sequence(morphed(weights=[0.5]).write(tmp_path / "one")).geometry(0)[0]
    np.testing.assert_allclose(vertices, grid(120)[0] + [0, 5, 0], atol=1e-3)
    vertices = open_sequence(sparse().write(tmp_path / "sparse")).geometry(0)[0]
    np.testing.assert_allclose((vertices - grid(120)[0])[[0, 1, -1], 1], [10, 0, 10], atol=1e-3)
    refuses(morphed().write(tmp_path / "two"), "morph targets", "shape keys")
    animated = morphed(weights=[0.0])
    animated.json["animations"] = [{"channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}]}]
    refuses(animated.write(tmp_path / "three"), "morph targets")


def test_a_mesh_that_a_skeleton_moves_is_refused(tmp_path):
    gltf = textured()
    gltf.json["nodes"][0]["skin"] = 0
    refuses(gltf.write(tmp_path / "clip"), "skeleton", "armature")


def test_a_texture_transform_moves_the_uv(tmp_path):
    gltf = textured()
    use = gltf.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    moved = {"offset": [0.5, 0.25], "scale": [0.5, 0.25], "rotation": np.pi / 2}
    use["extensions"] = {"KHR_texture_transform": moved}
    gltf.json["extensionsRequired"] = ["KHR_texture_transform"]
    u, v = grid()[2].T
    down = 1 - v  # glTF counts v downwards, and turns by a quarter from u to -v
    expected = np.stack([0.25 * down + 0.5, 1 - (-0.5 * u + 0.25)], 1)
    found = open_sequence(gltf.write(tmp_path / "clip")).geometry(0)[2]
    np.testing.assert_allclose(found - found.min(0), expected - expected.min(0), atol=1e-6)


def test_numbers_of_one_and_two_bytes_are_read_as_the_file_means_them(tmp_path):
    gltf = textured()
    attributes = gltf.json["meshes"][0]["primitives"][0]["attributes"]
    uv = np.rint(np.column_stack([grid()[2][:, 0], 1 - grid()[2][:, 1]]) * 65535).astype("<u2")
    attributes["TEXCOORD_0"] = gltf.numbers(uv, 5123, "VEC2", normalized=True)
    found = open_sequence(gltf.write(tmp_path / "clip")).geometry(0)[2]
    np.testing.assert_allclose(found, grid()[2], atol=1e-5)


@pytest.mark.parametrize("mode", ["strip", "fan"])
def test_strips_and_fans_are_triangles_too(tmp_path, mode):
    gltf, (vertices, _, uv) = Gltf(), grid(0.12)
    corners = [0, 4, 20, 24] if mode == "strip" else [0, 4, 24, 20]
    primitive = gltf.part(vertices, corners, uv, gltf.image(png(plain())))
    primitive["mode"] = {"strip": 5, "fan": 6}[mode]
    faces = open_sequence(gltf.write(tmp_path / "clip")).geometry(0)[1]
    assert {frozenset(face) for face in faces.tolist()} == {
        frozenset(corners[:3]),
        frozenset(corners[1:]),
    } or mode == "fan"
    assert len(faces) == 2


def test_postscript_as_an_embedded_image_is_not_run(tmp_path, monkeypatch):
    def run(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", run)
    monkeypatch.setattr("subprocess.check_call", run)
    refuses(textured(image=POSTSCRIPT).write(tmp_path / "clip"), "f_0.glb", "image cannot be read")


def test_an_embedded_image_that_would_fill_the_memory_is_refused(tmp_path):
    data = bytearray(png(plain()))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")  # so that its header is in order
    refuses(textured(image=bytes(data)).write(tmp_path / "clip"), "f_0.glb", "decompression bomb")


@pytest.mark.parametrize("cut", [0, 3, 11, 19, 200, -1])
def test_a_glb_that_was_cut_off_is_refused(tmp_path, cut):
    folder = textured().write(tmp_path / "clip")
    whole = (folder / "f_0.glb").read_bytes()
    (folder / "f_0.glb").write_bytes(whole[:cut])
    refuses(folder, "f_0.glb", *(["it is cut off ("] if cut in (200, -1) else []))


def damaged(part, **changes):
    gltf = textured()
    for item in gltf.json[part]:
        item.update(changes)
    return gltf


@pytest.mark.parametrize(
    "gltf",
    [
        lambda: damaged("accessors", count=10**12),
        lambda: damaged("accessors", byteOffset=-4),
        lambda: damaged("accessors", bufferView=-1),
        lambda: damaged("accessors", type="MAT4"),
        lambda: damaged("bufferViews", byteLength=10**12),
        lambda: damaged("bufferViews", byteStride=10**9),
        lambda: damaged("nodes", children=[0]),
        lambda: damaged("nodes", matrix=[1, 2, 3]),
        lambda: damaged("scenes", nodes=["0"]),
        lambda: damaged("scenes", nodes=[-1]),
        lambda: damaged("meshes", primitives=None),
    ],
)
def test_a_gltf_that_contradicts_itself_is_refused(tmp_path, gltf):
    refuses(gltf().write(tmp_path / "clip"), "f_0.glb")


def test_a_gltf_whose_colours_are_not_those_of_its_vertices_is_refused(tmp_path):
    gltf, (vertices, faces, _) = Gltf(), grid(0.12)
    primitive = gltf.part(vertices, faces)
    primitive["attributes"]["COLOR_0"] = gltf.numbers(np.ones((len(vertices) - 1, 3), "<f4"))
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", "a part of 25 vertices has more or fewer uv or colours")


def test_one_mesh_that_many_nodes_repeat_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.dataset.gltf.MAX_VERTICES", 3 * SIDE_SQUARED)
    gltf = textured()
    gltf.json["nodes"] = [{"mesh": 0} for _ in range(4)]
    gltf.json["scenes"][0]["nodes"] = [0, 1, 2, 3]
    refuses(gltf.write(tmp_path / "clip"), "f_0.glb", "more than 75 vertices")


# PLY ------------------------------------------------------------------------------------------------


def ply_text(coloured=False):
    vertices, faces, uv = grid()
    extra = ["property float s", "property float t"]
    if coloured:
        extra = [f"property uchar {name}" for name in ("red", "green", "blue")]
    head = ["ply", "format ascii 1.0", "comment TextureFile skin.png", f"element vertex {len(vertices)}"]
    head = head[:2] + head[3:] if coloured else head
    head += ["property float x", "property float y", "property float z", *extra, f"element face {len(faces)}"]
    head += ["property list uchar int vertex_indices", "end_header"]
    more = [BLUE] * len(vertices) if coloured else uv
    rows = [" ".join(f"{number:.5g}" for number in (*v, *m)) for v, m in zip(vertices, more, strict=True)]
    return "\n".join(head + rows + [f"3 {a} {b} {c}" for a, b, c in faces]) + "\n"


def write_plys(folder, text):
    folder.mkdir(exist_ok=True)
    for t in range(2):
        (folder / f"f_{t}.ply").write_text(text)
    return folder


def test_a_ply_names_its_texture_or_has_colours(tmp_path):
    folder = write_plys(tmp_path / "named", ply_text())
    write_png(folder / "skin.png", plain(BLUE))
    assert colour_of(folder) == BLUE
    np.testing.assert_allclose(open_sequence(folder).geometry(0)[0], grid()[0], atol=1e-2)
    folder = write_plys(tmp_path / "coloured", ply_text(coloured=True))
    views = make_views(open_sequence(folder), "render", 64)
    assert np.abs(views.frames[0, 1, 32, 32].astype(int) - BLUE).max() <= 1


def test_a_ply_of_text_that_was_cut_off_anywhere_is_noticed(tmp_path):
    folder = write_plys(tmp_path / "clip", ply_text())
    write_png(folder / "skin.png", plain())
    whole = ply_text()
    for length in range(1, len(whole), 11):
        (folder / "f_1.ply").write_text(whole[:length])
        refuses(folder, "f_1.ply", t=1)


def test_a_ply_that_announces_more_than_it_has_makes_no_room_for_it(tmp_path):
    text = ply_text().replace("element vertex 25", "element vertex 999999999999")
    refuses(write_plys(tmp_path / "clip", text), "f_0.ply", "cut off")
