"""Trained students for use elsewhere: a folder for timm or for the Hugging Face hub, an ONNX file."""
