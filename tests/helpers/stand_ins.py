"""Small data roots in the layouts of the field's databases, with their real headers, preambles and spellings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from openpyxl import Workbook

from utils.dataset.images import write_image

EMOTIONS = ("happiness", "surprise", "disgust", "repression", "others")
PEOPLE = (1, 2, 3)  # the subjects of a root, unless it says otherwise
Picture = Callable[[int, int, int, int], np.ndarray]  # (subject, number of the clip, t, count): frame t of `count`


def plain(subject: int, number: int, t: int, count: int) -> np.ndarray:
    """A grey picture (H, W, 3) uint8 that is brighter in each frame and for each subject."""
    return np.full((24, 32, 3), 10 * subject + t, np.uint8)


def write_book(path: Path, rows: list[list]) -> None:
    """Write rows of cells as an Excel file."""
    book = Workbook()
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


def write_frames(folder: Path, names: list[str], picture: Picture, subject: int, number: int) -> None:
    """Write the frames of a clip as files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        write_image(folder / name, picture(subject, number, t, len(names)))


def write_layout(root: Path, text: str) -> None:
    (root / "layout.toml").write_text(text, encoding="utf-8")


def write_tables(root: Path, preset: str, table: str, rows: list[list]) -> Path:
    """Write the Excel table of a root and the layout that names its preset; returns the root."""
    write_book(root / table, rows)
    write_layout(root, f'preset = "{preset}"\n')
    return root


def write_casme2(root: Path, picture: Picture = plain, people: int = 3, clips: int = 2, count: int = 6) -> Path:
    """A folder per subject. Frame numbers go on from the recording; the table writes sub01 as 1 or as "01"."""
    rows = [["Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None]]
    rows[0] += ["Action Units", "Estimated Emotion"]
    for subject in range(1, people + 1):
        for number in range(clips):
            name, first = f"EP{number + 2:02d}_01f", 40 * subject
            folder = root / "CASME2_RAW_selected" / f"sub{subject:02d}" / name
            write_frames(folder, [f"img{first + t}.jpg" for t in range(count)], picture, subject, number)
            apex = "/" if (subject, number) == (1, 1) else first + count // 2
            emotion = EMOTIONS[(subject + number) % len(EMOTIONS)]
            cell = subject if number else f"{subject:02d}"
            rows.append([cell, name, None, first, apex, first + count - 1, None, "4+L12 or R10", emotion])
    return write_tables(root, "casme2", "CASME2-coding-20140508.xlsx", rows)


def write_samm(root: Path) -> Path:
    """Thirteen lines before the header. Names and frame numbers begin with zeros; 200 frames per second."""
    head = ["Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro"]
    rows = [["SAMM Micro-expressions"], *[[None]] * 11, ["Notes"]]
    rows.append([*head, "Action Units", "Estimated Emotion", "Objective Classes", "Notes"])
    for subject, emotion in ((6, "Anger"), (7, "Happiness"), (8, "Other")):
        name, first = f"{subject:03d}_1_2", 5562
        names = [f"{subject:03d}_{first + t:05d}.jpg" for t in range(5)]
        write_frames(root / f"{subject:03d}" / name, names, plain, subject, 0)
        rows.append([subject, name, 1, first + 1, first + 2, first + 4, 3, "1/2", "AU4+7", emotion, 3, None])
    return write_tables(root, "samm", "SAMM_Micro_FACS_Codes_v2.xlsx", rows)


def write_smic(root: Path) -> Path:
    """No table: folders name subject and emotion. Clips without an expression lie beside the others."""
    for subject in PEOPLE:
        folder = root / "HS" / f"s{subject:02d}"
        for number, (emotion, short) in enumerate((("negative", "ne"), ("positive", "po"))):
            name = f"s{subject:02d}_{short}_{number + 1:02d}"
            names = [f"reg_image{100013 + t}.bmp" for t in range(4)]
            write_frames(folder / "micro" / emotion / name, names, plain, subject, number)
        write_frames(folder / "non_micro" / "x", ["image1.bmp", "image2.bmp"], plain, 1, 0)
    write_layout(root, 'preset = "smic"\n')
    return root


def write_mmew(root: Path) -> Path:
    """A folder per emotion. The table counts frames from 1."""
    rows = [["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"]]
    rows[0] += ["Action Units", "Estimated Emotion", "remarks"]
    for subject in PEOPLE:
        name, emotion = f"S{subject:02d}-01-001", EMOTIONS[subject % 3]
        names = [f"{t + 1}.jpg" for t in range(12)]
        write_frames(root / "Micro_Expression" / emotion / name, names, plain, subject, 0)
        rows.append([subject, name, 1, 5, 12, "12L+4R", emotion, None])
    return write_tables(root, "mmew", "MMEW_Micro_Exp.xlsx", rows)


def write_casme3(root: Path) -> Path:
    """Whole recordings of 30 frames with two clips each. One row has its apex before its onset, as in the release."""
    rows = [["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]]
    for subject in PEOPLE:
        names = [f"{t}.jpg" for t in range(1, 31)]
        write_frames(root / "part_A" / f"spNO.{subject}" / "a" / "color", names, plain, subject, 0)
        rows.append([f"spNO.{subject}", "a", 3, 5, 9, "4", "III", "disgust"])
        rows.append([f"spNO.{subject}", "a", 12, 11 if subject == 1 else 15, 20, "T28+14", "II", "happy"])
    return write_tables(root, "casme3", "cas(me)3_part_A_ME_label.xlsx", rows)


def write_4dme(root: Path) -> Path:
    """The table of the release: several emotions in one cell, action units with notes, absolute frame numbers."""
    rows = [["sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs"]]
    for subject in PEOPLE:
        for number, emotion in enumerate(("Positive+Surprise", "Negative", "Others")):
            first = 101 + 20 * number
            names = [f"{first + t:06d}.png" for t in range(5)]
            write_frames(root / f"S{subject}" / f"1st_00{number}_01_1", names, plain, subject, number)
            rows.append([f"S{subject}", f"1st_00{number}_01_1", emotion, first, first + 2, first + 4, "AU4(k)+L7+12"])
    return write_tables(root, "4dme", "4DME_release.xlsx", rows)


def write_4dmr(root: Path) -> Path:
    """The challenge as the code of participants shows it: the last of four subjects is the test.

    Ids are whole numbers. A clip's folder begins with its Id, and a picture's name with its frame number.
    """
    head = "Id,Negative,Positive,Repression,Surprise,Others"
    rows = {"train": [f"{head},subject"], "test": [head]}
    for id in range(1, 13):
        subject, number = (id - 1) // 3 + 1, (id - 1) % 3
        split = "test" if subject == 4 else "train"
        names = [f"{t + 1}_S{subject:02d}_cam2.jpg" for t in range(6)]
        write_frames(root / split / f"{id:03d}_S{subject:02d}", names, plain, subject, number)
        label = ",".join("1" if k == number else "0" for k in range(5))
        rows[split].append(f"{id},0,0,0,0,0" if split == "test" else f"{id},{label},S{subject:02d}")
    (root / "train.csv").write_text("\n".join(rows["train"]) + "\n")
    (root / "sample_submission.csv").write_text("\n".join(rows["test"]) + "\n")
    return root
