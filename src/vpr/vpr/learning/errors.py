"""What can go wrong in training, in words."""


class TrainingError(ValueError):
    """Data that cannot be learnt from, or a run that cannot go on; says what is needed."""
