"""A stand-in for CUDA's graphs."""


class Recorder:
    """Does again what a function did, on the tensors that it had then; ``made`` counts them."""

    made = 0

    def __init__(self, function):
        Recorder.made += 1
        self.function = function

    def replay(self):
        self.result = self.function()
