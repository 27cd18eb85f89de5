"""From two towers into one space: the projection heads (spec alta §2, §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from rrg.connector.options import SharedSpaceOptions


class ProjectionHead(nn.Module):
    """Linear, GELU, LayerNorm, Linear, under CXR-BERT's names."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.dense_to_hidden = nn.Linear(width, out)
        self.LayerNorm = nn.LayerNorm(out, eps=1e-12)
        self.dense_to_output = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """[..., W] → [..., d]."""
        return self.dense_to_output(self.LayerNorm(F.gelu(self.dense_to_hidden(x))))


class SharedSpace(nn.Module):
    """Heads for images and reports, and, where words are compared with patches (`local`), for those."""

    def __init__(self, options: SharedSpaceOptions, image: int, text: int, *, local: bool) -> None:
        super().__init__()
        self.image = ProjectionHead(image, options.width)
        self.text = ProjectionHead(text, options.width)
        self.patches = ProjectionHead(image, options.width) if local else None
        self.words = ProjectionHead(text, options.width) if local else None

    def start_text(self, tensors: dict[str, Tensor]) -> None:
        """Both text heads from the projection head that a text model brought along (`cls_projection_head.*`), if it has one.

        Raises UserError where it is of another width.
        """
        from rrg.errors import UserError

        held = {name.removeprefix("cls_projection_head."): tensor for name, tensor in tensors.items()}
        if not held:
            return
        wrong = [name for name, tensor in self.text.state_dict().items() if name not in held or held[name].shape != tensor.shape]
        if wrong:
            raise UserError(
                f"connector.width: {self.text.dense_to_output.out_features} is not the width of the text model's own projection "
                f"({len(held['dense_to_output.bias']) if 'dense_to_output.bias' in held else '?'}); write that"
            )
        for head in (self.text, self.words):
            if head is not None:
                head.load_state_dict(held)
