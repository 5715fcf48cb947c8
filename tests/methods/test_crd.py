"""CRD: its loss against loops, its memory banks, its negatives."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from kdbench_methods.crd import CRD, unit
from kdbench_methods.parts.contrastive import MemoryBank
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kdbench.compute.distributed import join
from kdbench.hyperparameters import schema
from kdbench.method import Batch, Method, Outputs, Pair, Task, UnsupportedPair
from kdbench.testing import staged
from tests.compute.test_distributed import _in_processes

IMAGES, WIDTH, K, TAU = 20, 4, 5, 0.2
LABELS = torch.arange(IMAGES) % 3


def _bank() -> MemoryBank:
    torch.manual_seed(0)
    return MemoryBank(IMAGES, WIDTH, TAU, momentum=0.3).double()


def _anchors(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randn(count, WIDTH, generator=generator, dtype=torch.float64))


def _negatives(own: Tensor) -> tuple[Tensor, Tensor]:
    """The first K images of other classes in a mixed-up order, for each of `own`."""
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(5))
    chosen = torch.zeros(len(own), IMAGES, dtype=torch.bool)
    for b, image in enumerate(own.tolist()):
        others = [m for m, other in enumerate(order.tolist()) if LABELS[other] != LABELS[image]]
        chosen[b, others[:K]] = True
    return order, chosen


def _dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_the_loss_and_its_normalisation() -> None:
    bank = _bank()
    z = None
    for step in range(2):
        own = torch.tensor([3, 8, 1]) + step
        anchors = _anchors(3, seed=step)
        order, chosen = _negatives(own)
        positives = [math.exp(_dot(anchors[b], bank.rows[own[b]]) / TAU) for b in range(3)]
        negatives = [
            [math.exp(_dot(anchors[b], bank.rows[order[m]]) / TAU) for m in range(IMAGES) if chosen[b, m]]
            for b in range(3)
        ]
        if z is None:
            everything = positives + [value for row in negatives for value in row]
            z = sum(everything) / len(everything) * IMAGES
        noise, expected = K / IMAGES, 0.0
        for b in range(3):
            expected -= math.log(positives[b] / z / (positives[b] / z + noise)) / 3
            expected -= sum(math.log(noise / (value / z + noise)) for value in negatives[b]) / 3
        assert bank(anchors, own, order, chosen, K).item() == pytest.approx(expected, rel=1e-10)
        assert bank.z.item() == pytest.approx(z, rel=1e-10), "frozen from the first batch"


def test_rows_move_and_keep_unit_length() -> None:
    bank = _bank()
    before = bank.rows.clone()
    anchors = _anchors(4, seed=1)
    # Image 7 is there twice: it moves towards the mean of what was seen of it.
    bank.update(torch.tensor([2, 7, 7, 11]), anchors)
    seen = {2: anchors[0], 7: (anchors[1] + anchors[2]) / 2, 11: anchors[3]}
    for image in range(IMAGES):
        expected = before[image]
        if image in seen:
            expected = 0.3 * before[image] + 0.7 * seen[image]
            expected = expected / math.sqrt(_dot(expected, expected))
        torch.testing.assert_close(bank.rows[image], expected, rtol=1e-10, atol=1e-12)


def test_rows_start_at_about_unit_length() -> None:
    assert MemoryBank(2000, 128, 0.07, 0.5).rows.norm(dim=1).mean().item() == pytest.approx(1, abs=0.02)


def _crd(labels: Tensor = LABELS, **options: Any) -> CRD:
    torch.manual_seed(0)
    teacher, student = (
        staged("resnet18", 3, layers=[1, 1, 1, 1], channels=[8, 8, 8, width]).eval() for width in (16, 12)
    )
    pair = Pair(teacher.requires_grad_(False), student, Task(3, (3, 32, 32), labels, 1))
    hyperparameters = schema(CRD, Method)(**options).model_dump()
    return CRD(pair, hyperparameters)


def _step(method: CRD, own: Tensor, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # What an image looks like depends on the image, wherever it stands in the batch.
    student, teacher = (
        Outputs(torch.zeros(len(own), 3), torch.randn(IMAGES, width, generator=generator)[own]) for width in (12, 16)
    )
    return method(student, teacher, Batch(LABELS[own], None, 0.0, own, 0, 0.0))


def test_negatives_are_different_images_of_other_classes_each_as_likely() -> None:
    method = _crd(negatives=K)
    own = torch.tensor([0, 1, 2, 3, 3])
    counts = torch.zeros(len(own), IMAGES)
    draws = 3000
    for _ in range(draws):
        order, chosen = method.draw(own)
        assert len(order.unique()) == len(order)
        assert (chosen.sum(dim=1) == K).all()
        counts += torch.zeros(len(own), IMAGES).scatter_(1, order.expand(len(own), -1), chosen.float())
    for b, image in enumerate(own.tolist()):
        other = LABELS[image] != LABELS
        assert (counts[b, ~other] == 0).all()
        share = K / other.sum()
        torch.testing.assert_close(counts[b, other] / draws, share.expand(int(other.sum())), rtol=0, atol=0.05)


def test_as_many_negatives_as_every_class_has() -> None:
    method = _crd()
    # 20 images, of which the largest class has 7.
    _, chosen = method.draw(torch.arange(IMAGES))
    assert (chosen.sum(dim=1) == 13).all()
    with pytest.raises(UnsupportedPair, match="all training images are of one"):
        _crd(labels=torch.zeros(IMAGES, dtype=torch.int64))


def test_its_state_is_saved_and_moves_with_it() -> None:
    method = _crd(negatives=K)
    _step(method, torch.tensor([1, 5, 9]))
    state = method.state_dict()
    assert {"bank_s.rows", "bank_t.rows", "bank_s.z", "bank_t.z"} <= set(state)
    assert state["bank_s.z"] > 0
    again = _crd(negatives=K)
    again.load_state_dict(state)
    assert torch.equal(again.bank_t.rows, method.bank_t.rows)
    assert not [name for name, _ in method.named_parameters() if "bank" in name], "banks are not trained"
    assert method.double().bank_s.rows.dtype == torch.float64


def test_each_network_is_contrasted_with_the_others_bank_and_moves_its_own() -> None:
    method = _crd(negatives=K)
    banks = copy.deepcopy(method.bank_s), copy.deepcopy(method.bank_t)
    own = torch.tensor([1, 5, 9, 5])
    seen: list[Tensor] = []
    for embed in (method.embed_s, method.embed_t):
        embed.register_forward_hook(lambda module, args, output: seen.append(unit(output.detach())))
    terms = _step(method, own)
    sum(terms.values(), start=torch.zeros(())).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name

    e_s, e_t = seen
    sample = own, *_crd(negatives=K).draw(own), K
    torch.testing.assert_close(terms["crd s"], banks[1](e_s, *sample))
    torch.testing.assert_close(terms["crd t"], banks[0](e_t, *sample))
    for bank, embeddings, moved in zip(banks, seen, (method.bank_s, method.bank_t), strict=True):
        bank.update(own, embeddings)
        torch.testing.assert_close(moved.rows, bank.rows)


def test_what_it_draws_leaves_the_students_stream_alone() -> None:
    method = _crd(negatives=K)
    before = torch.get_rng_state()
    first = method.draw(torch.arange(4))[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(method.draw(torch.arange(4))[0], first)
    assert torch.equal(_crd(negatives=K).draw(torch.arange(4))[0], first), "the same in every run of a seed"


def test_nothing_waits_for_the_device() -> None:
    """On tensors without values whatever reads one fails."""
    with FakeTensorMode():
        bank = MemoryBank(IMAGES, WIDTH, TAU, 0.5)
        own, order = torch.randint(IMAGES, (3,)), torch.randperm(IMAGES)[:9]
        anchors = torch.randn(3, WIDTH, requires_grad=True)
        bank(anchors, own, order, torch.rand(3, 9) < 0.5, K).backward()
        bank.update(own, anchors)


def _trained() -> tuple[list[Tensor], dict[str, Tensor]]:
    """The losses of three batches and the state after them; each process sees its share."""
    replica = join(torch.device("cpu"))
    method = _crd(negatives=K)
    losses = []
    for step in range(3):
        own = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(step))[:8]
        own[7] = own[0]
        terms = _step(method, replica.of(own), seed=step)
        losses.append((terms["crd s"] + terms["crd t"]).detach())
    return losses, method.state_dict()


@pytest.mark.runs
def test_two_processes_have_the_same_banks_as_one(tmp_path: Path) -> None:
    losses, state = _trained()
    found = _in_processes(_trained, tmp_path)
    for name, tensor in state.items():
        for _, other in found:
            torch.testing.assert_close(other[name], tensor, msg=name)
        assert torch.equal(found[0][1][name], found[1][1][name]), name
    means = [torch.stack(parts).mean() for parts in zip(*(part for part, _ in found), strict=True)]
    torch.testing.assert_close(torch.stack(means), torch.stack(losses))
