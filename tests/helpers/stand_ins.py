"""Small data roots in the layouts of the field's databases: real headers, preambles, spellings; made-up pictures.

`picture(subject, number, t, count)` gives frame t of `count` of a person's clip as (H, W, 3) uint8.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from openpyxl import Workbook

from utils.dataset.images import write_image

EMOTIONS = ("happiness", "surprise", "disgust", "repression", "others")
Picture = Callable[[int, int, int, int], np.ndarray]


def plain(subject: int, number: int, t: int, count: int) -> np.ndarray:
    """A grey picture whose level tells the frame."""
    return np.full((24, 32, 3), 10 * subject + t, np.uint8)


def write_book(path: Path, rows: list[list]) -> None:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


def write_frames(folder: Path, names: list[str], picture: Picture, subject: int, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        write_image(folder / name, picture(subject, number, t, len(names)))


def write_layout(root: Path, text: str) -> None:
    (root / "layout.toml").write_text(text, encoding="utf-8")


def write_casme2(root: Path, picture: Picture = plain, people: int = 3, each: int = 2, count: int = 6) -> Path:
    """Sub-folders of people, frames numbered from where the clip began, a table that writes sub01 as 1 or as "01"."""
    rows = [
        [
            "Subject",
            "Filename",
            None,
            "OnsetFrame",
            "ApexFrame",
            "OffsetFrame",
            None,
            "Action Units",
            "Estimated Emotion",
        ]
    ]
    for subject in range(1, people + 1):
        for number in range(each):
            name, first = f"EP{number + 2:02d}_01f", 40 * subject
            folder = root / "CASME2_RAW_selected" / f"sub{subject:02d}" / name
            names = [f"img{first + t}.jpg" for t in range(count)]
            write_frames(folder, names, picture, subject, number)
            apex = "/" if (subject, number) == (1, 1) else first + count // 2
            emotion = EMOTIONS[(subject + number) % len(EMOTIONS)]
            spelt = subject if number else f"{subject:02d}"
            rows.append([spelt, name, None, first, apex, first + count - 1, None, "4+L12 or R10", emotion])
    write_book(root / "CASME2-coding-20140508.xlsx", rows)
    write_layout(root, 'preset = "casme2"\n')
    return root


def write_samm(root: Path, picture: Picture = plain, people: int = 3) -> Path:
    """Thirteen lines before the header; numbers with zeros in front, of 200 frames a second."""
    head = ["Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro"]
    rows = [["SAMM Micro-expressions"], *[[None]] * 11, ["Notes"]]
    rows.append([*head, "Action Units", "Estimated Emotion", "Objective Classes", "Notes"])
    for subject in range(6, 6 + people):
        name, first = f"{subject:03d}_1_2", 5562
        names = [f"{subject:03d}_{first + t:05d}.jpg" for t in range(5)]
        write_frames(root / f"{subject:03d}" / name, names, picture, subject, 0)
        emotion = ("Anger", "Happiness", "Other")[subject % 3]
        rows.append([subject, name, 1, first + 1, first + 2, first + 4, 3, "1/2", "AU4+7", emotion, 3, None])
    write_book(root / "SAMM_Micro_FACS_Codes_v2.xlsx", rows)
    write_layout(root, 'preset = "samm"\n')
    return root


def write_smic(root: Path, picture: Picture = plain, people: int = 3) -> Path:
    """No table: person and emotion are folders; clips without an expression lie beside."""
    for subject in range(1, people + 1):
        for number, (emotion, short) in enumerate((("negative", "ne"), ("positive", "po"))):
            name = f"s{subject:02d}_{short}_{number + 1:02d}"
            names = [f"reg_image{100013 + t}.bmp" for t in range(4)]
            write_frames(root / "HS" / f"s{subject:02d}" / "micro" / emotion / name, names, picture, subject, number)
        write_frames(root / "HS" / f"s{subject:02d}" / "non_micro" / "x", ["image1.bmp", "image2.bmp"], picture, 1, 0)
    write_layout(root, 'preset = "smic"\n')
    return root


def write_mmew(root: Path, picture: Picture = plain, people: int = 3) -> Path:
    """Folders by emotion; the table counts frames from 1."""
    rows = [
        [
            "Subject",
            "Filename",
            "OnsetFrame",
            "ApexFrame",
            "OffsetFrame",
            "Action Units",
            "Estimated Emotion",
            "remarks",
        ]
    ]
    for subject in range(1, people + 1):
        name, emotion = f"S{subject:02d}-01-001", EMOTIONS[subject % 3]
        names = [f"{t + 1}.jpg" for t in range(12)]
        write_frames(root / "Micro_Expression" / emotion / name, names, picture, subject, 0)
        rows.append([subject, name, 1, 5, 12, "12L+4R", emotion, None])
    write_book(root / "MMEW_Micro_Exp.xlsx", rows)
    write_layout(root, 'preset = "mmew"\n')
    return root


def write_casme3(root: Path, picture: Picture = plain, people: int = 3) -> Path:
    """Whole recordings of 30 frames, two clips in each, and the one row of the release whose order is wrong."""
    rows = [["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]]
    for subject in range(1, people + 1):
        names = [f"{t}.jpg" for t in range(1, 31)]
        write_frames(root / "part_A" / f"spNO.{subject}" / "a" / "color", names, picture, subject, 0)
        rows.append([f"spNO.{subject}", "a", 3, 5, 9, "4", "III", "disgust"])
        rows.append([f"spNO.{subject}", "a", 12, 11 if subject == 1 else 15, 20, "T28+14", "II", "happy"])
    write_book(root / "cas(me)3_part_A_ME_label.xlsx", rows)
    write_layout(root, 'preset = "casme3"\n')
    return root


def write_4dme(root: Path, picture: Picture = plain, people: int = 3) -> Path:
    """The release's table: emotions of several parts, static units, absolute frames."""
    rows = [["sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs"]]
    for subject in range(1, people + 1):
        for number, emotion in enumerate(("Positive+Surprise", "Negative", "Others")):
            first = 101 + 20 * number
            names = [f"{first + t:06d}.png" for t in range(5)]
            write_frames(root / f"S{subject}" / f"1st_00{number}_01_1", names, picture, subject, number)
            rows.append([f"S{subject}", f"1st_00{number}_01_1", emotion, first, first + 2, first + 4, "AU4(k)+L7+12"])
    write_book(root / "4DME_release.xlsx", rows)
    write_layout(root, 'preset = "4dme"\n')
    return root


def write_4dmr(root: Path, picture: Picture = plain, people: int = 4, each: int = 3, count: int = 6) -> Path:
    """The challenge as participants' code shows it: whole numbers as Ids, folders that begin with them, pictures side
    by side whose first number is the frame's."""
    head = "Id,Negative,Positive,Repression,Surprise,Others"
    rows = {"train": [f"{head},subject"], "test": [head]}
    for subject in range(1, people + 1):
        split = "test" if subject == people else "train"
        for number in range(each):
            id = each * (subject - 1) + number + 1
            names = [f"{t + 1}_S{subject:02d}_cam2.jpg" for t in range(count)]
            write_frames(root / split / f"{id:03d}_S{subject:02d}", names, picture, subject, number)
            label = ["1" if k == number % 5 else "0" for k in range(5)]
            own = [str(id), *(label if split == "train" else "00000")]
            rows[split].append(",".join(own + ([f"S{subject:02d}"] if split == "train" else [])))
    (root / "train.csv").write_text("\n".join(rows["train"]) + "\n")
    (root / "sample_submission.csv").write_text("\n".join(rows["test"]) + "\n")
    return root
