"""The action units (AUs) of the face: their names, and the blend shapes that show them."""

# AU -> its name in the Facial Action Coding System (Ekman, Friesen and Hager 2002), and its blend shape without side.
_TABLE = {
    "AU1": ("inner brow raiser", "browInnerUp"),
    "AU2": ("outer brow raiser", "browOuterUp"),
    "AU4": ("brow lowerer", "browDown"),
    "AU5": ("upper lid raiser", "eyeWide"),
    "AU6": ("cheek raiser", "cheekSquint"),
    "AU7": ("lid tightener", "eyeSquint"),
    "AU9": ("nose wrinkler", "noseSneer"),
    "AU10": ("upper lip raiser", "mouthUpperUp"),
    "AU12": ("lip corner puller", "mouthSmile"),
    "AU14": ("dimpler", "mouthDimple"),
    "AU15": ("lip corner depressor", "mouthFrown"),
    "AU16": ("lower lip depressor", "mouthLowerDown"),
    "AU17": ("chin raiser", "mouthShrugLower"),
    "AU18": ("lip pucker", "mouthPucker"),
    "AU20": ("lip stretcher", "mouthStretch"),
    "AU23": ("lip tightener", "mouthRollUpper"),
    "AU24": ("lip pressor", "mouthPress"),
    "AU26": ("jaw drop", "jawOpen"),
    "AU28": ("lip suck", "mouthRollLower"),
}
AU_NAMES = {au: name for au, (name, _) in _TABLE.items()}
ACTION_UNITS = {au: (shape,) for au, (_, shape) in _TABLE.items()}  # AU -> its blend shapes, see `sides_of`
SIDES = ("Left", "Right")  # the endings of one-sided blend shapes, the subject's left first
SINGLE = ("browInnerUp", "mouthShrugLower", "mouthPucker", "mouthRollUpper", "mouthRollLower", "jawOpen")  # no sides


def sides_of(shape: str) -> tuple[str, ...]:
    """The blend shapes of a name without side: its left and right half, or the shape itself if it has no sides."""
    return (shape,) if shape in SINGLE else tuple(shape + side for side in SIDES)


def shapes_of(au: str) -> tuple[str, ...]:
    """The blend shapes that show an AU, with their sides: a left and a right one, or a single one."""
    return tuple(shape for name in ACTION_UNITS[au] for shape in sides_of(name))
