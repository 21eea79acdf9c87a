"""A value head of one file, as a stranger adds it."""

from torch.nn import functional as F

from sb3_permakey.common.value_heads import Values


class ShiftedValues(Values):
    """A value as the sum of two outputs and a constant, learned by squared errors.

    :param shift: the constant
    """

    def __init__(self, shift=0.5):
        super().__init__(2)
        self.shift = shift

    def expected(self, outputs):
        return outputs.sum(dim=-1) + self.shift

    def places(self, outputs):
        return self.expected(outputs).unsqueeze(-1)

    def losses(self, predicted, targets):
        values = self.expected(predicted)
        return F.mse_loss(values, targets.squeeze(-1), reduction="none"), targets.squeeze(-1) - values.detach()
