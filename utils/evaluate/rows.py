"""Names of the rows of the results table (04), and those of them that README shows."""

SCRATCH = "from scratch"
TUNED_GENTLY, TUNED_HARD = "pretrained, tuned gently", "pretrained, tuned hard"
OURS, UNITS_FIRST = "ours", "units first"
ZERO_SHOT, RECALIBRATED = "zero-shot", "zero-shot, recalibrated"
LEAK, HONEST = "LEAK: epoch and thresholds on the test fold", "the same network without the leak"
UNSTABILISED = "without 3D stabilisation"
EVERY_LABEL, SVM = "every label for every clip", "RBF-SVM"
PAPER_NETWORK = "the paper's network on our input"
PAPER_METHOD = "the paper's whole method"
HEADLINE = (  # what README shows, and what 04 computes with ablation_rows="headline"
    *(SCRATCH, OURS, TUNED_GENTLY, TUNED_HARD, ZERO_SHOT),
    *(SVM, "STSTNet", PAPER_NETWORK, PAPER_METHOD, EVERY_LABEL),
    *(LEAK, HONEST),
)
