"""What each code of each codebook adds to a frame's embedding."""

import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.layers import TensorSource
from chroma_models.types import CODEBOOKS

EPSILON = 1e-5  # least cluster usage, as Mimi's codebooks have it


def codebook_table(shape: CodecShape, get: TensorSource) -> Tensor:
    """float32 [CODEBOOKS * codebook_size, hidden]: vectors after the output projection, which is linear."""
    tables = []
    for book in range(CODEBOOKS):
        later = book - shape.semantic_quantizers
        quantizer = f"quantizer.{'acoustic' if later >= 0 else 'semantic'}_residual_vector_quantizer"
        codebook = f"{quantizer}.layers.{later if later >= 0 else book}.codebook"
        usage = get(f"{codebook}.cluster_usage").float().clamp(min=EPSILON)
        vectors = get(f"{codebook}.embed_sum").float() / usage[:, None]
        if vectors.shape[1] != shape.hidden:
            vectors = vectors @ get(f"{quantizer}.output_proj.weight").float()[:, :, 0].t()
        tables.append(vectors)
    return torch.cat(tables)
