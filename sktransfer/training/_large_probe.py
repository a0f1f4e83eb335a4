"""Linear models of rows that are too many to be copied: fitted block by block.

They have the optimum that `_probe` has: scikit-learn's objective is minimised over all rows, of
which one block at a time is standardised, on the device that trains, in float32. Where its digits
do not suffice to the end, the last steps are in float64. What takes memory beside the rows are a
block, its outputs, and some twenty copies of the coefficients.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import OptimizeResult, minimize

from ._probe import PROBE_ALPHAS, PROBE_C, PROBE_ITERATIONS, Probe, known
from ._resident import fits_on, moved
from ._targets import LabelTargets, NumberTargets, Targets, labels_of

# Values of a block of rows and of their outputs together, 128 MiB in float32.
_VALUES_OF_A_BLOCK = 2**25
# Shares of the rows that are solved first: each solution starts the next one, and most passes
# are over few rows. Fewer rows than this are not divided.
_SHARES = (64, 16, 4)
_FEWEST_ROWS = 2**13
# Of the gradient of the mean loss. scikit-learn's is 1e-4, which leaves up to 9e-3 in probability.
# The gradient of one of many classes is smaller, by its share of the images.
_TOLERANCE, _TOLERANCE_OF_ALL_CLASSES, _LEAST_TOLERANCE = 2e-6, 4e-4, 4e-7
_TOLERANCE_OF_A_SHARE = 1e-4


@dataclass(frozen=True)
class ScaledRows:
    """Rows (n, width) in the caller's array, and what standardises a block of them."""

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def slices(self, n_outputs: int, n: int | None = None) -> Iterator[slice]:
        """Yield the blocks of `n` rows, all by default."""
        size = max(1, _VALUES_OF_A_BLOCK // (self.rows.shape[1] + n_outputs))
        n = len(self) if n is None else n
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def block(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Return standardised rows, float64."""
        return (self.rows[chosen] - self.mean) / self.scale

    def tensor(
        self, chosen: slice | np.ndarray, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Return standardised rows on a device."""
        block = moved(torch.from_numpy(np.array(self.rows[chosen])), device).to(dtype)
        mean, scale = (
            torch.from_numpy(values).to(dtype).to(device) for values in (self.mean, self.scale)
        )
        return block.sub_(mean).div_(scale)


def known_large_probe(
    rows: ScaledRows,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
    device: torch.device,
) -> Probe:
    """Return the linear model of many rows; candidates of a search share it."""
    arrays = (rows.rows, rows.mean, rows.scale, encoded, weights)
    return known(arrays, targets, lambda: _fit(rows, encoded, weights, targets, device))


def _fit(
    rows: ScaledRows,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
    device: torch.device,
) -> Probe:
    if isinstance(targets, NumberTargets):
        return ridge(rows, encoded, weights, PROBE_ALPHAS)
    strength = 1 / (PROBE_C * weights.sum())
    n, width = rows.rows.shape
    coefficients = np.zeros((targets.n_outputs, width + 1))
    if isinstance(targets, LabelTargets):
        n_present = (encoded > 0.5).sum(0)
        varies = (n_present > 0) & (n_present < n)
        coefficients[:, -1] = np.where(n_present > 0, np.log(n), -np.log(n))
        coefficients[varies, -1] = 0
        if varies.any():
            coefficients[varies] = minimum(
                rows,
                encoded[:, varies],
                weights,
                coefficients[varies],
                strength,
                balance=targets.balance[:, varies],
                device=device,
            )
        return Probe(coefficients[:, :-1], coefficients[:, -1], strength / len(coefficients))
    present, labels = np.unique(labels_of(encoded), return_inverse=True)
    coefficients[:, -1] = -np.log(n)  # of a class without an image
    coefficients[present, -1] = 0
    if len(present) == 2:
        strength *= 2  # scikit-learn's one logit of two classes is the difference of theirs
    if len(present) > 1:
        start = coefficients[present]
        coefficients[present] = minimum(rows, labels, weights, start, strength, device=device)
    return Probe(coefficients[:, :-1], coefficients[:, -1], strength)


def minimum(
    rows: ScaledRows,
    targets: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    strength: float,
    *,
    device: torch.device,
    balance: np.ndarray | None = None,
    is_from_start: bool = False,
) -> np.ndarray:
    """Return the coefficients (n_outputs, width + 1) of least mean loss and penalty.

    Parameters
    ----------
    rows : ScaledRows
    targets : ndarray of shape (n,) or (n, n_outputs)
        Positions of classes; or 0 and 1, whose losses are added up.
    weights : ndarray of shape (n,)
    start : ndarray of shape (n_outputs, width + 1)
        Weights and, in the last column, intercepts.
    strength : float
        Half of it is that of the penalty on the squares of the weights.
    device : torch.device
    balance : ndarray of shape (2, n_outputs), default=None
        Weights of 0 and 1, where targets are these.
    is_from_start : bool, default=False
        Whether the penalty is on the distance to `start`, intercepts included.
    """
    centre = start if is_from_start else np.zeros_like(start)
    penalised = np.ones_like(start)
    if not is_from_start:
        penalised[:, -1] = 0

    def solution(
        found: np.ndarray, chosen: np.ndarray | None, dtype: torch.dtype, tolerance: float
    ) -> OptimizeResult:
        objective = _Objective(rows, targets, weights, balance, chosen, len(start), device, dtype)

        def value_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
            coefficients = values.reshape(start.shape)
            loss, gradient = objective(coefficients)
            distance = penalised * (coefficients - centre)
            loss += strength / 2 * np.sum(np.square(distance))
            return loss, (gradient + strength * distance).ravel()

        return minimize(
            value_and_gradient,
            found.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": PROBE_ITERATIONS,
                "gtol": tolerance,
                "ftol": 64 * np.finfo(float).eps,
            },
        )

    order = np.random.default_rng(0).permutation(len(rows))
    tolerance = min(_TOLERANCE, max(_LEAST_TOLERANCE, _TOLERANCE_OF_ALL_CLASSES / len(start)))
    found = start
    for share in _SHARES:
        n = len(rows) // share
        if n >= _FEWEST_ROWS:
            roughly = max(tolerance, _TOLERANCE_OF_A_SHARE)
            found = solution(found, np.sort(order[:n]), torch.float32, roughly).x
    result = solution(found, None, torch.float32, tolerance)
    if np.abs(result.jac).max() > tolerance:
        result = solution(result.x, None, torch.float64, tolerance)
    return result.x.reshape(start.shape)


class _Objective:
    """The mean loss of some rows and its gradient, added up over blocks on a device."""

    def __init__(
        self,
        rows: ScaledRows,
        targets: np.ndarray,
        weights: np.ndarray,
        balance: np.ndarray | None,
        chosen: np.ndarray | None,
        n_outputs: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        if device.type == "mps" and dtype == torch.float64:  # which it does not have
            device = torch.device("cpu")
        self._rows, self._targets, self._chosen = rows, targets, chosen
        self._n_outputs, self._device, self._dtype = n_outputs, device, dtype
        self._balance = balance
        n = len(rows) if chosen is None else len(chosen)
        self._slices = list(rows.slices(n_outputs, n))
        total = weights.sum() if chosen is None else weights[chosen].sum()
        self._weights = weights / total
        # on a GPU with room for them, rows cross to it once
        self._keeps = device.type != "cpu" and fits_on(
            device, n * dtype.itemsize * (rows.rows.shape[1] + 2)
        )
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def _block(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the rows, targets and weights of a block."""
        if number in self._kept:
            return self._kept[number]
        part = self._slices[number]
        chosen = part if self._chosen is None else self._chosen[part]
        targets, weights = self._targets[chosen], self._weights[chosen]
        if self._balance is not None:
            absence, presence = self._balance
            weights = weights[:, None] * np.where(targets > 0.5, presence, absence)
        target_type = torch.int64 if self._balance is None else self._dtype
        block = (
            self._rows.tensor(chosen, self._device, self._dtype),
            moved(torch.from_numpy(targets).to(target_type), self._device),
            moved(torch.from_numpy(weights).to(self._dtype), self._device),
        )
        if self._keeps:
            self._kept[number] = block
        return block

    @torch.inference_mode()
    def __call__(self, coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        values = moved(torch.from_numpy(coefficients).to(self._dtype), self._device)
        weight, bias = values[:, :-1].contiguous(), values[:, -1].contiguous()
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        losses = []
        for number in range(len(self._slices)):
            rows, targets, weights = self._block(number)
            outputs = torch.addmm(bias, rows, weight.T)
            if self._balance is None:
                losses.append(weights * F.cross_entropy(outputs, targets, reduction="none"))
                errors = outputs.softmax(1)
                errors[torch.arange(len(rows), device=self._device), targets] -= 1
                errors *= weights[:, None]
            else:
                of_each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
                losses.append((weights * of_each).sum(1))
                errors = weights * (outputs.sigmoid() - targets)
            of_weight.addmm_(errors.T, rows)
            of_bias += errors.sum(0)
        gradient = torch.cat([of_weight, of_bias[:, None]], dim=1).cpu().double().numpy()
        return float(torch.cat(losses).cpu().double().sum()), gradient


def ridge(rows: ScaledRows, encoded: np.ndarray, weights: np.ndarray, alphas: np.ndarray) -> Probe:
    """Return the linear regression of least squared error, its penalty one of `alphas`.

    It is scikit-learn's ``RidgeCV``, by the covariance of the columns, in two passes on the CPU
    in float64: small eigenvalues need its digits.
    """
    total = weights.sum()
    width, n_outputs = rows.rows.shape[1], encoded.shape[1]
    slices = list(rows.slices(n_outputs))
    row_mean = sum(weights[part] @ rows.block(part) for part in slices) / total
    target_mean = weights @ encoded / total
    covariance, cross = np.zeros((width, width)), np.zeros((width, n_outputs))
    for part in slices:
        block = rows.block(part) - row_mean
        weighted = block * weights[part, None]
        covariance += weighted.T @ block
        cross += weighted.T @ (encoded[part] - target_mean)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    projected = vectors.T @ cross
    inverses = [1 / (np.maximum(eigenvalues, 0) + alpha) for alpha in alphas]
    solutions = np.stack([inverse[:, None] * projected for inverse in inverses])
    errors = np.zeros(len(alphas))  # of each image, by the model of all others
    for part in slices:
        block = (rows.block(part) - row_mean) @ vectors
        left_over = encoded[part] - target_mean
        for number, inverse in enumerate(inverses):
            leverage = weights[part] * (np.square(block) @ inverse + 1 / total)
            of_each = (left_over - block @ solutions[number]) / (1 - leverage)[:, None]
            errors[number] += np.sum(weights[part, None] * np.square(of_each))
    best = int(np.argmin(errors))
    weight = (vectors @ solutions[best]).T
    strength = 2 * float(alphas[best]) / (n_outputs * total)  # the loss is a mean
    return Probe(weight, target_mean - weight @ row_mean, strength)
