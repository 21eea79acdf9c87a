"""The command line: python -m benchmarks.distilled"""

from benchmarks.distilled.run import command

if __name__ == "__main__":
    command()
