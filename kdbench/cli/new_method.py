"""`kdbench new-method NAME`: a runnable skeleton of a method in one file."""

import argparse
import keyword
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import KdbenchError

SKELETON = '''"""{title}: a knowledge-distillation method for kdbench."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, Method, Needs, Outputs, Pair


class {name}(Method):
    """{title}: the student's pooled feature regresses onto the teacher's, beside the hard labels.

    Attributes:
        weight: weight of the feature term (say where the default comes from).
    """

    weight: float = 1.0

    student_needs = Needs(pooled=True)
    teacher_needs = Needs(pooled=True)

    def build(self, pair: Pair) -> None:
        self.project = nn.Linear(pair.student.pooled_width, pair.teacher.pooled_width)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {{
            "ce": batch.cross_entropy(student.logits),
            "feature": self.weight * F.mse_loss(self.project(student.pooled), teacher.pooled),
        }}
'''


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "new-method", execute, "write a runnable skeleton of a method")
    parser.add_argument("name", metavar="NAME", help="class name, such as MyMethod")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: ./NAME.py in lower case)")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    name = args.name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise KdbenchError(f"'{name}' is no class name; use letters, digits and _, as in MyMethod")
    name = name[0].upper() + name[1:]
    path: Path = args.out or Path(f"{name.lower()}.py")
    if path.exists():
        raise KdbenchError(f"{path} exists; remove it or choose --out")
    try:
        path.write_text(SKELETON.format(name=name, title=name), encoding="utf-8")
    except OSError as error:
        raise KdbenchError(f"cannot write {path}: {error.strerror or error}") from error
    where = path if path.is_absolute() else f"./{path}"
    if args.json:
        options.print_json({"file": str(path), "class": name})
    else:
        print(f"wrote {path}\n  check it:    kdbench verify {where}\n  compare it:  kdbench run --methods all,{where}")
    return 0
