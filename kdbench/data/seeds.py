"""Random streams: one seed for each axis of randomness, never for a method, so that comparisons are paired."""

import hashlib


def derive_seed(base: int, *axis: str | int) -> int:
    """A 63-bit seed for an axis such as ("init", pair) or ("augment", pair, epoch)."""
    text = "/".join(str(part) for part in (base, *axis))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
