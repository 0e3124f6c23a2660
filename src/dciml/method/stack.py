"""A stack of decoder layers, causal throughout. What many sequences share is computed once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dciml.method.layers import DecoderLayer
from dciml.method.masks import causal_bias, padding_bias
from dciml.method.packed import Packing, Picks
from dciml.method.support import Memory, Support


class Stack(nn.Module):
    """Decoder layers; the frame stack and the word stack of the grounding branch are one each."""

    def __init__(self, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))

    def _each(self) -> Iterator[DecoderLayer]:
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            yield layer

    def encode(self, x: Float[Tensor, "rows width"], packing: Packing) -> Float[Tensor, "rows width"]:
        """Without a memory: self-attention and feed-forward only."""
        for layer in self._each():
            x = layer.feed(layer.self_attend(x, packing))
        return x

    def encode_under(
        self,
        x: Float[Tensor, "videos length width"],
        video_of_sequence: Int[Tensor, "sequences"],
        support: Support,
    ) -> Memory:
        """Encode videos under Gaussians; the first layer projects each video once, whatever it is seen under."""
        first, *others = self._each()
        packing, picks = support.packing, support.picks(video_of_sequence, x.shape[1])
        bias = causal_bias(packing.length, x.device)[None] + support.log_weights[:, None]
        rows = first.feed(first.self_attend(x.flatten(0, 1), packing, bias, picks))
        for layer in others:
            rows = layer.feed(layer.self_attend(rows, packing, bias))
        return Memory(rows, packing, support.log_weights[:, None])

    def decode(
        self,
        x: Float[Tensor, "rows width"],
        packing: Packing,
        memory: Memory,
        beside: Int[Tensor, "memories"],
    ) -> Float[Tensor, "out width"]:
        """Decode sequence `beside[i]` beside memory i; the first self-attention knows no memory and runs once for each.

        Returns: packed as `packing.at(beside)`.
        """
        first, *others = self._each()
        picks, decoded = Picks(packing.places(x.device)[beside]), packing.at(beside)
        x = first.feed(first.attend_memory(first.self_attend(x, packing), decoded, memory, picks))
        for layer in others:
            x = layer.feed(layer.attend_memory(layer.self_attend(x, decoded), decoded, memory))
        return x

    def begin(
        self, x: Float[Tensor, "videos length width"], mask: Bool[Tensor, "videos length"]
    ) -> Float[Tensor, "videos length width"]:
        """What `last_row` needs of a video, whatever the sentence: the first self-attention."""
        first, *others = self._each()
        packing = Packing.of(mask)
        return packing.pad(first.self_attend(packing.pack(x), packing)) if others else x

    def last_row(
        self,
        begun: Float[Tensor, "videos length width"],
        mask: Bool[Tensor, "videos length"],
        video_of_query: Int[Tensor, "queries"],
        memory: Memory,
    ) -> Float[Tensor, "queries width"]:
        """What stands at the last real row of each query's video, without the work that no one reads.

        The last layer runs for one row, and the first one turns a video's rows into questions once for its queries.

        Args:
            begun: as `begin` gives it.
        """
        *others, last = self._each()
        packing = Packing.of(mask[video_of_query])
        everywhere = torch.arange(begun.shape[0] * begun.shape[1], device=begun.device).reshape(
            begun.shape[:2]
        )
        rows, picks = begun.flatten(0, 1), Picks(everywhere[video_of_query])
        for index, layer in enumerate(others):
            if index == 0:
                rows = layer.attend_memory(rows, packing, memory, picks)
            else:
                rows = layer.attend_memory(layer.self_attend(rows, packing), packing, memory)
            rows = layer.feed(rows)
        if not others:
            rows = picks.pack(rows, packing)
        end_rows = rows[mask[video_of_query].sum(dim=1).cumsum(dim=0) - 1]
        update = last.self_attention.attend_one(
            end_rows, packing.pad(rows), padding_bias(mask[video_of_query])
        )
        single = Packing.full(len(video_of_query), 1)
        return last.feed(last.attend_memory(last.add(0, end_rows, update), single, memory))
