"""Runs in TensorBoard and Weights & Biases: each cell as a run there, made of its record."""
