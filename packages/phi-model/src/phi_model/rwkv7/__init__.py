"""RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456): a state of constant size for attention.

    model           RWKV7, with the interface of GPT
    reference       the same, plain and slow
    time_mix, channel_mix, shift, layer_norm        what a layer is made of
    wkv_loop, wkv_chunked                           its recurrence, as defined and as computed
    state           what is remembered of a text

>>> from phi_model import ModelConfig, build_model
>>> build_model(ModelConfig.preset("rwkv7-1m")).config.n_non_embedding
952192
"""

from phi_model.rwkv7.model import RWKV7
from phi_model.rwkv7.state import RWKV7State

__all__ = ["RWKV7", "RWKV7State"]
