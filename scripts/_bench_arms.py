"""The benchmarks' worker: one arm in one process, which reads jobs from a pipe.

`_bench.Worker` starts it, with the interpreter that has the arm's library; of all others only
NumPy must be there. Each line on stdin is a job, each line on stdout its answer.
"""

import io
import json
import os
import resource
import sys
import time
from contextlib import redirect_stdout, suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import numpy as np


class Library:
    """A library: holds the rows in its preferred form and fits them.

    `fit` starts from ``job.init``, given centres, or seeds by itself where that is None. It runs
    ``job.max_iter`` iterations; arms with scikit-learn's stopping rule may run fewer.
    """

    package = "numpy"
    device_peak_bytes = None

    def __init__(self, dtype="float32", divide=1, **options):
        self.dtype, self.divide, self.options = dtype, divide, options

    def hold(self, rows):
        if self.divide != 1:
            rows /= self.divide
        self.rows = rows

    def start(self, job):
        """Given centres in the arm's precision and units; None if the arm seeds itself."""
        if job.init is None:
            return None
        return np.ascontiguousarray(job.init / self.divide, dtype=self.rows.dtype)

    def prepare(self, job):
        """Preparation that is not timed."""

    def fit(self, job):
        """Centres, iterations and, where the library tells, labels."""
        raise NotImplementedError


class ScikitLearn(Library):
    package, module = "scikit-learn", "sklearn.cluster"

    def __init__(self, **options):
        super().__init__(**options)
        self.estimator = import_module(self.module).KMeans

    def fit(self, job):
        start = self.start(job)
        model = self.estimator(
            job.k,
            init="k-means++" if start is None else start,
            n_init=job.n_init,
            max_iter=job.max_iter,
            tol=job.tol,
            random_state=job.seed,
            verbose=int(job.staged),
            **self.options,
        ).fit(self.rows)
        return model.cluster_centers_, model.n_iter_, model.labels_


class ScikitLearnIntelex(ScikitLearn):
    package, module = "scikit-learn-intelex", "sklearnex.cluster"


class Ours(ScikitLearn):
    package, module = "mnist-kmeans-mlx", "mnist_kmeans_mlx"

    def __init__(self, dtype=None, **options):
        super().__init__(dtype=dtype, **options)

    def prepare(self, job):
        import mlx.core as mx

        mx.reset_peak_memory()

    def start(self, job):
        return job.init

    @property
    def device_peak_bytes(self):
        import mlx.core as mx

        return mx.get_peak_memory()


class Faiss(Library):
    package = "faiss-cpu"

    def __init__(self, plus_plus=False, **options):
        super().__init__(**options)
        self.faiss = import_module("faiss")
        methods = "ClusteringInitMethod_RANDOM", "ClusteringInitMethod_KMEANS_PLUS_PLUS"
        self.method = getattr(self.faiss, methods[plus_plus])

    def fit(self, job):
        model = self.faiss.Kmeans(
            self.rows.shape[1],
            job.k,
            niter=job.max_iter,
            seed=job.seed + 1,
            # The default would draw 256 rows per cluster and cluster only those.
            max_points_per_centroid=len(self.rows),
            min_points_per_centroid=1,
            init_method=self.method,
        )
        assert not model.cp.spherical
        model.train(self.rows, init_centroids=self.start(job))
        return model.centroids, len(model.iteration_stats), None


class SuperKMeans(Library):
    package = "superkmeans"

    def __init__(self, hierarchical=False, **options):
        super().__init__(**options)
        self.estimator = import_module("superkmeans").SuperKMeans
        self.hierarchical = hierarchical

    def fit(self, job):
        if job.init is not None:
            raise NotImplementedError("takes no given centres")
        iterations = "iters_refinement" if self.hierarchical else "iters"
        model = self.estimator(
            job.k,
            self.rows.shape[1],
            hierarchical=self.hierarchical,
            sampling_fraction=1.0,
            max_points_per_cluster=len(self.rows),
            early_termination=False,
            seed=job.seed,
            **{iterations: job.max_iter},
        )
        return np.asarray(model.train(self.rows)), job.max_iter, None


