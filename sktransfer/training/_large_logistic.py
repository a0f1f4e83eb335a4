"""Logistic regressions of very many rows: scikit-learn's objective, minimised over all of them.

One block of rows at a time is standardised, on the device that trains, in float32. Where its digits
do not suffice to the end, the last steps are in float64. What takes memory beside the rows are a
block, its outputs, and some twenty copies of the coefficients.

Rows of a network are related: their covariance has a few large eigenvalues and many small ones, so
that the loss is steep in some directions and flat in others, and a solver needs hundreds of passes
over all rows. In the coordinates of `_Coordinates` it is about as steep in all directions, and some
tens of passes suffice (benchmarks/bench_large_head.py).
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from ._probe import PROBE_ITERATIONS
from ._resident import fits_on, is_host, moved
from ._scaled_rows import ScaledRows

# Of the norm of the gradient in the coordinates of `_Coordinates`: half of its square is about how
# far the mean loss is from the least. What it leaves in probability is in the results of
# benchmarks/bench_large_head.py; rows of small weight are not as well determined.
_TOLERANCE = 3e-5
# Change of the loss up to which float32 has too few digits for it.
_ROUNDING = 1e-6
# Passes in one direction before it is given up. Where float32 finds no smaller loss in a few, its
# digits are too few, and float64 goes on.
_SEARCHED = {torch.float32: 4, torch.float64: 20}
# Of the mean of all outputs: least curvature that one is taken to have.
_LEAST_CURVATURE = 1e-2
# Rows that the coordinates are made of, for each column.
_ROWS_FOR_A_COLUMN = 32


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
    in_float64 = torch.device("cpu") if device.type == "mps" else device  # which does not have it
    centre = start if is_from_start else np.zeros_like(start)
    penalised = np.ones_like(start)
    if not is_from_start:
        penalised[:, -1] = 0
    coordinates = _Coordinates(rows, targets, weights, balance, start, strength, in_float64)

    def solution(
        found: np.ndarray, device: torch.device, dtype: torch.dtype
    ) -> tuple[np.ndarray, bool]:
        """Return coefficients, and whether they are as near to the optimum as asked for."""
        objective = _Objective(rows, targets, weights, balance, len(start), device, dtype)
        losses = _Losses(_ROUNDING if dtype == torch.float32 else 0.0)

        def value_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
            coefficients = coordinates.coefficients(values)
            loss, gradient = objective(coefficients)
            distance = penalised * (coefficients - centre)
            loss += strength / 2 * np.sum(np.square(distance))
            gradient = coordinates.gradient(gradient + strength * distance)
            if np.linalg.norm(gradient) <= _TOLERANCE:
                raise _Solved(coefficients)
            return losses.of(values, loss, gradient), gradient

        try:
            result = minimize(
                value_and_gradient,
                coordinates.of(found),
                jac=True,
                method="L-BFGS-B",
                options={
                    "maxiter": PROBE_ITERATIONS,
                    "gtol": 0,
                    "maxls": _SEARCHED[dtype],
                    "ftol": 64 * np.finfo(float).eps,
                },
            )
        except _Solved as solved:
            return solved.coefficients, True
        return coordinates.coefficients(result.x), False

    found, is_solved = solution(start, device, torch.float32)
    return found if is_solved else solution(found, in_float64, torch.float64)[0]


class _Solved(Exception):
    """Raised from the solver's function, where the tolerance of all coefficients is met."""

    def __init__(self, coefficients: np.ndarray):
        self.coefficients = coefficients


class _Losses:
    """Losses whose differences are right where they are smaller than the rounding of a loss.

    A small change is told by the gradients at both ends of a step, whose digits suffice: in a
    quadratic function it is the mean of the two times the step.
    """

    def __init__(self, rounding: float):
        self._rounding = rounding
        self._last: tuple[np.ndarray, float, np.ndarray, float] | None = None

    def of(self, values: np.ndarray, loss: float, gradient: np.ndarray) -> float:
        """Return the loss at `values`, less what rounding changed since the call before."""
        corrected = loss
        if self._last is not None:
            before, loss_before, gradient_before, corrected_before = self._last
            change = loss - loss_before
            if abs(change) < self._rounding:
                change = 0.5 * float((gradient + gradient_before) @ (values - before))
            corrected = corrected_before + change
        self._last = (values.copy(), loss, gradient, corrected)
        return corrected


