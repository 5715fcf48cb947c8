"""The grid of cells (suite x pair x method x seed): planning it, running it, resuming it."""
