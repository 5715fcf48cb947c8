"""Data sets, batches that live on the device, augmentation."""
