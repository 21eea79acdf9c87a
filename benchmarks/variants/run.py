"""What was tried to make keypoints and encoders better, one change at a time: python -m benchmarks.variants peaks

The tables: python -m benchmarks.variants.report
"""

from __future__ import annotations

from benchmarks.harness.command import run_one_of
from benchmarks.variants import adam, encoders, features, peaks, persistence, pointnet, softmax


def command() -> None:
    """The command line."""
    run_one_of(
        "variants",
        {
            "features": (features.FeatureBenchmark, features.main),
            "peaks": (peaks.PeaksBenchmark, peaks.main),
            "persistence": (persistence.PersistenceBenchmark, persistence.main),
            "pointnet": (pointnet.VariantsBenchmark, pointnet.main),
            "softmax": (softmax.SoftmaxBenchmark, softmax.main),
            "encoders": (encoders.EncoderBenchmark, encoders.main),
            "adam": (adam.AdamBenchmark, adam.main),
        },
        "Variants of VAE and LSPN, of peaks and their persistence, of the PointNet and its softmax, of the keypoint "
        "encoder, and of Adam.",
    )
