"""Checkpoints: a fit that is stopped at any moment can be resumed, with the same result.

A checkpoint is a safetensors file like a model, written whole or not at all. It holds the progress
of the fit (`Standing`), the position of the random state, the parameters and a checksum of the
data; never a pickle.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from mnist_kmeans_mlx import distributed
from mnist_kmeans_mlx.base import center_dtype
from mnist_kmeans_mlx.datasets.faults import Fault
from mnist_kmeans_mlx.distributed import Group
from mnist_kmeans_mlx.engine.fingerprint import fingerprint
from mnist_kmeans_mlx.engine.lloyd import Run
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.restarts import Standing
from mnist_kmeans_mlx.engine.ways import Way
from mnist_kmeans_mlx.estimator import KMeans
from mnist_kmeans_mlx.persistence import owned
from mnist_kmeans_mlx.persistence.checksum import checksum
from mnist_kmeans_mlx.persistence.files import check_writable, write_atomically
from mnist_kmeans_mlx.persistence.record import Snapshot, read_snapshot, unpack_snapshot
from mnist_kmeans_mlx.progress import History

_OTHER = {"data": "other rows or weights", "centers": "other centers to start from"}


class CheckpointError(ValueError):
    """A checkpoint that is damaged, belongs to another fit, or would be overwritten."""


class Checkpoint:
    """Saves the progress of a fit in a file from which another process can resume.

    Parameters
    ----------
    path : path-like or None
        The file. It stays when the fit is done; resuming then costs no work. None writes no file:
        an interrupted `fit` then only leaves the estimator fitted with what was reached.
    resume : bool, default=False
        Resume from the file if it exists. If False, an existing file is an error: it is never
        replaced.
    iterations, seconds : int, default=10, and float, default=5
        Write after so many iterations or seconds, whichever comes first, but not so often that
        writing takes more than a tenth of the time.

    Attributes
    ----------
    path : Path or None
        The file.
    seed : int or None
        The integer that was `random_state` of the fit in the file.
    resumed : bool
        Whether a fit is resumed from the file.
    earlier : float
        Seconds that the fit in the file had taken.
    failure : OSError or None
        Why the file could not be written the last time.

    Raises
    ------
    CheckpointError
        The file exists and `resume` is False, or it is damaged, or it is not a checkpoint that
        this version reads.
    OSError
        The file cannot be read or written.

    Notes
    -----
    The result is the same to the last bit as that of a fit that was never interrupted, also on
    another device or with another number of ranks. The exception is ``n_rechecked_``: after a stop
    all rows are compared again. Of several ranks, the first one reads and writes the file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import Checkpoint, KMeans
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "fit.checkpoint")
    ...     first = Checkpoint(path).fit(KMeans(2, random_state=0), X)
    ...     again = Checkpoint(path, resume=True).fit(KMeans(2, random_state=0), X)
    >>> again.labels_
    array([1, 1, 1, 0, 0, 0], dtype=int32)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        resume: bool = False,
        iterations: int = 10,
        seconds: float = 5.0,
    ) -> None:
        # Only the first of several ranks has the file; `begin` sends its contents to the others.
        self._is_kept = path is not None
        first = distributed.current().rank == 0
        self.path = None if path is None or not first else Path(path)
        self.iterations = iterations
        self.seconds = seconds
        self.failure: OSError | None = None
        self._found: Snapshot | None = None
        self._identity: dict[str, Any] = {}
        self._now: Snapshot | None = None
        self._notes = 0
        self._written, self._cost = time.monotonic(), 0.0
        if self.path is not None:
            if self.path.exists():
                if not resume:
                    raise CheckpointError(
                        f"{self.path} exists: resume it, or remove it to start again."
                    )
                try:
                    self._found = read_snapshot(self.path)
                except Fault as fault:
                    raise CheckpointError(f"{self.path} {fault}.") from None
            check_writable(self.path)

    @property
    def resumed(self) -> bool:
        """Whether a fit is resumed from the file."""
        return self._found is not None

    @property
    def earlier(self) -> float:
        """Seconds that the fit in the file had taken."""
        return 0.0 if self._found is None else self._found.seconds

    @property
    def seed(self) -> int | None:
        """The integer that was `random_state` of the fit in the file."""
        return None if self._found is None else self._found.identity["random_state"]

    def fit(
        self,
        estimator: KMeans,
        X: Any,
        sample_weight: Any = None,
        *,
        history: History | None = None,
    ) -> KMeans:
        """Fit an estimator, resuming from the file.

        Parameters
        ----------
        estimator : KMeans
            With the parameters of the fit in the file, if there is one; `algorithm`, `device` and
            `verbose` may differ.
        X : array-like of shape (n_samples, n_features), source of rows or paths
            Rows, as `KMeans.fit` takes them.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; all one if None.
        history : History, optional
            Collects the inertia of each iteration.

        Returns
        -------
        KMeans
            The fitted estimator itself.

        Raises
        ------
        CheckpointError
            The file is of other data, other parameters or another version.
        OSError
            The file cannot be written; the last one that could is still there. If it is the last
            to be written, the estimator is fitted all the same.
        KeyboardInterrupt
            The file is written, and the estimator is fitted with the best of the restarts that are
            done, or with how far the first has come, if there is any such.
        """
        if type(estimator) is not KMeans:
            raise CheckpointError(
                "only the fit of a mnist_kmeans_mlx.KMeans has checkpoints, not that of "
                f"{owned(estimator)}."
            )
        self._began, self._now = time.monotonic(), None
        try:
            estimator._fit(X, sample_weight, keeper=self, history=history)
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                self._write()
            self._leave(estimator)
            raise
        finally:
            self.__dict__.pop("_way", None)  # a copy of the rows
        self._write()
        return estimator

    # What KMeans.fit calls

    def begin(
        self, estimator: KMeans, X: Any, way: Way, random_state: np.random.RandomState
    ) -> Standing:
        """Where the fit is to go on; sets the random state to its position there.

        :meta private:
        """
        points, self._way, self._dtype = way.points, way, center_dtype(X)
        if self._is_kept:
            self._identity = _identity(estimator, X, points)
            generator = random_state.get_state(legacy=False)["bit_generator"]
            if generator != "MT19937":
                raise CheckpointError(f"a checkpoint cannot hold the state of a {generator}.")
        standing = Standing()
        if self._found is not None:
            self._check(self._found)
        found = _shared(self._found, points.group)
        if found is not None:
            standing = found.standing
            random_state.set_state(dict(found.generator))
        if standing.best is not None:
            # As exact as they were: what a run ends with are the nearest of its centres.
            nearest = Nearest(standing.best.centers, points.device)
            best = replace(standing.best, labels=nearest.labels(points.rows))
            standing = replace(standing, best=best)
        self._now = self._record(standing, random_state.get_state(legacy=False))
        return standing

    def note(self, standing: Standing, position: Any) -> None:
        """Remember how far the fit and its random state have come; write it when it is time.

        :meta private:
        """
        self._now = self._record(standing, position)
        self._notes += 1
        since = time.monotonic() - self._written
        if since >= 9 * self._cost and (self._notes >= self.iterations or since >= self.seconds):
            self._write()

    def _check(self, found: Snapshot) -> None:
        for key, value in self._identity.items():
            then = found.identity.get(key)
            if then != value:
                what = _OTHER.get(key, f"{key} = {then}, not {value}")
                raise CheckpointError(f"{self.path} was written by a fit with {what}.")

    def _record(self, standing: Standing, position: Any) -> Snapshot:
        seconds = self.earlier + time.monotonic() - self._began
        return Snapshot(self._identity, seconds, position, standing)

    def _write(self) -> None:
        if self.path is None or self._now is None:
            return
        began = time.monotonic()
        self._notes = 0
        try:
            with write_atomically(self.path) as file:
                file.write(self._now.pack())
        except OSError as error:
            self.failure = error
            raise
        self.failure = None
        self._written = time.monotonic()
        self._cost = self._written - began

    def _leave(self, estimator: KMeans) -> None:
        """Fit the estimator with the result so far."""
        # With several ranks, labels would need all of them, and the others may be gone.
        if self._now is None or self._way.points.group.size > 1:
            return
        run, state = self._now.standing.best, self._now.standing.state
        if run is None and state is not None and len(state.labels):
            labels = np.asarray(state.labels)
            run = Run(
                labels=labels,
                inertia=self._way.points.inertia(state.previous, labels),
                centers=state.previous,
                n_iter=state.n_iter,
                converged=state.converged,
                shift=state.shift,
                rechecked=state.rechecked,
            )
        if run is not None:
            estimator._set_fitted(self._way, run, self._dtype)


def _shared(found: Snapshot | None, group: Group) -> Snapshot | None:
    """Send the snapshot of the first rank to all."""
    if group.size == 1:
        return found
    packed = b"" if found is None else found.pack()
    sent = group.broadcast(np.frombuffer(packed, np.uint8)).tobytes()
    return unpack_snapshot(sent) if sent else None


def _identity(estimator: KMeans, X: Any, points: Points) -> dict[str, Any]:
    """What determines the result of a fit, in JSON types."""
    init, seed = estimator._checked_init(X), estimator.random_state
    given = None if isinstance(init, str) or callable(init) else init
    name = getattr(init, "__qualname__", type(init).__qualname__)
    return {
        "n_clusters": int(estimator.n_clusters),
        "init": init if isinstance(init, str) else f"{name}()" if given is None else "array",
        "n_init": int(estimator._n_init),
        "max_iter": int(estimator.max_iter),
        "tol": float(estimator.tol),
        "metric": estimator.metric,
        "random_state": int(seed) if isinstance(seed, Integral) else None,
        "shape": [points.total, points.d],
        "dtype": str(X.dtype),
        "data": fingerprint(points),
        "centers": None if given is None else checksum(given),
    }
