"""Which teacher: where students have several teachers, what each of them gave; a larger one is not always better.

The gain that a teacher gave with a seed is the mean over the methods that are complete with all teachers of the
student. With another teacher the student starts from other weights and sees other batches, so seeds are not paired
between teachers, and the difference of two teachers has the interval of Welch's t-test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.analysis.gains import Accuracies
from kdbench.analysis.stats import UNKNOWN, Interval, stratified
from kdbench.names import pair_ends
from kdbench.results.study import Study


@dataclass(frozen=True)
class TeacherGain:
    """What a teacher gave a student.

    Attributes:
        methods: number of methods that the mean is over.
        parameters: of the teacher; None where no record tells.
        top1: of the teacher, in percent.
        gain: mean over methods and seeds of the gain over the control, with a t-interval over seeds.
        behind: gain of the teacher with the largest mean less this one's; unknown for that teacher itself.
    """

    student: str
    teacher: str
    methods: int
    parameters: int | None
    top1: float
    gain: Interval
    behind: Interval


def teacher_gains(study: Study) -> list[TeacherGain]:
    """Every teacher of the students that have several, by student, the largest gain first."""
    accuracies = Accuracies(study)
    teachers: dict[str, list[str]] = {}
    for pair in study.pairs:
        teacher, student = pair_ends(pair)
        teachers.setdefault(student, []).append(teacher)
    rows = []
    for student, own in teachers.items():
        pairs = [f"{teacher}:{student}" for teacher in own]
        methods = [
            method
            for method in study.methods
            if study.roles[method] != "control" and all(accuracies.complete(pair, method) for pair in pairs)
        ]
        if len(own) > 1 and methods and all(accuracies.complete(pair, study.control) for pair in pairs):
            rows += _of_student(study, accuracies, pairs, methods)
    return rows


def _of_student(
    study: Study, accuracies: Accuracies, pairs: Sequence[str], methods: Sequence[str]
) -> list[TeacherGain]:
    by_seed = {}
    for pair in pairs:
        gains = [accuracies.differences(pair, method, study.control) for method in methods]
        by_seed[pair] = [float(np.mean([gain[seed] for gain in gains])) for seed in sorted(gains[0])]
    best, *others = sorted(pairs, key=lambda pair: -float(np.mean(by_seed[pair])))
    rows = []
    for pair in (best, *others):
        teacher, student = pair_ends(pair)
        record = next(record for (name, _, _), record in study.records.items() if name == pair)
        rows.append(
            TeacherGain(
                student=student,
                teacher=teacher,
                methods=len(methods),
                parameters=record["teacher"].get("parameters"),
                top1=record["teacher"]["top1"],
                gain=stratified([by_seed[pair]]),
                behind=UNKNOWN if pair == best else _difference(by_seed[best], by_seed[pair]),
            )
        )
    return rows


def _difference(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Mean of `one` less that of `other`, with Welch's interval: twice the mean over the two groups."""
    half = stratified([one, [-value for value in other]])
    return Interval(2 * half.value, 2 * half.low, 2 * half.high)
