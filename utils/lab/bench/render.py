"""Benchmark of rendering: speed and pixels compared with pyrender's documented use, and leaks."""

import gc
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import psutil
import trimesh
from PIL import Image

from utils.config import load_config
from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip
from utils.lab.bench.setting import Setting, measured_clips, resident_mb, row, seconds_of
from utils.render.camera import Camera
from utils.render.renderer import Picture, PyrenderRenderer, TexturedMesh, close_renderer, get_renderer
from utils.render.views import make_views, stable_vertices, view_cameras


def rendering(setting: Setting) -> list[dict]:
    """Two views of each frame of a clip; every frame has its own mesh and texture. Our renderer is compared with
    pyrender as in its quick start, with a new renderer for each view or one renderer for all. The pixels are compared
    without light. Ratio: our views per second divided by those of the row; 3 means a third of our speed."""
    if not isinstance(get_renderer(), PyrenderRenderer):
        print("rendering is left out: there is no OpenGL here", flush=True)
        return []
    meshes, cameras = frames_of_a_clip(setting, setting.count(6, 1))
    rates = defaultdict(list)
    for _ in range(repeats := setting.count(5, 1)):
        close_renderer()  # a pyrender renderer that is deleted ends every context of its display
        rates["new renderer"].append(views_per_second(documented_views, meshes[:2], cameras))
        rates["kept renderer"].append(views_per_second(documented_views_kept, meshes, cameras))
        rates["ours"].append(views_per_second(our_views, meshes, cameras))
    ours = np.array(rates["ours"])

    def speed(name: str, key: str) -> dict:
        return row(name, np.median(rates[key]), "views/s", np.median(ours / rates[key]), repeats)

    return [
        row("ours", np.median(ours), "views/s", 1.0, repeats),
        speed("pyrender as documented, a new renderer for each view", "new renderer"),
        speed("pyrender as documented, its renderer kept", "kept renderer"),
        *compare_pictures(meshes, cameras),
    ]


def frames_of_a_clip(setting: Setting, count: int) -> tuple[list[TexturedMesh], list[Camera]]:
    """The first `count` frames of a measured clip as stage 01 draws them, and the two cameras."""
    sequence = open_sequence(measured_clips(setting)["folder"][0])
    config, shapes, faces = load_config(setting.profile), stable_vertices(sequence), sequence.geometry(0)[1]
    meshes = [TexturedMesh(shapes[t], faces, sequence.geometry(t)[2], sequence.texture(t)) for t in range(count)]
    return meshes, view_cameras(shapes[0], config.size, config.yaw_deg)


def views_per_second(draw: Callable, meshes: list[TexturedMesh], cameras: list[Camera]) -> float:
    """Views per second of `draw(meshes, cameras)`, after a first call that compiles the shaders."""
    draw(meshes[:1], cameras)
    return len(meshes) * len(cameras) / seconds_of(draw, meshes, cameras)


def our_views(meshes: list[TexturedMesh], cameras: list[Camera]) -> list[Picture]:
    return [picture for mesh in meshes for picture in get_renderer().render(mesh, cameras)]


def documented_views(meshes: list[TexturedMesh], cameras: list[Camera]) -> None:
    """Every view with a new renderer, as in pyrender's quick start."""
    for mesh in meshes:
        for camera in cameras:
            documented_views_kept([mesh], [camera])


def documented_views_kept(meshes: list[TexturedMesh], cameras: list[Camera], flags: int = 0) -> list[Picture]:
    """Every view with a new scene, all views with one renderer, which is deleted at the end."""
    import pyrender

    renderer = pyrender.OffscreenRenderer(cameras[0].size[1], cameras[0].size[0])
    drawn = [renderer.render(documented_scene(mesh, camera), flags) for mesh in meshes for camera in cameras]
    renderer.delete()
    return [Picture(colour, depth > 0) for colour, depth in drawn]