class FastKMeans(Library):
    package = "fastkmeans"

    def __init__(self, **options):
        super().__init__(**options)
        self.torch = import_module("torch")
        self.estimator = import_module("fastkmeans").FastKMeans

    def hold(self, rows):
        super().hold(rows)
        self.order = np.arange(len(rows))

    def prepare(self, job):
        """Swap the given rows to the places from which the library draws its centres."""
        if job.init is None:
            return
        if job.rows is None:
            raise NotImplementedError("takes no given centres that are no rows")
        self.torch.manual_seed(job.seed)
        drawn = self.torch.randperm(len(self.rows))[: job.k].numpy()
        for target, row in zip(drawn, job.rows, strict=True):
            pair = [target, np.flatnonzero(self.order == row)[0]]
            self.rows[pair], self.order[pair] = self.rows[pair[::-1]], self.order[pair[::-1]]

    def fit(self, job):
        model = self.estimator(
            self.rows.shape[1], job.k, niter=job.max_iter, tol=-1.0, gpu=False, seed=job.seed
        )
        model.train(self.rows)
        return model.centroids, job.max_iter, None


class FlashKMeansMlx(Library):
    package = "flash-kmeans-mlx"

    def __init__(self, **options):
        super().__init__(**options)
        self.mx = import_module("mlx.core")
        self.kmeans = import_module("flash_kmeans_mlx").batch_kmeans_Euclid

    def hold(self, rows):
        super().hold(rows)
        self.rows = self.mx.array(self.rows[None])
        self.mx.eval(self.rows)

    def start(self, job):
        if job.init is not None:
            return self.mx.array((job.init / self.divide).astype(np.float32)[None])
        self.mx.random.seed(job.seed)
        return None

    def fit(self, job):
        labels, centers, n_iter = self.kmeans(
            self.rows, job.k, max_iters=job.max_iter, tol=0.0, init_centroids=self.start(job)
        )
        return np.array(centers)[0], n_iter, np.array(labels)[0]


class Torch(Library):
    """Lloyd's algorithm in plain torch; the upload is part of the fit."""

    package = "torch"

    def __init__(self, device="auto", tf32=False, chunk=1 << 16, **options):
        super().__init__(**options)
        self.torch = import_module("torch")
        gpus = {"cuda": self.torch.cuda, "mps": self.torch.backends.mps}
        found = next((name for name, gpu in gpus.items() if gpu.is_available()), "cpu")
        if device == "gpu" and found == "cpu":
            raise RuntimeError("torch finds no GPU")
        self.device = "cpu" if device == "cpu" else found
        self.torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.chunk = chunk

    def prepare(self, job):
        if self.device == "cuda":
            self.torch.cuda.reset_peak_memory_stats()

    @property
    def device_peak_bytes(self):
        return self.torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def upload(self, array):
        tensor = self.torch.from_numpy(array).to(self.device)
        return tensor.half() if self.options.get("half") else tensor

    def fit(self, job):
        rows, centers = self.upload(self.rows), self.upload(self.start(job))
        labels = self.torch.empty(len(rows), dtype=self.torch.int64, device=self.device)
        ones = self.torch.ones(len(rows), device=self.device)
        for _ in range(job.max_iter):
            norms = centers.square().sum(dim=1)
            for start in range(0, len(rows), self.chunk):
                block = rows[start : start + self.chunk]
                scores = self.torch.addmm(norms, block, centers.T, alpha=-2)
                labels[start : start + self.chunk] = scores.argmin(dim=1)
            counts = self.torch.zeros(job.k, device=self.device).index_add_(0, labels, ones)
            sums = self.torch.zeros_like(centers).index_add_(0, labels, rows)
            means = sums / counts.clamp(min=1)[:, None]
            centers = self.torch.where(counts[:, None] > 0, means, centers)
        return centers.cpu().numpy(), job.max_iter, None


