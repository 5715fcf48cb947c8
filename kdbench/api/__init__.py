"""kdbench from Python: studies as data frames, runs, and the loss of a method for a training loop of one's own."""
