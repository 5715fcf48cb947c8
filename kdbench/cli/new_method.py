"""`kdbench new-method NAME`: a runnable skeleton of a method in one file."""

import keyword
from pathlib import Path

from kdbench.cli import options
from kdbench.cli.console import print_json
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


def new_method(name: str, /, *, out: options.File = None, json: options.Json = False) -> None:
    """Write a runnable skeleton of a method.

    Args:
        name: The name of the class, such as MyMethod.
        out: The file to write. Default: ./NAME.py in lower case.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise KdbenchError(f"'{name}' is no class name; use letters, digits and _, as in MyMethod")
    name = name[0].upper() + name[1:]
    path = out or Path(f"{name.lower()}.py")
    if path.exists():
        raise KdbenchError(f"{path} exists; remove it or choose --out")
    try:
        path.write_text(SKELETON.format(name=name, title=name), encoding="utf-8")
    except OSError as error:
        raise KdbenchError(f"cannot write {path}: {error.strerror or error}") from error
    where = path if path.is_absolute() else f"./{path}"
    if json:
        print_json({"file": str(path), "class": name})
    else:
        print(f"wrote {path}\n  check it:    kdbench verify {where}\n  compare it:  kdbench run --methods all,{where}")
