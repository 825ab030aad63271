"""Layouts of the databases of the field, as their tables and folders are delivered: values for `layout.toml`.

Sources: the databases' own documentation and the loaders that public code has for them. A delivery that differs is
described by overriding single values. What an emotion means for the five classes is this project's choice: disgust,
fear, sadness, anger and contempt are Negative.
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

PRESETS: dict[str, dict[str, Any]] = {
    # CASME II (Yan et al. 2014): sub01/EP02_01f/reg_img46.jpg; the table counts the frames of the names.
    "casme2": {
        "table": "CASME2*.xlsx",
        "folder": "sub{subject:2}/{filename}",
        "frames": "numbers",
        "columns": FILE_COLUMNS,
        "labels": EMOTIONS,
    },
    # SAMM (Davison et al. 2016): 006/006_1_2/006_05562.jpg; thirteen lines about the table stand before it.
    "samm": {
        "table": "SAMM*.xlsx",
        "skip_rows": 13,
        "folder": "{subject:3}/{filename}",
        "frames": "numbers",
        "columns": FILE_COLUMNS,
        "labels": EMOTIONS,
    },
    # SMIC (Li et al. 2013): s01/micro/negative/s01_ne_01/image100013.jpg; the folders are the table.
    "smic": {"tree": "{subject}/micro/{emotion}/{filename}", "id": "{filename}", "labels": EMOTIONS},
    # MMEW (Ben et al. 2021): Micro_Expression/happiness/S01-01-001/1.jpg; the table counts from 1, as the names do.
    "mmew": {
        "table": "MMEW*.xlsx",
        "folder": "{emotion}/{filename}",
        "id": "{filename}",
        "frames": "numbers",
        "columns": FILE_COLUMNS,
        "labels": EMOTIONS,
    },
    # CAS(ME)^3, part A (Li et al. 2022): whole recordings, spNO.1/a/color/166.jpg, several clips in each.
    "casme3": {
        "table": "cas*.xlsx",
        "folder": "{subject}/{filename}/color",
        "id": "{subject}_{filename}_{onset}",
        "frames": "numbers",
        "cut": True,
        "columns": FILE_COLUMNS,
        "labels": EMOTIONS,
    },
    # 4DME (Li et al. 2022), the release's table: <sub_ID>/<fold_name>/ with frames whose numbers it counts.
    "4dme": {
        "table": "*4DME*.xlsx",
        "folder": "{subject}/{filename}",
        "frames": "numbers",
        "columns": {
            **FILE_COLUMNS,
            "subject": ["sub_ID", "subject"],
            "filename": ["fold_name", "filename"],
        },
        "labels": EMOTIONS,
    },
}
