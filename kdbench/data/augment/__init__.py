"""Batched augmentation on the device, equal in distribution to that of torchvision and timm on PIL images.

Parameters are drawn on the host for a whole epoch with numpy; images are float (B, C, H, W) in [0, 255] and hold whole
numbers wherever PIL would hold bytes. Nothing here waits for the device.
"""
