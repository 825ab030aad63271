"""Facts about data roots as the databases of the field deliver them, tested on small stand-ins (`stand_ins`)."""

import numpy as np
import pandas as pd
import pytest
from helpers import stand_ins
from helpers.refusals import refused
from helpers.stand_ins import write_book, write_casme2, write_frames, write_layout

from utils.dataset.labels import parse_units
from utils.dataset.tables import open_data
from utils.errors import DataError
from utils.train.samples import CLASSES

BLACK = np.zeros((24, 32, 3), np.uint8)
CASME2_TABLE = "CASME2-coding-20140508.xlsx"
CASME2_COLUMNS = ["Subject", "Filename", "Estimated Emotion"]


def labels(data):
    """The classes of each clip by Id."""
    return {row["Id"]: [name for name in CLASSES if row[name]] for row in data.train.to_dict("records")}


def moments(data, id):
    row = data.train.set_index("Id").loc[id]
    return [None if pd.isna(row[name]) else int(row[name]) for name in ("onset", "apex", "offset")]


def grey(sequence, t):
    return int(sequence.texture(t)[0, 0, 0])


def test_casme2_has_subjects_positions_labels_and_action_units(tmp_path):
    data = open_data(write_casme2(tmp_path), CLASSES)
    assert data.test_ids == [] and data.warnings == () and len(data.train) == 6
    assert data.train["subject"].tolist() == ["1", "1", "2", "2", "3", "3"]  # "01" is the same subject as 1
    assert labels(data)["sub01_EP02_01f"] == ["Surprise"] and labels(data)["sub02_EP03_01f"] == ["Repression"]
    assert moments(data, "sub02_EP02_01f") == [0, 3, 5] and moments(data, "sub01_EP03_01f") == [0, None, 5]
    assert set(data.train["units"]) == {"4+L12+R10"}
    sequence = data.sequence("train", "sub03_EP02_01f")
    assert len(sequence) == 6 and abs(grey(sequence, 2) - 32) < 3


def test_samm_is_read_below_its_preamble(tmp_path):
    data = open_data(stand_ins.write_samm(tmp_path), CLASSES)
    assert labels(data) == {"006_006_1_2": ["Negative"], "007_007_1_2": ["Positive"], "008_008_1_2": ["Others"]}
    assert moments(data, "007_007_1_2") == [1, 2, 4] and data.train["subject"].nunique() == 3


def test_smic_is_read_from_its_folders(tmp_path):
    data = open_data(stand_ins.write_smic(tmp_path), CLASSES)
    assert labels(data)["s02_ne_01"] == ["Negative"] and labels(data)["s02_po_02"] == ["Positive"]
    assert data.train["subject"].tolist() == ["s01", "s01", "s02", "s02", "s03", "s03"]


def test_the_user_must_choose_between_two_copies_of_the_clips(tmp_path):
    stand_ins.write_smic(tmp_path)
    copy = tmp_path / "VIS" / "s01" / "micro" / "negative" / "s01_ne_01"
    write_frames(copy, ["1.bmp", "2.bmp"], lambda *_: BLACK, 1, 0)
    with refused("lie in 2 places (HS, VIS)", "name one of them as clips"):
        open_data(tmp_path, CLASSES)
    write_layout(tmp_path, 'preset = "smic"\nclips = "VIS"\n')
    assert open_data(tmp_path, CLASSES).train["Id"].tolist() == ["s01_ne_01"]


def test_mmew_counts_its_frames_from_one_and_sorts_its_clips_by_emotion(tmp_path):
    data = open_data(stand_ins.write_mmew(tmp_path), CLASSES)
    assert moments(data, "S02-01-001") == [0, 4, 11]
    assert set(data.train["units"]) == {"L12+R4"}


def test_a_table_is_found_in_capital_letters_too(tmp_path):
    stand_ins.write_casme3(tmp_path)
    (tmp_path / "cas(me)3_part_A_ME_label.xlsx").rename(tmp_path / "CAS(ME)3_part_A.XLSX")
    assert len(open_data(tmp_path, CLASSES).train) == 6


