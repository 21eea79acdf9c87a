"""The command line: python -m benchmarks.atari100k"""

import tyro

from benchmarks.atari100k.benchmark import Atari100kBenchmark, main

if __name__ == "__main__":
    main(tyro.cli(Atari100kBenchmark))
