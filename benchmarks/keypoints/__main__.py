"""The command line: python -m benchmarks.keypoints"""

from benchmarks.keypoints.run import command

if __name__ == "__main__":
    command()