def test_the_clips_of_casme3_are_cut_out_of_recordings(tmp_path):
    data = open_data(stand_ins.write_casme3(tmp_path), CLASSES)
    assert data.clip("train", "spNO.2_a_3").span == (3, 9) and moments(data, "spNO.2_a_12") == [0, 3, 8]
    sequence = data.sequence("train", "spNO.2_a_12")
    assert len(sequence) == 9 and abs(grey(sequence, 0) - 31) < 3
    assert moments(data, "spNO.1_a_12") == [None] * 3
    assert len(data.warnings) == 1 and "1 clips (spNO.1_a_12) have onset, apex and offset" in data.warnings[0]


def test_4dme_has_emotions_of_several_parts_and_action_units_that_move(tmp_path):
    data = open_data(stand_ins.write_4dme(tmp_path), CLASSES)
    assert labels(data)["S1_1st_000_01_1"] == ["Positive", "Surprise"]
    assert moments(data, "S3_1st_002_01_1") == [0, 2, 4] and set(data.train["units"]) == {"L7+12"}


def test_the_ids_of_the_challenge_are_the_numbers_of_its_folders(tmp_path):
    data = open_data(stand_ins.write_4dmr(tmp_path), CLASSES)
    assert data.folder("train", "4").name == "004_S02" and data.folder("test", "12").name == "012_S04"
    assert data.test_ids == ["10", "11", "12"] and len(data.sequence("train", "1")) == 6
    (tmp_path / "train" / "4_again").mkdir()
    with refused("Id 4 may be 004_S02 or 4_again", "rename"):
        open_data(tmp_path, CLASSES)


def test_a_layout_renames_the_columns_and_maps_the_emotions_of_the_challenge(tmp_path):
    stand_ins.write_4dmr(tmp_path)
    rows = "\n".join(f"{i},P{(i - 1) // 3},{('joy', 'anger+joy', 'none')[i % 3]},1,2,6" for i in range(1, 10))
    (tmp_path / "train.csv").write_text(f"number,who,feeling,On,Top,Off\n{rows}\n")
    write_layout(
        tmp_path,
        'frames = "from 1"\n[columns]\nId = "number"\nsubject = "who"\nemotion = "feeling"\n'
        'onset = "On"\napex = "Top"\noffset = "Off"\n'
        '[labels]\njoy = "Positive"\nanger = "Negative"\nnone = "Others"\n',
    )
    data = open_data(tmp_path, CLASSES)
    assert labels(data)["1"] == ["Negative", "Positive"] and labels(data)["3"] == ["Positive"]
    assert data.train["subject"].tolist()[:4] == ["P0", "P0", "P0", "P1"] and moments(data, "2") == [0, 1, 5]