class FlashKMeans(Torch):
    package = "flash-kmeans"

    def __init__(self, **options):
        super().__init__(**options)
        if self.device != "cuda":
            raise RuntimeError("needs a CUDA device")
        # The package's public function falls back to torch silently.
        module = import_module("flash_kmeans.kmeans_triton_impl")
        self.kmeans = module.batch_kmeans_Euclid

    def fit(self, job):
        rows, start = self.upload(self.rows)[None], self.upload(self.start(job))[None]
        labels, centers, n_iter = self.kmeans(
            rows, job.k, max_iters=job.max_iter, tol=-1.0, init_centroids=start
        )
        return centers[0].float().cpu().numpy(), n_iter, labels[0].cpu().numpy()


class Listener(io.TextIOBase):
    """Remembers when which line was printed."""

    def __init__(self):
        self.lines = []

    def write(self, text):
        if text.strip():
            self.lines.append((time.perf_counter(), text))
        return len(text)

    def stages(self, start, end):
        """Seconds of seeding and of what comes after the last iteration.

        scikit-learn and those who follow it print "Initialization complete" and "Converged" if
        they are verbose. Between two restarts lie the end of one and the seeding of the next.
        """
        if not self.lines:
            return {}
        final = end - self.lines[-1][0]
        seeding, last, converged = 0.0, start, False
        for moment, text in self.lines:
            if text.startswith("Initialization complete"):
                seeding += moment - last - (final if converged else 0)
            last, converged = moment, text.startswith("Converged")
        return {"seeding": seeding, "final": final}


class Server:
    """Answers the jobs."""

    def __init__(self, kind, options):
        started = time.perf_counter()
        self.arm = globals()[kind](**options)
        self.import_seconds = time.perf_counter() - started

    def describe(self):
        """Versions, and which kernels multiply matrices."""
        versions = {"python": sys.version.split()[0], "import_seconds": self.import_seconds}
        loaded = [name for name in ("mlx", "torch", "triton") if name in sys.modules]
        for package in dict.fromkeys([self.arm.package, "numpy", *loaded]):
            with suppress(PackageNotFoundError):
                versions[package] = version(package)
        pools = []
        with suppress(ImportError):
            from threadpoolctl import threadpool_info

            for pool in threadpool_info():
                kernel = pool.get("architecture", pool["internal_api"])
                pools.append(f"{Path(pool['filepath']).stem}: {kernel} x {pool['num_threads']}")
        return {"versions": versions, "threadpools": pools}

    def load(self, path, source, shape):
        """Read rows from a file in blocks, so that only the wanted precision is held whole."""
        rows = np.empty(shape, dtype=self.arm.dtype or source)
        step = max(1, (1 << 22) // shape[1])
        with open(path, "rb") as file:
            for part in range(0, len(rows), step):
                block = rows[part : part + step]
                block[:] = np.fromfile(file, source, block.size).reshape(block.shape)
        self.arm.hold(rows)
        return {}

    def fit(self, init=None, rows=None, out=None, staged=False, **job):
        """Fit once. `staged`: verbosely, to see when each stage ended."""
        init = None if init is None else np.load(init)
        job = SimpleNamespace(init=init, rows=rows, staged=staged, **job)
        self.arm.prepare(job)
        reset_peak()
        watch = Listener()
        with redirect_stdout(watch):
            start = time.perf_counter()
            centers, n_iter, labels = self.arm.fit(job)
            end = time.perf_counter()
        if out is not None:
            np.save(f"{out}.centers.npy", np.asarray(centers, dtype=np.float64) * self.arm.divide)
            if labels is not None:
                np.save(f"{out}.labels.npy", np.asarray(labels))
        return {
            "seconds": end - start,
            "n_iter": int(n_iter),
            "stages": watch.stages(start, end) if staged else {},
            "peak_bytes": peak_bytes(),
            "device_peak_bytes": self.arm.device_peak_bytes,
            "labels": labels is not None,
        }


def reset_peak():
    """Reset the peak, where the system supports it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes():
    """Most memory that this process held at once."""
    # On Linux ru_maxrss starts at what the parent held when it forked.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def main():
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = None
    for line in sys.stdin:
        job = json.loads(line)
        try:
            if server is None:
                server = Server(sys.argv[1], json.loads(sys.argv[2]))
            answer = getattr(server, job.pop("do"))(**job)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
