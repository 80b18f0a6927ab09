"""Camera pose, motion and semantics regressed from images by VLocNet++."""
