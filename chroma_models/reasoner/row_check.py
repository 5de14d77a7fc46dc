"""Hidden rows on their way out: their bytes, and the proof that a row is the one behind its token."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import TorchConfig
from chroma_models.loading import dtype_of

HEAD_ROWS = 16_384  # of the output head compared at a time: float32, 128 MiB at full width
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}  # of the widest logit, which rounding may cost


def row_bytes(row: Tensor) -> bytes:
    """A hidden row on the CPU as TextStep carries it: float32, or bf16 where the engine runs in bf16."""
    plain = row.contiguous()
    return (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain.float()).numpy().tobytes()


class RowCheck:
    """Compares (token, row) pairs with two tensors of the checkpoint, read apart from any engine.

    A row that went through the final norm has, divided by the norm's weight, a mean square of 1; a row tapped before
    it has not. And the output head, applied to the row, must prefer the row's own token; a row of another request or
    of another step would prefer its own. The head is read once, 0.6 GB at full size: seconds, against the minutes an
    independent pass through all layers would take.
    """

    def __init__(self, checkpoint: Checkpoint, config: TorchConfig) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype_of(config)

    @torch.inference_mode()
    def problem(self, steps: Sequence[tuple[int, Tensor | None]]) -> str | None:
        """What is wrong with the greedy steps, in a sentence; None when nothing is."""
        if not steps:
            return "no token came out."
        rows = []
        for i, (_, row) in enumerate(steps):
            if row is None:
                return f"token {i} came without a row."
            if row.shape != (self._checkpoint.architecture.reasoner.hidden,) or not row.is_floating_point():
                return f"row {i} is {row.dtype} {list(row.shape)}."
            rows.append(row.float())
        hidden = torch.stack(rows)
        if not bool(hidden.isfinite().all()):
            return "a row holds values that are not finite."
        return self._norm_problem(hidden) or self._head_problem(hidden, [token for token, _ in steps])

    def _norm_problem(self, hidden: Tensor) -> str | None:
        weight = self._checkpoint.tensor("thinker.model.norm.weight", torch.device("cpu"), torch.float32)
        used = weight.abs() > 1e-3 * weight.abs().max()
        squares = (hidden[:, used] / weight[used]).square().mean(-1)
        worst = float(squares[(squares - 1).abs().argmax()])
        if abs(worst - 1) > (0.05 if bool(used.all()) else 0.5):
            return f"a row has mean square {worst:.3g} where the final norm leaves 1."
        return None

    def _head_problem(self, hidden: Tensor, tokens: list[int]) -> str | None:
        head = self._checkpoint.tensor("thinker.lm_head.weight", torch.device("cpu"), self._dtype)
        logits = torch.cat([F.linear(hidden, part.float()) for part in torch.split(head, HEAD_ROWS)], -1)
        short = logits.amax(-1) - logits.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
        wrong = (short > TOLERANCE[self._dtype] * logits.abs().amax(-1)).nonzero().flatten().tolist()
        if wrong:
            i = wrong[0]
            return f"the output head takes row {i} for token {int(logits[i].argmax())}, not {tokens[i]}."
        return None
