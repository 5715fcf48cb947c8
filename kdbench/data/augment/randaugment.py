"""RandAugment (arXiv 1909.13719) in timm's notation and with its operations, levels and chances."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench.errors import KdbenchError

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
NOTHING = -1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Policy:
    """How often, how many and how strong.

    Attributes:
        magnitude: mean of the level of an operation; the scale ends at 10.
        layers: operations in a row, each drawn from all.
        probability: of each of them to be applied.
        deviation: of the normal distribution of the level; infinite: uniform from zero to `magnitude`.
        ceiling: highest level.
        increasing: every operation gets stronger with its level.
    """

    magnitude: int = 10
    layers: int = 2
    probability: float = 0.5
    deviation: float = 0.0
    ceiling: int = 10
    increasing: bool = False

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read `rand-m9-n2-p0.5-mstd0.5-mmax10-inc1`, of which every part may be missing.

        Raises:
            KdbenchError: not a policy, or a part that is not supported (weighted and other sets of operations: w, t).
        """
        if not re.fullmatch(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*", text):
            raise KdbenchError(
                f"randaugment '{text}' is not supported; write it as rand-m9-mstd0.5-inc1, of m, n, p, mstd, mmax, inc"
            )
        given = dict(re.findall(r"-([a-z]+)([\d.]+)", text))
        deviation = float(given.get("mstd", 0))
        return cls(
            magnitude=int(given.get("m", 10)),
            layers=int(given.get("n", 2)),
            probability=float(given.get("p", 0.5)),
            deviation=float("inf") if deviation > 100 else deviation,
            ceiling=int(given.get("mmax", 10)),
            increasing=bool(int(given.get("inc", 0))),
        )

    def draw(self, rng: np.random.Generator, count: int) -> "Draws":
        """Draw one layer for `count` images."""
        chosen = rng.integers(0, len(OPERATIONS), count)
        applied = rng.random(count) < self.probability
        if np.isinf(self.deviation):
            level = rng.uniform(0, self.magnitude, count)
        else:
            level = rng.normal(self.magnitude, self.deviation, count)
        return Draws(
            operation=np.where(applied, chosen, NOTHING),
            level=np.clip(level, 0, self.ceiling),
            sign=rng.choice((-1.0, 1.0), count),
            cubic=rng.random(count) < 0.5,
        )


@dataclass(frozen=True)
class Draws:
    """One layer of every image, each (N,).

    Attributes:
        operation: position in OPERATIONS, or NOTHING.
        level: strength, from 0 to 10 (or the policy's ceiling).
        sign: -1 or 1, direction of the operations that have one.
        cubic: the cubic filter, where the policy leaves the filter of a warp to chance.
    """

    operation: NDArray[np.int64]
    level: Floats
    sign: Floats
    cubic: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.operation)

    def where(self, *operations: str) -> NDArray[np.bool_]:
        """(N,), which images get one of these."""
        return np.isin(self.operation, [OPERATIONS.index(name) for name in operations])

    def take(self, index: NDArray[np.int64]) -> "Draws":
        """The draws of some images."""
        return Draws(self.operation[index], self.level[index], self.sign[index], self.cubic[index])


def enhancement(draws: Draws, increasing: bool) -> NDArray[np.float32]:
    """Factors (N,) of Color, Contrast, Brightness and Sharpness."""
    share = draws.level / 10
    if increasing:
        return np.maximum(0.1, 1 + draws.sign * share * 0.9).astype(np.float32)
    return (share * 1.8 + 0.1).astype(np.float32)


def tables(draws: Draws, increasing: bool) -> NDArray[np.uint8]:
    """(N, 256) tone curves of Invert, Posterize, Solarize, SolarizeAdd and Brightness."""
    value = np.arange(256)
    share = (draws.level / 10)[:, None]
    bits, threshold = (share * 4).astype(np.int64), np.minimum(256, (share * 256).astype(np.int64))
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
    bits = np.clip(bits, 0, 8)
    added = np.minimum(128, (share * 110).astype(np.int64))
    curves = {
        "Invert": 255 - value,
        "Posterize": value >> (8 - bits) << (8 - bits),
        "Solarize": np.where(value < threshold, value, 255 - value),
        "SolarizeAdd": np.where(value < 128, np.minimum(255, value + added), value),
        "Brightness": np.clip(value.astype(np.float32) * enhancement(draws, increasing)[:, None], 0, 255),
    }
    result = np.zeros((len(draws), 256), dtype=np.uint8)
    for name, curve in curves.items():
        np.copyto(result, curve, where=draws.where(name)[:, None], casting="unsafe")
    return result


def matrices(draws: Draws, side: int) -> Floats:
    """(N, 6) maps from the result to the source for Rotate, ShearX/Y and TranslateX/YRel of images of side `side`."""
    share = draws.sign * draws.level / 10
    angle = -np.radians(30 * share)
    cosine, sine, middle = np.cos(angle), np.sin(angle), side / 2
    zero, one, shear, pixels = np.zeros_like(share), np.ones_like(share), 0.3 * share, 0.45 * side * share
    maps = {
        "Rotate": (
            *(cosine, sine, middle - middle * (cosine + sine)),
            *(-sine, cosine, middle - middle * (cosine - sine)),
        ),
        "ShearX": (one, shear, zero, zero, one, zero),
        "ShearY": (one, zero, zero, shear, one, zero),
        "TranslateXRel": (one, zero, pixels, zero, one, zero),
        "TranslateYRel": (one, zero, zero, zero, one, pixels),
    }
    result = np.zeros((len(draws), 6))
    for name, entries in maps.items():
        chosen = draws.where(name)
        result[chosen] = np.stack(entries, axis=1)[chosen]
    return result
