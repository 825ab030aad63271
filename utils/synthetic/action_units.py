"""The action units (AUs) of the face, their names, and the blend shapes that show them."""

# AU -> the face units that it contracts; a unit without side stands for its left and right half.
ACTION_UNITS: dict[str, tuple[str, ...]] = {
    "AU1": ("browInnerUp",),
    "AU2": ("browOuterUp",),
    "AU4": ("browDown",),
    "AU5": ("eyeWide",),
    "AU6": ("cheekSquint",),
    "AU7": ("eyeSquint",),
    "AU9": ("noseSneer",),
    "AU10": ("mouthUpperUp",),
    "AU12": ("mouthSmile",),
    "AU14": ("mouthDimple",),
    "AU15": ("mouthFrown",),
    "AU16": ("mouthLowerDown",),
    "AU17": ("mouthShrugLower",),
    "AU18": ("mouthPucker",),
    "AU20": ("mouthStretch",),
    "AU23": ("mouthRollUpper",),
    "AU24": ("mouthPress",),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower",),
}


SIDES = ("Left", "Right")  # how the unit of one half of the face ends; the subject's left comes first


SINGLE = ("browInnerUp", "mouthShrugLower", "mouthPucker", "mouthRollUpper", "mouthRollLower", "jawOpen")


def sides_of(unit: str) -> tuple[str, ...]:
    """The face units of an AU's unit: itself, or its left and right half."""
    return (unit,) if unit in SINGLE else tuple(unit + side for side in SIDES)


# Names of the Facial Action Coding System (Ekman, Friesen and Hager 2002).
AU_NAMES = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU16": "lower lip depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU26": "jaw drop",
    "AU28": "lip suck",
}
