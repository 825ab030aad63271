"""Layouts of the databases of the field, as their tables and folders are delivered: values for `layout.toml`.

Sources: the documentation of the databases, and loaders in public code. A delivery that differs is described by single
keys in `layout.toml`. This project decided which class an emotion belongs to: disgust, fear, sadness, anger and
contempt are Negative.
"""

from typing import Any

EMOTIONS = {
    **dict.fromkeys(("negative", "disgust", "fear", "sadness", "sad", "anger", "angry", "contempt"), "Negative"),
    **dict.fromkeys(("positive", "happiness", "happy"), "Positive"),
    "repression": "Repression",
    **dict.fromkeys(("surprise", "surprised"), "Surprise"),
    **dict.fromkeys(("others", "other"), "Others"),
}
FILE_COLUMNS = {
    "subject": ["Subject"],
    "filename": ["Filename"],
    "onset": ["OnsetFrame", "Onset"],
    "apex": ["ApexFrame", "Apex", "ApexF"],
    "offset": ["OffsetFrame", "Offset"],
    "emotion": ["Estimated Emotion", "Emotion"],
    "units": ["Action Units", "Action Unit", "AUs", "AU"],
}
TABLE = {"frames": "numbers", "columns": FILE_COLUMNS, "labels": EMOTIONS}

PRESETS: dict[str, dict[str, Any]] = {
    # CASME II (Yan et al. 2014): sub01/EP02_01f/reg_img46.jpg; the table has the numbers of the names.
    "casme2": {**TABLE, "table": "CASME2*.xlsx", "folder": "sub{subject:2}/{filename}"},
    # SAMM (Davison et al. 2016): 006/006_1_2/006_05562.jpg; 13 lines about the table stand above it.
    "samm": {**TABLE, "table": "SAMM*.xlsx", "skip_rows": 13, "folder": "{subject:3}/{filename}"},
    # SMIC (Li et al. 2013): s01/micro/negative/s01_ne_01/image100013.jpg; the folders replace a table.
    "smic": {"tree": "{subject}/micro/{emotion}/{filename}", "id": "{filename}", "labels": EMOTIONS},
    # MMEW (Ben et al. 2021): Micro_Expression/happiness/S01-01-001/1.jpg; the table and the names count from 1.
    "mmew": {**TABLE, "table": "MMEW*.xlsx", "folder": "{emotion}/{filename}", "id": "{filename}"},
    # CAS(ME)^3, part A (Li et al. 2022): spNO.1/a/color/166.jpg; each recording contains several clips.
    "casme3": {
        **TABLE,
        "table": "cas*.xlsx",
        "folder": "{subject}/{filename}/color",
        "id": "{subject}_{filename}_{onset}",
        "cut": True,
    },
    # 4DME (Li et al. 2022), the table of the release: <sub_ID>/<fold_name>/; it has the numbers of the frames.
    "4dme": {
        **TABLE,
        "table": "*4DME*.xlsx",
        "folder": "{subject}/{filename}",
        "columns": {**FILE_COLUMNS, "subject": ["sub_ID", "subject"], "filename": ["fold_name", "filename"]},
    },
}
