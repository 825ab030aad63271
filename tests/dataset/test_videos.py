"""Facts about videos as sequences."""

import numpy as np
import pytest
from helpers.one_camera import write_video
from helpers.refusals import refused

from utils.dataset.images import write_image
from utils.dataset.readers import open_sequence
from utils.dataset.tables import open_data
from utils.train.samples import CLASSES

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
LEVELS = np.arange(20, 240, 20)  # grey level of each frame of a video, which tells the frames apart


@pytest.fixture(params=CODECS)
def video(tmp_path, request):
    path = tmp_path / f"P1_001{request.param}"
    ramp = np.linspace(0, 15, 64, dtype=np.uint8)
    frames = np.stack([np.broadcast_to(level + ramp[:, None], (48, 64, 3)) for level in LEVELS]).astype(np.uint8)
    write_video(path, frames, CODECS[request.param], fps=25.0)
    return path


def levels(pictures):
    return [round(float(picture.mean()) / 20 - 0.4) * 20 for picture in pictures]


def test_a_video_is_a_sequence_of_pictures(video):
    sequence = open_sequence(video)
    assert (sequence.kind, sequence.id, sequence.fps, len(sequence)) == ("images", "P1_001", 25.0, len(LEVELS))
    assert sequence.texture(0).shape == (48, 64, 3) and sequence.texture(0).dtype == np.uint8
    assert levels(frame.texture for frame in sequence) == LEVELS.tolist()


def test_frames_can_be_read_in_any_order(video):
    sequence = open_sequence(video)
    pictures = [sequence.texture(t) for t in (7, 2, 2, 9, -1)]
    assert levels(pictures) == [160, 60, 60, 200, 220]
    assert np.array_equal(pictures[1], pictures[2]) and np.array_equal(pictures[1], open_sequence(video).texture(2))


def test_red_is_red(tmp_path):
    write_video(tmp_path / "red.mp4", np.full((3, 48, 64, 3), (200, 20, 20), np.uint8))
    red, green, blue = open_sequence(tmp_path / "red.mp4").texture(1).mean((0, 1))
    assert red > 170 and green < 50 and blue < 50


def test_a_video_may_lie_alone_in_a_folder(video):
    folder = video.parent / "P1_002"
    folder.mkdir()
    video.rename(folder / video.name)
    (folder / "notes.txt").write_text("of the camera")
    assert open_sequence(folder).id == "P1_002" and len(open_sequence(folder)) == len(LEVELS)
    write_image(folder / "frame_1.png", np.zeros((4, 4, 3), np.uint8))
    with refused(f"it holds {video.name} and frame_1.png", "keep one form"):
        open_sequence(folder)


def test_a_clip_may_be_a_span_of_a_longer_video(video):
    assert levels(frame.texture for frame in open_sequence(video, span=(3, 6))) == LEVELS[3:7].tolist()
    for span in ((3, 11), (-1, 4), (6, 3)):
        with refused("it has 11 frames, and not"):
            open_sequence(video, span=span)


def test_a_video_that_is_cut_off_is_refused(video):
    content = video.read_bytes()
    for share in (0.1, 0.5, 0.9):
        video.write_bytes(content[: int(len(content) * share)])
        with refused(video.name):
            list(open_sequence(video))


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        b"%!PS-Adobe-3.0\nshowpage\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"\x1aE\xdf\xa3" + b"\0" * 99,
        b"",
    ],
    ids=["playlist", "PostScript", "list of files", "Matroska", "nothing"],
)
def test_the_decoder_gets_no_file_of_another_format(tmp_path, monkeypatch, content):
    def decoded(*_):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("cv2.VideoCapture", decoded)
    (tmp_path / "P1_001.mp4").write_bytes(content)
    with refused("neither an MP4 nor an AVI"):
        open_sequence(tmp_path / "P1_001.mp4")


@pytest.mark.parametrize(
    ("name", "value", "fault"), [("MAX_SIDE", 60, "its frames are 64 x 48"), ("MAX_FPS", 20, "25 frames per second")]
)
def test_absurd_sizes_are_refused(video, monkeypatch, name, value, fault):
    monkeypatch.setattr(f"utils.dataset.videos.{name}", value)
    with refused(fault):
        open_sequence(video)


def test_a_long_recording_is_no_clip(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.dataset.readers.MAX_CLIP", 5)
    write_video(tmp_path / "long.mp4", np.zeros((8, 48, 64, 3), np.uint8))
    with refused("it holds 8 frames, and a clip may have 5", "cut = true"):
        open_sequence(tmp_path / "long.mp4")
    assert len(open_sequence(tmp_path / "long.mp4", span=(2, 6))) == 5


def test_videos_may_replace_folders_in_a_data_root(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (6, 48, 64, 3), np.uint8)
    head = "Id," + ",".join(CLASSES)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    for name in ("train/A1.mp4", "train/007_b.avi", "test/C1.mp4"):
        write_video(tmp_path / name, frames, CODECS[name[-4:]])
    (tmp_path / "train.csv").write_text(f"{head},subject,onset,apex,offset\nA1,1,0,0,0,0,s1,1,3,6\n7,0,1,0,0,0,s2,,,\n")
    (tmp_path / "sample_submission.csv").write_text(f"{head}\nC1,0,0,0,0,0\n")
    (tmp_path / "layout.toml").write_text('frames = "from 1"\n')
    data = open_data(tmp_path, CLASSES)
    assert data.folder("train", "7").name == "007_b.avi" and len(data.sequence("test", "C1")) == 6
    assert data.train.loc[0, ["onset", "apex", "offset"]].tolist() == [0, 2, 5]
    write_video(tmp_path / "train" / "A1.avi", frames, "MJPG")
    with refused("A1", "is of the same Id"):
        open_data(tmp_path, CLASSES)
