"""ITRD, ViTKD, FCFD, Lift and RCAT against loops and plain passes through the networks, in float64."""

import math
from typing import Any

import pytest
import torch
from kdbench_methods.fcfd import FCFD
from kdbench_methods.itrd import ITRD, correlation_loss, mutual_loss
from kdbench_methods.lift import Lift
from kdbench_methods.rcat import RCAT, class_activations
from kdbench_methods.vitkd import ViTKD
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, Method, Needs, Pair, Task, UnsupportedPair
from kdbench.testing import build, one_batch, staged
from tests.methods.test_hetero_methods import B, C, make_pair, random


def made(method: type[Method], teacher: str, student: str, **options: Any) -> Any:
    pair = make_pair(teacher, student)
    built = build(method, pair, **options).double()
    pair.student.double(), pair.teacher.double()
    return built


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.mark.parametrize("alpha", [1.01, 1.5])
def test_correlations_of_itrd(alpha: float) -> None:
    student, teacher = random(B, 4), random(B, 4, seed=1)
    total = 0.0
    for d in range(4):
        columns = [x[:, d].tolist() for x in (student, teacher)]
        means = [sum(column) / B for column in columns]
        sums = [math.sqrt(sum((v - m) ** 2 for v in c) / (B - 1)) for c, m in zip(columns, means, strict=True)]
        products = sum((s - means[0]) * (t - means[1]) for s, t in zip(*columns, strict=True))
        total += abs(products / (sums[0] * sums[1]) / B - 1) ** (2 * alpha)
    assert correlation_loss(student, teacher, alpha).item() == pytest.approx(math.log2(total), rel=1e-10)


def test_mutual_information_of_itrd() -> None:
    student, teacher = random(B, 4).tolist(), random(B, 6, seed=1).tolist()
    own = [[cosine(a, b) for b in student] for a in student]
    both = [[own[i][j] * cosine(teacher[i], teacher[j]) for j in range(B)] for i in range(B)]
    # Both have ones on their diagonals, so that their trace is B.
    expected = sum((own[i][j] / B) ** 2 - (both[i][j] / B) ** 2 for i in range(B) for j in range(B))
    assert mutual_loss(random(B, 4), random(B, 6, seed=1)).item() == pytest.approx(expected, rel=1e-10)


def test_itrd_projects_where_the_widths_differ() -> None:
    terms, student, teacher, _ = one_batch(method := made(ITRD, "vit", "cnn"), B)
    projected = method.project(student.pooled)
    torch.testing.assert_close(terms["correlation"], 2 * correlation_loss(projected, teacher.pooled, 1.5))
    torch.testing.assert_close(terms["mutual"], 0.05 * mutual_loss(projected, teacher.pooled))
    terms, student, teacher, _ = one_batch(made(ITRD, "cnn", "cnn"), B)
    torch.testing.assert_close(terms["mutual"], 0.05 * mutual_loss(student.pooled, teacher.pooled))


