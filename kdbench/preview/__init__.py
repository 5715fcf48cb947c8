"""What a run will do and what it needs, told before it runs."""
