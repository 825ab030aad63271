"""Names of the rows of the results table (04), and those of them that README shows."""

SCRATCH, PRETRAINED, TUNED_HARD = "ours, from scratch", "ours, pretrained", "ours, pretrained, tuned hard"
UNITS_FIRST = "units first"
OURS, ZERO_SHOT, RECALIBRATED = "ours", "zero-shot", "zero-shot, recalibrated"
LEAK, HONEST = "LEAK: epoch and thresholds on the test fold", "its honest counterpart"  # of one network
UNSTABILISED = "without 3D stabilisation"
# What README shows, and all that 04 computes in the demo profile; RESULTS.md shows every row.
HEADLINE = (
    SCRATCH,
    OURS,
    PRETRAINED,
    TUNED_HARD,
    ZERO_SHOT,
    "RBF-SVM",
    "STSTNet",
    "paper-faithful",
    UNSTABILISED,
    LEAK,
)