def test_a_dimension_that_does_not_vary_counts_as_uncorrelated() -> None:
    student, teacher = random(B, 2).requires_grad_(), torch.stack([torch.zeros(B), torch.arange(B)], dim=1).double()
    loss = correlation_loss(student, teacher, 1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all() and not gradient[:, 0].any()
    alone = correlation_loss(student[:, 1:], teacher[:, 1:], 1.0)
    assert 2 ** loss.item() == pytest.approx(1 + 2 ** alone.item(), rel=1e-10)


def convolved(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """The 3x3 convolution, image by image and cell by cell."""
    size, _, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    out = torch.zeros(size, convolution.out_channels, height, width, dtype=x.dtype)
    assert convolution.bias is not None
    for i in range(height):
        for j in range(width):
            window = padded[:, None, :, i : i + 3, j : j + 3]
            out[:, :, i, j] = (window * convolution.weight).sum(dim=(2, 3, 4)) + convolution.bias
    return out


@pytest.mark.parametrize("masked", [0.5, 0.8])
def test_vitkd(masked: float) -> None:
    method = made(ViTKD, "vit", "vit", masked=masked)
    method.align, method.mimic = (nn.Linear(32, 32).double() for _ in range(2))
    nn.init.normal_(method.mask_token)
    torch.manual_seed(5)
    terms, student, teacher, _ = one_batch(method, B)
    torch.manual_seed(5)
    order = torch.rand(B, 16).argsort(dim=1).tolist()
    low_s, low_t, high_s, high_t = (o.stages[k].tokens for k in (1, 4) for o in (student, teacher))
    assert terms["mimic"].item() == pytest.approx(3e-5 * (method.mimic(low_s) - low_t).square().sum().item() / B)
    tokens, count = method.align(high_s).clone(), 16 - int(16 * (1 - masked))
    for b in range(B):
        for n in order[b][16 - count :]:
            tokens[b, n] = method.mask_token
    first, _, second = method.generate
    made_of = convolved(convolved(tokens.mT.reshape(B, 32, 4, 4), first).relu(), second)
    error = sum(
        (made_of[b, :, n // 4, n % 4] - high_t[b, n]).square().sum().item()
        for b in range(B)
        for n in order[b][16 - count :]
    )
    assert terms["generate"].item() == pytest.approx(3e-6 * error / B / masked, rel=1e-10)


@pytest.mark.runs
@pytest.mark.parametrize(("teacher", "student"), [("vit", "cnn"), ("cnn", "vit")])
def test_vitkd_is_of_tokens(teacher: str, student: str) -> None:
    with pytest.raises(UnsupportedPair, match="it is of tokens, and ResNet computes on maps"):
        made(ViTKD, teacher, student)


def test_vitkd_wants_as_many_tokens() -> None:
    with pytest.raises(UnsupportedPair, match="different numbers"):
        made(ViTKD, "swin", "vit")


def resnet(channels: tuple[int, ...]) -> Any:
    return staged("resnet18", C, 64, layers=[1, 1, 1, 1], channels=channels)


def paths_pair() -> Pair:
    teacher, student = resnet((8, 12, 16, 24)), resnet((4, 8, 12, 16))
    teacher.eval().requires_grad_(False)
    return Pair(teacher.double(), student.double(), Task(C, (3, 64, 64), torch.zeros(9, dtype=torch.int64), 1))


def layers_from(model: Any, stage: int, x: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """A ResNet's own layers behind a stage: their maps, and the logits."""
    maps = {}
    for k in range(stage + 1, 5):
        maps[k] = x = getattr(model.model, f"layer{k}")(x)
    return maps, model.model.fc(x.mean(dim=(2, 3)))


@pytest.mark.runs
@pytest.mark.parametrize("epoch", [0, 30])
def test_fcfd(epoch: int) -> None:
    """All six paths, through layers that are called one by one."""
    pair = paths_pair()
    method = build(FCFD, pair, paths=6, temperature=4.0, warmup_epochs=20).double()
    images, labels = random(3, 3, 64, 64), torch.tensor([0, 3, 6])
    needs = Needs(frozenset({1, 2, 3, 4}))
    teacher = pair.teacher(images, needs)
    student = pair.student.train()(images, needs)
    terms = method(student, teacher, Batch(labels, None, 0.0, labels, epoch, 0.0))

    def divergence(logits: Tensor) -> float:
        s, t = ((z / 4).softmax(dim=1) for z in (logits, teacher.logits))
        return 16 * (t * (t / s).log()).sum().item() / 3

    errors, paths = 0.0, 0.0
    for k in (1, 2, 3, 4):
        arrived = [method.to_teacher[str(k)](student.stages[k].map)]
        for j in range(1, k):
            maps, logits = layers_from(pair.teacher, j, method.to_teacher[str(j)](student.stages[j].map))
            arrived.append(maps[k])
            paths += divergence(logits) if k == 4 else 0.0
        errors += sum((x - teacher.stages[k].map).square().mean().item() for x in arrived)
        if k == 4:
            mean = teacher.stages[4].map.mean(dim=(2, 3))
            errors += sum((x.relu().mean(dim=(2, 3)) - mean).square().mean().item() for x in arrived)
        else:
            _, logits = layers_from(pair.student, k, method.to_student[str(k)](teacher.stages[k].map))
            paths += divergence(logits)
    assert terms["paths"].item() == pytest.approx(paths, rel=1e-10)
    assert terms["kd"].item() == pytest.approx(divergence(student.logits), rel=1e-10)
    assert terms["feature"].item() == pytest.approx(0.02 * min(1, (epoch + 1) / 20) * errors, rel=1e-10)


@pytest.mark.runs
def test_a_path_does_not_touch_running_statistics() -> None:
    pair = paths_pair()
    method = build(FCFD, pair, paths=6).double()
    images, needs = random(3, 3, 64, 64), Needs(frozenset({1, 2, 3, 4}))
    student = pair.student.train()(images, needs)
    before = {name: tensor.clone() for name, tensor in pair.student.state_dict().items()}
    method(student, pair.teacher(images, needs), Batch(torch.zeros(3).long(), None, 0.0, torch.arange(3), 0, 0.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in pair.student.state_dict().items())


@pytest.mark.runs
def test_fcfd_draws_its_paths() -> None:
    method = build(FCFD, paths_pair())
    drawn = [tuple(method.drawn()) for _ in range(60)]
    assert all(len({*paths}) == 2 for paths in drawn)
    assert {path for paths in drawn for path in paths} == {(k, first) for k in (1, 2, 3) for first in (False, True)}


@pytest.mark.runs
def test_bridges_lead_from_grid_to_grid() -> None:
    method = build(FCFD, make_pair("swin", "cnn"))
    for bridges, source, target in (
        (method.to_teacher, method.pair.student, method.pair.teacher),
        (method.to_student, method.pair.teacher, method.pair.student),
    ):
        for k, bridge in bridges.items():
            one, other = source.stages[int(k)], target.stages[int(k)]
            assert bridge(torch.randn(2, one.channels, *one.grid)).shape[1:] == (other.channels, *other.grid)
    with pytest.raises(UnsupportedPair, match="class token"):
        build(FCFD, make_pair("vit", "cnn"))


def test_lift() -> None:
    method = made(Lift, "vit", "cnn", weight=2.0, kd_weight=3.0)
    terms, student, teacher, batch = one_batch(method, B)
    lifted = student.pooled @ method.lift.weight.T + method.lift.bias
    logits = lifted @ method.classifier.weight.T + method.classifier.bias
    s, t = logits.softmax(dim=1), teacher.logits.softmax(dim=1)
    assert terms["feature"].item() == pytest.approx(2 * (lifted - teacher.pooled).square().mean().item(), rel=1e-10)
    assert terms["kd"].item() == pytest.approx(3 * (t * (t / s).log()).sum().item() / B, rel=1e-10)
    torch.testing.assert_close(terms["ce"], batch.cross_entropy(logits))
    torch.testing.assert_close(method.predict(student), logits)
    assert method.inference_parameters == (24 + 1) * 32 + (32 + 1) * C


@pytest.mark.parametrize("teacher", ["vit", "swin", "cnn"])
def test_rcat_takes_what_the_teachers_classifier_pools(teacher: str) -> None:
    """Class tokens aside: the mean of its class activation maps and the bias are the logits."""
    method = made(RCAT, teacher, "cnn")
    outputs = method.pair.teacher(random(B, 3, 32, 32), Needs(frozenset({4})))
    last = method._last(outputs)
    head = method.pair.teacher.model.get_classifier()
    if teacher == "vit":
        tokens = method.pair.teacher.model.forward_features(random(B, 3, 32, 32))[:, 1:]
        torch.testing.assert_close(last.flatten(2).mT, tokens)
    else:
        torch.testing.assert_close(head(last.mean(dim=(2, 3))), outputs.logits)


def test_rcat() -> None:
    method = made(RCAT, "vit", "cnn", width=6, attention_width=8, heads=2, share=1.0, side=2)
    method.pair.student.eval()
    terms, student, teacher, batch = one_batch(method, B)
    own = F.interpolate(student.stages[4].map, (4, 4), mode="bilinear", align_corners=False)
    adapted = method.adapter(own)
    fusion = method.fusion
    query, key, value = fusion.query(own), fusion.key(adapted), fusion.value(adapted)
    gathered = torch.zeros(B, 8, 16, dtype=torch.float64)
    for b in range(B):
        for head in (slice(0, 4), slice(4, 8)):
            q, k, v = (x[b].flatten(1)[head] for x in (query, key, value))
            for cell in range(16):
                share = (q[:, cell] @ k / 2).softmax(dim=0)
                gathered[b, head, cell] = v @ share
    joined = fusion.norm(own + fusion.leave(gathered.unflatten(2, (4, 4)))).relu()
    gate = method.excite.fc2(method.excite.fc1(joined.mean(dim=(2, 3), keepdim=True)).relu()).sigmoid()
    fused = joined * gate
    logits = method.classifier(fused.mean(dim=(2, 3)))
    torch.testing.assert_close(terms["ce"], batch.cross_entropy(logits))
    torch.testing.assert_close(method.predict(student), logits)
    target = method._last(teacher)
    angles = sum(cosine(a, b) for a, b in zip(adapted.flatten(1).tolist(), target.flatten(1).tolist(), strict=True))
    assert terms["feature"].item() == pytest.approx(50 * (1 - angles / B), rel=1e-10)
    weight = method.pair.teacher.model.get_classifier().weight
    own_maps, their_maps = class_activations(fused, method.classifier.weight, 2), class_activations(target, weight, 2)
    error = (own_maps - their_maps).square().mean().item()
    assert terms["attention"].item() == pytest.approx(300 * error, rel=1e-10)
    assert method.inference_parameters == sum(p.numel() for p in method.parameters())


def test_class_activations() -> None:
    feature, weight = random(2, 3, 4, 4), random(C, 3, seed=1)
    found = class_activations(feature, weight, 2)
    for b in range(2):
        for i in range(2):
            for j in range(2):
                cells = feature[b, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(dim=(1, 2))
                scores = [sum(weight[c, d].item() * cells[d].item() for d in range(3)) for c in range(C)]
                expected = [score / math.hypot(*scores) for score in scores]
                assert found[b, :, i, j].tolist() == pytest.approx(expected, rel=1e-10)
