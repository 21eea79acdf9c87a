"""The command line: python -m benchmarks.atari100k"""

from benchmarks.atari100k.run import command

if __name__ == "__main__":
    command()
