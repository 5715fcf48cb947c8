"""Methods that compare feature maps: losses against loops from the equations in float64, and the whole methods."""

import math
from typing import Any

import pytest
import torch
from kdbench_methods.at import AT, attention_loss
from kdbench_methods.feature_mse import FeatureMSE
from kdbench_methods.nst import NST, selectivity_loss
from kdbench_methods.ofd import OFD, Position, Regression, find_norms, negative_mean, partial_loss
from kdbench_methods.parts.feature_losses import context_loss
from kdbench_methods.parts.projectors import common_grid
from kdbench_methods.reviewkd import Fusion, ReviewKD
from kdbench_methods.vid import VID, Predictor
from torch import Tensor, nn

from kdbench.method import Method, UnsupportedPair
from kdbench.testing import build, one_batch, small_model, small_pair

METHODS = [AT, NST, VID, ReviewKD, OFD, FeatureMSE]


def features(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Adaptive average pooling: cell i of n holds rows floor(i H / n) to ceil((i + 1) H / n)."""
    height, width = x.shape[-2:]
    out = torch.zeros(*x.shape[:2], *grid, dtype=x.dtype)
    for i in range(grid[0]):
        for j in range(grid[1]):
            rows = slice(i * height // grid[0], math.ceil((i + 1) * height / grid[0]))
            columns = slice(j * width // grid[1], math.ceil((j + 1) * width / grid[1]))
            out[:, :, i, j] = x[:, :, rows, columns].mean(dim=(2, 3))
    return out


GRIDS = [((4, 4), (4, 4)), ((6, 6), (3, 3)), ((2, 3), (5, 3)), ((7, 7), (4, 4)), ((5, 2), (3, 6))]


@pytest.mark.parametrize(("student", "teacher"), GRIDS)
def test_the_common_grid(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    x, y = features((2, 3, *student), (2, 5, *teacher))
    grid = min(student[0], teacher[0]), min(student[1], teacher[1])
    for found, source in zip(common_grid(x, y), (x, y), strict=True):
        torch.testing.assert_close(found, pool(source, grid), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("student", "teacher"), GRIDS)
def test_attention(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    x, y = features((3, 4, *student), (3, 6, *teacher))
    grid = min(student[0], teacher[0]), min(student[1], teacher[1])
    total, cells = 0.0, grid[0] * grid[1]
    for b in range(3):
        maps = []
        for feature in (pool(x, grid), pool(y, grid)):
            energy = [
                sum(feature[b, c, i, j].item() ** 2 for c in range(feature.shape[1]))
                for i in range(grid[0])
                for j in range(grid[1])
            ]
            length = math.sqrt(sum(value**2 for value in energy))
            maps.append([value / length for value in energy])
        total += sum((s - t) ** 2 for s, t in zip(*maps, strict=True))
    assert attention_loss(x, y).item() == pytest.approx(total / (3 * cells), rel=1e-10)


@pytest.mark.parametrize(("grid", "widths"), [((2, 2), (5, 3)), ((3, 2), (6, 8)), ((4, 4), (5, 3)), ((3, 3), (2, 9))])
def test_selectivity(grid: tuple[int, int], widths: tuple[int, int]) -> None:
    """Few cells and many channels, and the other way round: two ways to compute the same."""
    x, y = features((2, widths[0], *grid), (2, widths[1], *grid))

    def kernel(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for u in a:
            for v in b:
                product = sum(p * q for p, q in zip(u.flatten().tolist(), v.flatten().tolist(), strict=True))
                total += (product / (u.norm() * v.norm()).item()) ** 2
        return total / (len(a) * len(b))

    expected = sum(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t) for s, t in zip(x, y, strict=True)) / 2
    assert selectivity_loss(x, y).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("side", [4, 14])
def test_selectivity_of_half_precision(side: int) -> None:
    """Of like features the kernels differ in their third digit, which bfloat16 does not have."""
    teacher, noise = (x.float().relu() for x in features((4, 32, side, side), (4, 32, side, side)))
    teacher, student = teacher.bfloat16(), (teacher + 0.2 * noise).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = selectivity_loss(student, teacher)
    assert found.item() == pytest.approx(selectivity_loss(student.double(), teacher.double()).item(), rel=1e-3)


@pytest.mark.parametrize(("widths", "side"), [((64, 96), 4), ((64, 96), 16), ((512, 512), 7)])
def test_selectivity_keeps_to_small_matrices(widths: tuple[int, int], side: int) -> None:
    """A product for every two channels at every cell, B * C^2 * H * W, is never held."""
    images = 4
    kept: list[int] = []
    x, y = torch.randn(images, widths[0], side, side, requires_grad=True), torch.randn(images, widths[1], side, side)

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        selectivity_loss(x, y).backward()
    cells, channels = side**2, max(widths)
    assert max(kept) <= images * max(channels * cells, min(channels, cells) ** 2)


def test_information() -> None:
    predictor = Predictor(3, 4, 5.0, 1e-5).double()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    whole, y = features((2, 3, 4, 4), (2, 4, 2, 2))
    x = pool(whole, (2, 2))
    layers = [part.weight[:, :, 0, 0].tolist() for part in predictor.mean if isinstance(part, nn.Conv2d)]
    alpha = predictor.alpha.flatten().tolist()
    total, negative = 0.0, 0
    for b in range(2):
        for i in range(2):
            for j in range(2):
                values = x[b, :, i, j].tolist()
                for depth, layer in enumerate(layers):
                    values = [sum(w * v for w, v in zip(row, values, strict=True)) for row in layer]
                    if depth < 2:
                        values = [max(value, 0.0) for value in values]
                negative += sum(value < 0 for value in values)
                for c in range(4):
                    variance = math.log(1 + math.exp(alpha[c])) + 1e-5
                    error = values[c] - y[b, c, i, j].item()
                    total += 0.5 * (error**2 / variance + math.log(variance))
    assert 0 < negative < y.numel()
    assert predictor(whole, y).item() == pytest.approx(total / y.numel(), rel=1e-10)


@pytest.mark.parametrize("variance", [0.01, 1.0, 5.0])
def test_the_variance_starts_where_it_is_said_to(variance: float) -> None:
    predictor = Predictor(3, 2, variance, 1e-5)
    found = nn.functional.softplus(predictor.alpha) + predictor.eps
    torch.testing.assert_close(found, torch.full_like(found, variance))
    predictor(torch.randn(2, 3, 2, 2), torch.randn(2, 2, 2, 2)).backward()
    assert predictor.alpha.grad is not None and predictor.alpha.grad.all()


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_context(side: int) -> None:
    x, y = features((2, 3, side, side), (2, 3, side, side))

    def mse(a: Tensor, b: Tensor) -> float:
        return sum((p - q) ** 2 for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)) / a.numel()

    total, weights, weight = mse(x, y), 1.0, 1.0
    for level in (4, 2, 1):
        if level < side:
            weight /= 2
            total += weight * mse(pool(x, (level, level)), pool(y, (level, level)))
            weights += weight
    assert context_loss(x, y).item() == pytest.approx(total / weights, rel=1e-10)


def _convolved(x: Tensor, convolution: Any) -> Tensor:
    """A convolution that keeps the size, by loops."""
    weight, reach = convolution.weight, convolution.weight.shape[-1] // 2
    images, _, height, width = x.shape
    out = torch.zeros(images, len(weight), height, width, dtype=x.dtype)
    for i in range(height):
        for j in range(width):
            for u in range(-reach, reach + 1):
                for v in range(-reach, reach + 1):
                    if 0 <= i + u < height and 0 <= j + v < width:
                        out[:, :, i, j] += x[:, :, i + u, j + v] @ weight[:, :, reach + u, reach + v].T
    return out if convolution.bias is None else out + convolution.bias[:, None, None]


def _normalised(x: Tensor, norm: Any) -> Tensor:
    """A batch norm in training."""
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        variance = ((values - values.mean()) ** 2).mean()
        out[:, c] = (values - values.mean()) / (variance + norm.eps).sqrt() * norm.weight[c] + norm.bias[c]
    return out


@pytest.mark.parametrize("grid", [(4, 4), (2, 2), (8, 4)])
def test_fusion(grid: tuple[int, int]) -> None:
    """Gated sum with the nearest cell of the deeper level, then the nearest cell on the teacher's grid."""
    fusion = Fusion(3, 2, 5, fuse=True).double()
    for part in fusion.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    own, deeper = features((2, 3, 4, 4), (2, 2, 2, 2))
    with torch.no_grad():
        result, fused = fusion(own, deeper, grid)
        x = _normalised(_convolved(own, fusion.enter[0]), fusion.enter[1])
        spread = torch.stack([torch.stack([deeper[:, :, i // 2, j // 2] for j in range(4)], -1) for i in range(4)], -2)
        assert fusion.gate is not None
        gates = 1 / (1 + torch.exp(-_convolved(torch.cat([x, spread], dim=1), fusion.gate[0])))
        blend = torch.empty_like(x)
        for c in range(2):
            blend[:, c] = x[:, c] * gates[:, 0] + spread[:, c] * gates[:, 1]
        rows, columns = ([i * 4 // count for i in range(count)] for count in grid)
        expected = blend[:, :, rows][:, :, :, columns]
        torch.testing.assert_close(fused, expected, rtol=1e-10, atol=1e-12)
        outcome = _normalised(_convolved(expected, fusion.leave[0]), fusion.leave[1])
        torch.testing.assert_close(result, outcome, rtol=1e-10, atol=1e-12)


def test_the_review_grows_over_its_warm_up() -> None:
    method = build(ReviewKD, small_pair("cnn", "vit"), warmup_epochs=4, weight=2.0)
    full = build(ReviewKD, small_pair("cnn", "vit"))
    for epoch, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        assert one_batch(method, 4, epoch=epoch).terms["review"].item() == pytest.approx(
            2 * share * one_batch(full, 4).terms["review"].item(), rel=1e-5
        )


def test_shallow_stages_of_the_teacher_teach_the_students_last() -> None:
    """The review: that is what the fusions are for."""
    method = build(ReviewKD, small_pair("cnn", "cnn"), stages=[1])
    _, student, teacher, _ = one_batch(method, 4)
    own, targets = method._levels(student), method._levels(teacher)
    assert [level.shape[-1] for level in targets] == [1, 8]
    _, deep = method.fusions[0](own[0], None, (1, 1))
    result, _ = method.fusions[1](own[1], deep, (8, 8))
    (gradient,) = torch.autograd.grad(context_loss(result, targets[1]), student.pooled)
    assert gradient.abs().sum() > 0


def test_partial_loss() -> None:
    x, y = features((3, 4, 2, 2), (3, 4, 2, 2))
    margins = [-0.3, -1.0, -0.05, -2.0]
    total, free = 0.0, 0
    for b in range(3):
        for c in range(4):
            for i in range(2):
                for j in range(2):
                    s, t = x[b, c, i, j].item(), max(y[b, c, i, j].item(), margins[c])
                    if s <= t <= 0:
                        free += 1
                    else:
                        total += (s - t) ** 2
    assert free > 0
    target = torch.maximum(y, torch.tensor(margins, dtype=torch.float64)[:, None, None])
    assert partial_loss(x, target).item() == pytest.approx(total / 3, rel=1e-10)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.5), (-1.5, 2.0), (3.0, 1.1)])
def test_the_margin_is_the_mean_of_what_is_negative(mean: float, std: float) -> None:
    """By sums over a grid of the density."""
    step, mass, moment = std * 1e-4, 0.0, 0.0
    for i in range(200_000):
        x = -(i + 0.5) * step
        density = math.exp(-(((x - mean) / std) ** 2) / 2)
        mass, moment = mass + density, moment + density * x
    assert negative_mean(torch.tensor([mean]), torch.tensor([std])).item() == pytest.approx(moment / mass, rel=1e-4)


def test_channels_that_are_never_negative_or_always_the_same_have_a_margin() -> None:
    margins = negative_mean(torch.tensor([5.0, 0.0, 1.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(margins, torch.tensor([-3.0, 0.0, 0.0, -1.0]))


def test_norms_of_a_residual_network() -> None:
    """Those at the end of the residuals; behind them comes a ReLU."""
    teacher = small_model("bottleneck cnn", size=64).eval()
    found = find_norms(teacher, [1, 2, 3, 4])
    net: Any = teacher.model
    assert [found[k][0] for k in (1, 2, 3, 4)] == [
        net.layer1[-1].bn3,
        net.layer2[-1].bn3,
        net.layer3[-1].bn3,
        net.layer4[-1].bn3,
    ]
    assert {position for _, position in found.values()} == {"rectified"}
    assert not any(module._forward_hooks for module in net.modules())


def test_norms_behind_a_pre_activation_network() -> None:
    """What the ReLU of the next block is given: the norm in front of it, and of the trunk's end."""
    teacher = small_model("pre-activation cnn").eval()
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
    found = find_norms(teacher, [2, 4])
    assert {position for _, position in found.values()} == {"ahead"}
    method = build(OFD, small_pair("pre-activation cnn", "cnn"), stages=[2, 4])
    images = torch.randn(2, 3, 32, 32)
    outputs = teacher(images, method.teacher_needs)
    for k in (2, 4):
        norm, position = found[k]
        regression = Regression(8, norm, position)
        feature = outputs.stages[k].map
        torch.testing.assert_close(feature * regression.scale + regression.shift, norm(feature), rtol=1e-5, atol=1e-5)


def test_norms_of_linear_bottlenecks() -> None:
    found = find_norms(small_model("mobilenet").eval(), [1, 2, 3, 4])
    assert [found[k][1] for k in (1, 2, 3, 4)] == ["behind", "behind", "behind", "rectified"]


@pytest.mark.parametrize("teacher", ["convnext", "vit"])
def test_a_teacher_without_batch_norm_has_no_margin(teacher: str) -> None:
    with pytest.raises(UnsupportedPair, match="batch norm"):
        build(OFD, small_pair(teacher, "cnn"))


def test_where_the_relu_is_shut_the_margin_stands() -> None:
    """E[x | x < 0] of a standard Gaussian is -0.798: for it, a student at -0.5 is still too high, for 0 it is not."""
    norm = nn.BatchNorm2d(1)
    teacher, student = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2), torch.tensor([2.0, -0.5]).view(1, 1, 1, 2)
    margin = -math.sqrt(2 / math.pi)
    expected: list[tuple[Position, float]] = [("rectified", (-0.5 - margin) ** 2), ("behind", 0.0)]
    for position, loss in expected:
        regression = Regression(1, norm, position).eval()
        nn.init.ones_(regression.connect[0].weight)
        assert regression.margin.item() == pytest.approx(margin, rel=1e-6)
        assert regression(student, teacher).item() == pytest.approx(loss, abs=1e-4)


def test_deeper_stages_weigh_twice_as_much() -> None:
    method = build(OFD, small_pair("cnn", "cnn"), stages=[1, 2, 3], weight=1.0)
    terms, student, teacher, _ = one_batch(method, 4)
    single = [r(student.stages[int(k)].map, teacher.stages[int(k)].map) for k, r in method.regressions.items()]
    expected = single[0] / 4 + single[1] / 2 + single[2]
    torch.testing.assert_close(terms["partial"], expected)


def test_pooled_features() -> None:
    method = build(FeatureMSE, small_pair("vit", "cnn"), weight=3.0)
    terms, student, teacher, _ = one_batch(method, 4)
    weight, bias = method.project.weight.tolist(), method.project.bias.tolist()
    total = 0.0
    for f_s, f_t in zip(student.pooled.tolist(), teacher.pooled.tolist(), strict=True):
        for row, shift, target in zip(weight, bias, f_t, strict=True):
            total += (sum(w * f for w, f in zip(row, f_s, strict=True)) + shift - target) ** 2
    assert terms["feature"].item() == pytest.approx(3 * total / teacher.pooled.numel(), rel=1e-5)
    assert not list(build(FeatureMSE, small_pair("cnn", "cnn")).parameters()), "the widths agree"


@pytest.mark.parametrize("method", [AT, NST])
def test_a_single_cell_has_no_pattern(method: type[Method]) -> None:
    assert build(method, small_pair("cnn", "cnn")).student_needs.stages == {1, 2, 3}
    with pytest.raises(UnsupportedPair, match="fewer than 2 cells"):
        build(method, small_pair("cnn", "cnn"), stages=[4])


def test_two_networks_without_a_common_stage() -> None:
    with pytest.raises(UnsupportedPair, match="none of the stages"):
        build(VID, small_pair("cnn", "cnn"), stages=[])


@pytest.mark.parametrize("method", METHODS)
def test_tokens_are_maps_on_their_grid(method: type[Method]) -> None:
    built = build(method, small_pair("cnn", "vit"))
    terms, *_ = one_batch(built, 4)
    sum(terms.values(), start=torch.zeros(())).backward()
    embedding = built.pair.student.model.patch_embed.proj.weight
    assert embedding.grad is not None and embedding.grad.abs().sum() > 0
