"""One loop that trains all contenders of a pair against one teacher; evaluation, checkpoints, timing."""
