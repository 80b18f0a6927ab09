"""Self-supervised metric learning: labelled drives in, a calibrated descriptor out."""
