"""A stack of decoder layers, causal throughout. What many sequences share is computed once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dciml.masks import causal_bias, padding_bias
from dciml.models.attention import DecoderLayer
from dciml.models.packing import Packing
from dciml.models.support import Memory, Support


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
        rows, attention = x.flatten(0, 1), first.self_attention
        q, keys = attention.project_queries(rows, picks), attention.project_keys(rows, picks)
        rows = first.add(0, packing.pack(picks.pad(rows)), attention.attend(q, keys, bias, packing))
        rows = first.feed(rows)
        for layer in others:
            rows = layer.feed(layer.self_attend(rows, packing, bias))
        return Memory(rows, packing, support.log_weights[:, None])

    def decode(
        self, x: Float[Tensor, "rows width"], packing: Packing, memory: Memory
    ) -> Float[Tensor, "out width"]:
        """Decode the same sequences beside one or several sets of memories, `len(memory.bias)` / `packing.batch` sets.

        Returns: packed as `packing.repeat(sets)`. The first self-attention does not know the memory and runs once.
        """
        for layer in self._each():
            x = layer.attend_memory(layer.self_attend(x, packing), packing, memory)
            packing = packing.repeat(len(memory.bias) // packing.batch)
            x = layer.feed(x)
        return x

    def last_row(
        self,
        x: Float[Tensor, "videos length width"],
        mask: Bool[Tensor, "videos length"],
        video_of_query: Int[Tensor, "queries"],
        memory: Memory,
    ) -> Float[Tensor, "queries width"]:
        """What stands at the last real row of each query's video, without the work that no one reads.

        The first self-attention does not know the sentence and runs once a video; the last layer runs for one row.
        """
        *others, last = self._each()
        videos, packing = Packing.of(mask), Packing.of(mask[video_of_query])
        ends = mask[video_of_query].sum(dim=1)
        rows = None  # of each query's video, packed
        for layer in others:
            if rows is None:
                shared = layer.self_attend(videos.pack(x), videos)
                rows = packing.pack(videos.pad(shared)[video_of_query])
            else:
                rows = layer.self_attend(rows, packing)
            rows = layer.feed(layer.attend_memory(rows, packing, memory))
        if rows is None:  # a single layer
            rows = packing.pack(x[video_of_query])
        end_rows = rows[ends.cumsum(dim=0) - 1]
        update = last.self_attention.attend_one(
            end_rows, packing.pad(rows), padding_bias(mask[video_of_query])
        )
        single = Packing.full(len(video_of_query), 1)
        return last.feed(last.attend_memory(last.add(0, end_rows, update), single, memory))
