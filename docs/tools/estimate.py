"""What a study costs in GPU-hours: `python docs/tools/estimate.py --suite cifar100 --images 50000 --peak 989`.

With T and S FLOPs of a forward pass of teacher and student per image, M methods and N images that a training sees, a
seed takes

    one teacher pass for all methods    N (ceil(M / 16) T + 3.3 M S)
    one teacher pass for each method    N (     (M - 1) T + 3.3 M S)

FLOPs: the backward pass counts as two forward passes, a method's own work as 0.3 forward passes of the student, 16
students at most share a teacher's pass, and the control has no teacher. Evaluation, data and starting up are left out.
Which share of its peak a device reaches is an assumption.
"""

import argparse
import math
import sys
from dataclasses import dataclass

from kdbench.models.flops import forward_flops
from kdbench.study.run import TOGETHER
from kdbench.suites.anymodel import select_pairs
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import PairSpec, Suite

STEP = 3.3
"""Forward passes of the student that a training step is worth, the teacher left out."""
HEAD = (
    *("pair", "T, GFLOP", "S, GFLOP", "N, millions"),
    *("hours a training", "hours, shared", "hours, each its own", "ratio"),
)


@dataclass(frozen=True)
class Work:
    """What a pair asks for.

    Attributes:
        teacher, student: FLOPs of a forward pass per image.
        images: that one training sees.
    """

    teacher: float
    student: float
    images: int

    def flops(self, passes: int, methods: int) -> float:
        """Of so many trainings and passes of the teacher."""
        return self.images * (passes * self.teacher + methods * STEP * self.student)

    def shared(self, methods: int) -> float:
        """FLOPs of methods that are trained in lockstep, of one seed."""
        return self.flops(math.ceil(methods / TOGETHER), methods)

    def apart(self, methods: int) -> float:
        """FLOPs of the same methods, each trained alone."""
        return self.flops(methods - 1, methods)


def works(suite: Suite, pairs: list[PairSpec], images: int) -> dict[str, Work]:
    """The work of pairs by their recipes, with so many images an epoch, by name of the pair."""
    # A classifier of any size is a small part of a network.
    shape, classes = suite.data.image_shape, suite.data.classes or 1000
    names = {name for pair in pairs for name in (pair.teacher, pair.student)}
    flops = {name: forward_flops(suite.models[name], classes, shape) for name in names}
    return {
        pair.name: Work(flops[pair.teacher], flops[pair.student], images * suite.recipe_of(pair.student).epochs)
        for pair in pairs
    }


def table(by_pair: dict[str, Work], methods: int, seeds: int, rate: float) -> str:
    """GPU-hours by pair and in all, in Markdown.

    Args:
        rate: FLOP/s that a device reaches.
    """
    hour = 3600 * rate

    def ends(some: list[Work]) -> tuple[str, ...]:
        shared = seeds * sum(one.shared(methods) for one in some) / hour
        apart = seeds * sum(one.apart(methods) for one in some) / hour
        return f"{shared:,.0f}", f"{apart:,.0f}", f"{apart / shared:.2f}"

    rows: list[tuple[str, ...]] = [HEAD, ("---",) * len(HEAD)]
    for name, one in by_pair.items():
        counted = f"{one.teacher / 1e9:.2f}", f"{one.student / 1e9:.2f}", f"{one.images / 1e6:.0f}"
        rows.append((name, *counted, f"{one.flops(1, 1) / hour:.1f}", *ends([one])))
    rows.append((f"all {len(by_pair)}", *[""] * 4, *ends(list(by_pair.values()))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="cifar100", help="name of a suite, or a TOML file")
    parser.add_argument("--pairs", default="hetero", help="as in `kdbench run`")
    parser.add_argument("--images", type=int, required=True, help="training images of the data set")
    parser.add_argument("--methods", type=int, default=25, help="how many, the control among them")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--peak", type=float, required=True, help="TFLOP/s of the device by its data sheet")
    parser.add_argument("--utilisation", type=float, default=0.16, help="share of that which is reached")
    options = parser.parse_args(arguments)
    suite, pairs = select_pairs(load_suite(options.suite), options.pairs)
    rate = options.peak * 1e12 * options.utilisation
    print(table(works(suite, pairs, options.images), options.methods, options.seeds, rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
