"""The command line: python -m benchmarks.atari100k"""

import sys

import tyro

from benchmarks.atari100k.run import Atari100kBenchmark, main

if __name__ == "__main__":
    try:
        main(tyro.cli(Atari100kBenchmark))
    except (ValueError, OSError, ImportError) as error:
        print(f"atari100k: {error}", file=sys.stderr)
        sys.exit(2)
