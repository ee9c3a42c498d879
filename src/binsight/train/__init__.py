"""Training: settings, decoded pictures, augmentation, losses, the Lightning module, the run. Needs the extra `train`."""