def test_workbooks_may_replace_csv_tables(tmp_path):
    stand_ins.write_4dmr(tmp_path)
    for name in ("train", "sample_submission"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        write_book(tmp_path / f"{name}.xlsx", [table.columns.tolist(), *table.to_numpy(object).tolist()])
        with refused(f"{name}.xlsx lies beside it"):
            open_data(tmp_path, CLASSES)
        (tmp_path / f"{name}.csv").unlink()
    assert open_data(tmp_path, CLASSES).test_ids == ["10", "11", "12"]


def test_the_name_of_the_folder_may_give_the_subject(tmp_path):
    stand_ins.write_4dmr(tmp_path)
    table = pd.read_csv(tmp_path / "train.csv").drop(columns="subject")
    table.to_csv(tmp_path / "train.csv", index=False)
    assert open_data(tmp_path, CLASSES, r"_(S\d+)$").train["subject"].tolist()[::3] == ["S01", "S02", "S03"]
    write_layout(tmp_path, "subject_pattern = '_(S\\d+)$'\n")
    assert open_data(tmp_path, CLASSES).train["subject"].nunique() == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('preset = "casme"', "preset 'casme' is unknown"),
        ("preset = [[1]]", "is unknown"),
        ('tabel = "x"', "'tabel' is no key of a layout"),
        ('skip_rows = "3"', "skip_rows = '3' is no int"),
        ('frames = "from 2"', "frames = 'from 2'"),
        ('table = "../x.csv"\nfolder = "x"', "table '../x.csv' leads out"),
        ('table = "/etc/x.csv"\nfolder = "x"', "leads out"),
        ('table = "t.csv"', "it has a table and no folder"),
        ('[labels]\njoy = "Gladness"', "joy: 'Gladness' is no class"),
        ("[labels]\njoy = 3", "no text"),
        ("labels = 3", "no text"),
        ('[columns]\nmood = "x"', r"\[columns\] has no 'mood'"),
        ("preset = casme2", "the layout cannot be read"),
        ('preset = "casme2"\ntable = "none*.xlsx"', "fits 0 files here"),
        ('preset = "casme2"\nfolder = "{person}/{filename}"', "no column 'person', which folder"),
        ('preset = "casme2"\nfolder = "{subject}x/{filename}"', "no folder .* lies here"),
        ('preset = "casme2"\nsheet = "two"', "it has no sheet 'two'"),
        ('preset = "casme2"\nskip_rows = 90', "the table is empty"),
        ('preset = "casme2"\n[columns]\nemotion = "Mood"', "no column 'Mood'"),
        ('preset = "casme2"\nid = "same"', "two rows are the clip same"),
    ],
)
def test_a_fault_of_a_layout_is_named(tmp_path, text, fault):
    write_casme2(tmp_path)
    write_layout(tmp_path, text + "\n")
    with pytest.raises(DataError, match=f"{fault}(?s:.*)Remedy: "):
        open_data(tmp_path, CLASSES)


def test_an_unknown_emotion_is_refused_and_a_clip_without_a_class_is_left_out(tmp_path):
    write_casme2(tmp_path)
    rows = [[subject, "EP02_01f", emotion] for subject, emotion in ((1, "awe"), (2, "joy"), (3, "fear"))]
    write_book(tmp_path / CASME2_TABLE, [CASME2_COLUMNS, *rows])
    with refused("the emotions 'awe', 'joy' mean no class"):
        open_data(tmp_path, CLASSES)
    write_layout(tmp_path, 'preset = "casme2"\n[labels]\nAwe = ""\njoy = "Positive+Surprise"\n')
    data = open_data(tmp_path, CLASSES)
    assert labels(data) == {"sub02_EP02_01f": ["Positive", "Surprise"], "sub03_EP02_01f": ["Negative"]}
    assert "1 clips are left out" in data.warnings[0]


def test_rows_without_a_folder_are_left_out_unless_they_are_more_than_half(tmp_path):
    write_casme2(tmp_path)
    clips = sorted((tmp_path / "CASME2_RAW_selected").glob("*/*"))
    clips[0].rename(tmp_path / "away")
    data = open_data(tmp_path, CLASSES)
    assert len(data.train) == 5 and "1 of 6 clips have no folder" in data.warnings[0]
    for clip in clips[1:4]:
        clip.rename(clip.parent / f"{clip.name}_other")
    with refused("4 of 6 clips have no folder"):
        open_data(tmp_path, CLASSES)


def test_a_cell_cannot_lead_out_of_the_root(tmp_path):
    write_casme2(tmp_path / "root")
    write_frames(tmp_path / "secret", ["1.png", "2.png"], lambda *_: BLACK, 1, 0)
    write_book(tmp_path / "root" / CASME2_TABLE, [CASME2_COLUMNS, [1, "..", "fear"], [2, "EP02_01f", "fear"]])
    with refused("leads out of the data root"):
        open_data(tmp_path / "root", CLASSES)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("AU4(k)+L7", (("L", 7),)),
        ("4+7+R12", (("", 4), ("", 7), ("R", 12))),
        ("12L, 4R", (("L", 12), ("R", 4))),
        ("T28+14B", (("", 28), ("", 14))),
        ("AU12C or AU1?", (("", 12), ("", 1))),
        ("", ()),
        ("none", ()),
    ],
)
def test_action_units_have_sides_and_those_that_do_not_move_are_left_out(text, units):
    assert parse_units(text) == units
