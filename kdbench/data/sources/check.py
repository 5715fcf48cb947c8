"""Reading a data set whole: every image decoded, what is odd about it counted."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import ExifTags

from kdbench.data.sources.sets import BrokenImage, DataSet, FileSet, ImageSet, as_rgb, is_wide

ORIENTATION = ExifTags.Base.Orientation
CHUNK = 1024
"""Images that are queued at a time."""


@dataclass
class SplitReport:
    """What a split holds.

    Attributes:
        images: number of them.
        per_class: number of images by class, in the order of the classes.
        sizes: number of images by (width, height).
        modes: number of images by Pillow's mode: RGB, L (grey), CMYK, P (palette), ...
        ranges: smallest and largest value by mode, of the modes of more than 8 bits a channel.
        turned: number of images with an EXIF orientation that asks to turn or mirror them; they are read as stored.
        broken: name and reason of each image that cannot be read.
    """

    images: int
    per_class: dict[str, int]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    turned: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


def check(data: DataSet) -> dict[str, SplitReport]:
    """A report for each split; the images of files are decoded, in threads."""
    return {name: _check_split(getattr(data, name), data.classes) for name in ("train", "test")}


def _check_split(split: ImageSet | FileSet, classes: tuple[str, ...]) -> SplitReport:
    counts = np.bincount(split.labels, minlength=len(classes)).tolist()
    report = SplitReport(len(split), dict(zip(classes, counts, strict=True)))
    if isinstance(split, ImageSet):
        count, height, width, channels = split.images.shape
        report.sizes[width, height] = count
        report.modes["L" if channels == 1 else "RGB"] = count
        return report
    for found in _in_threads(split):
        if isinstance(found, BrokenImage):
            report.broken.append(found.args)
        else:
            report.modes[found.mode] += 1
            report.sizes[found.width, found.height] += 1
            report.turned += found.turned
            if found.range is not None:
                ends = (*found.range, *report.ranges.get(found.mode, found.range))
                report.ranges[found.mode] = min(ends), max(ends)
    return report


@dataclass(frozen=True)
class _Seen:
    mode: str
    width: int
    height: int
    turned: bool
    range: tuple[float, float] | None


def _in_threads(split: FileSet) -> Iterator[_Seen | BrokenImage]:
    """Every image, in order; Pillow's decoders let other threads run."""

    def look(i: int) -> _Seen | BrokenImage:
        try:
            image = split.decode(i)
            as_rgb(image)
        except BrokenImage as error:
            return error
        except ValueError as error:
            return BrokenImage(os.fsdecode(split.files.names[i]), str(error))
        values = np.asarray(image) if is_wide(image) else None
        ends = None if values is None else (float(values.min()), float(values.max()))
        return _Seen(image.mode, *image.size, image.getexif().get(ORIENTATION, 1) != 1, ends)

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(split), CHUNK):
            yield from pool.map(look, range(start, min(start + CHUNK, len(split))))
    finally:
        # Interrupted: what is still waiting is not worth waiting for.
        pool.shutdown(cancel_futures=True)
