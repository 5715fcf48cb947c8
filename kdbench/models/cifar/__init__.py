"""The 32-pixel networks of the CRD protocol (Tian et al., ICLR 2020, arXiv 1910.10699), under timm names `cifar_*`.

Importing this package registers them.
"""

from kdbench.models.cifar import mobilenetv2, resnet, shufflenet, vgg, wrn

__all__ = ["mobilenetv2", "resnet", "shufflenet", "vgg", "wrn"]