def mean_weights(
    targets: np.ndarray, weights: np.ndarray, balance: np.ndarray | None, n_outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean weights, in the loss, of an absence and of a presence of each output.

    Each is at least that of about one image, so that none is 0.
    """
    if balance is None:
        present = np.bincount(targets, weights, minlength=n_outputs)
        balance = np.ones((2, n_outputs))
    else:
        # with the digits of the targets, of which no copy is made
        present = weights.astype(targets.dtype) @ targets
    least = 1 / (len(weights) + 1)
    share = np.clip(present / weights.sum(), least, 1 - least)
    return balance[0] * (1 - share), balance[1] * share


class _Coordinates:
    """Coordinates of coefficients in which the loss is about as steep in all directions.

    The second derivatives of the loss are about those where all images are predicted by the
    frequencies of classes, the weighted mean of p (1 - p) times the second moments of rows, and
    `strength`. A start may be sure of what is wrong, where the loss is flat. Coefficients are
    turned into the eigenvectors of the moments, and divided by the root of the derivative along
    each. The moments are those of some rows: the optimum does not depend on them.
    """

    def __init__(
        self,
        rows: ScaledRows,
        targets: np.ndarray,
        weights: np.ndarray,
        balance: np.ndarray | None,
        start: np.ndarray,
        strength: float,
        device: torch.device,
    ):
        n_outputs, width = start.shape
        weighs = np.flatnonzero(weights)  # there may be few
        n = min(len(weighs), _ROWS_FOR_A_COLUMN * width)
        some = np.sort(np.random.default_rng(0).permutation(weighs)[:n])
        self._device = device
        shares = self._placed(weights[some] / weights[some].sum())
        moments = torch.zeros(width, width, dtype=torch.float64, device=device)
        for part in rows.slices(1, n):
            block, share = rows.tensor(some[part], device, torch.float64), shares[part]
            block = torch.cat([block, torch.ones_like(block[:, :1])], dim=1)
            moments.addmm_((block * share[:, None]).T, block)
        absent, present = mean_weights(targets, weights, balance, n_outputs)
        curvature = self._placed(absent * present / (absent + present))
        # some rows may be predicted as a class that none of them has
        curvature.clamp_(min=_LEAST_CURVATURE * curvature.mean())
        eigenvalues, self._directions = torch.linalg.eigh(moments)
        self._lengths = (curvature[:, None] * eigenvalues.clamp(min=0) + strength).rsqrt()

    def _placed(self, array: np.ndarray) -> torch.Tensor:
        return moved(torch.from_numpy(np.ascontiguousarray(array)), self._device)

    def of(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the coordinates of coefficients, flat."""
        values = (self._placed(coefficients) @ self._directions) / self._lengths
        return values.cpu().numpy().ravel()

    def coefficients(self, values: np.ndarray) -> np.ndarray:
        """Return the coefficients (n_outputs, width + 1) that have these coordinates."""
        values = self._placed(values.reshape(self._lengths.shape)) * self._lengths
        return (values @ self._directions.T).cpu().numpy()

    def gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient by coordinates from that by coefficients, flat."""
        return ((self._placed(gradient) @ self._directions) * self._lengths).cpu().numpy().ravel()


class _Objective:
    """The mean loss and its gradient, added up over blocks of rows on a device."""

    def __init__(
        self,
        rows: ScaledRows,
        targets: np.ndarray,
        weights: np.ndarray,
        balance: np.ndarray | None,
        n_outputs: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._rows, self._targets = rows, targets
        self._device, self._dtype = device, dtype
        self._balance = balance
        self._slices = list(rows.slices(n_outputs))
        self._weights = weights / weights.sum()
        # on a GPU with room for them, rows cross to it once
        self._keeps = not is_host(device) and fits_on(
            device, len(rows) * dtype.itemsize * (rows.rows.shape[1] + 2)
        )
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def _block(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the rows, targets and weights of a block."""
        if number in self._kept:
            return self._kept[number]
        part = self._slices[number]
        targets, weights = self._targets[part], self._weights[part]
        if self._balance is not None:
            absence, presence = self._balance
            weights = weights[:, None] * np.where(targets > 0.5, presence, absence)
        target_type = torch.int64 if self._balance is None else self._dtype
        block = (
            self._rows.tensor(part, self._device, self._dtype),
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