def documented_scene(mesh: TexturedMesh, camera: Camera):
    """Mesh, camera and light in a new scene, see https://pyrender.readthedocs.io/en/latest/examples/quickstart.html"""
    import pyrender

    # Without this material trimesh darkens the texture to 40%.
    skin = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0)
    visual = trimesh.visual.TextureVisuals(uv=mesh.uv, material=skin)
    surface = trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual, process=False)
    pose = np.eye(4)
    pose[:3, :3] = camera.axes.T
    pose[:3, 3] = np.asarray(camera.target) + camera.distance * camera.axes[2]
    centre, near, far = np.add(camera.centre, 0.5), camera.distance * 0.2, camera.distance * 2
    lens = pyrender.IntrinsicsCamera(camera.focal, camera.focal, *centre, znear=near, zfar=far)
    light = pyrender.SpotLight(np.ones(3), intensity=3.0, innerConeAngle=np.pi / 16, outerConeAngle=np.pi / 6)
    scene = pyrender.Scene(bg_color=np.zeros(4))
    scene.add(pyrender.Mesh.from_trimesh(surface))
    scene.add(lens, pose=pose)
    scene.add(light, pose=pose)
    return scene


def compare_pictures(meshes: list[TexturedMesh], cameras: list[Camera]) -> list[dict]:
    """Grey level differences between our pictures and pyrender's, without light, where both show the mesh."""
    import pyrender

    ours = our_views(meshes, cameras)
    close_renderer()
    theirs = documented_views_kept(meshes, cameras, pyrender.RenderFlags.FLAT)
    both = [a.mask & b.mask for a, b in zip(ours, theirs, strict=True)]
    difference = np.concatenate(
        [np.abs(a.rgb[mask].astype(int) - b.rgb[mask]) for a, b, mask in zip(ours, theirs, both, strict=True)]
    )
    apart = sum((a.mask ^ b.mask).sum() for a, b in zip(ours, theirs, strict=True))
    covered, n = sum(mask.sum() for mask in both), len(ours)
    return [
        row("pixels, ours and theirs: mean difference", difference.mean(), "grey levels of 255", n=n),
        row("pixels: 99th percentile", np.percentile(difference, 99), "grey levels of 255", n=n),
        row("pixels: largest", difference.max(), "grey levels of 255", n=n),
        row("pixels that one of the two covers", apart / covered, "of those that both cover", n=n),
    ]


def leaks(setting: Setting) -> list[dict]:
    """Resident memory and OpenGL objects that 1,000 short sequences (2 frames, views of 64 px, through `make_views`)
    leave behind in one process, after 50 sequences that warm it up."""
    clip = open_sequence(measured_clips(setting)["folder"][0])
    vertices, faces, _ = clip.vertices(), *clip.geometry(0)[1:]
    uv = np.stack([clip.geometry(t)[2] for t in (0, 1)])
    folder = setting.folder / "runs" / "short"
    write_clip(folder, vertices[:2], faces, uv, clip.fps, [clip.texture(t) for t in (0, 1)])

    def draw(count: int) -> None:
        for _ in range(count):
            make_views(open_sequence(folder), size=64)
        gc.collect()

    count = setting.count(1000, 20)
    draw(setting.count(50, 5))
    memory, objects = resident_mb([psutil.Process()]), gl_objects()
    seconds = seconds_of(draw, count)
    memory, objects = resident_mb([psutil.Process()]) - memory, gl_objects() - objects
    return [
        row("resident memory gained", memory * 1000 / count, "MB per 1,000 sequences", n=count),
        row("OpenGL objects gained", objects, "objects", n=count),
        row("time of one sequence", seconds / count * 1000, "ms", n=count),
    ]


def gl_objects() -> int:
    """Number of objects in the OpenGL context of this process with names below 4096; 0 without OpenGL."""
    if not isinstance(get_renderer(), PyrenderRenderer):
        return 0
    from OpenGL import GL

    kinds = ("Texture", "Buffer", "VertexArray", "Framebuffer", "Renderbuffer", "Program", "Shader")
    return sum(bool(getattr(GL, f"glIs{kind}")(name)) for kind in kinds for name in range(1, 4096))
