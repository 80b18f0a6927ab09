"""The pose-graph back end (GTSAM iSAM2)."""
