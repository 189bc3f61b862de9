"""Attacks on tasks by the text they read: passages that try to steer the model, against the detector and the model."""
