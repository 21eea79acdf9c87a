"""The command line: python -m benchmarks.variants"""

from benchmarks.variants.run import command

if __name__ == "__main__":
    command()
