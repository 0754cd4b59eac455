"""What a byte-level model needs to read words: an embedding of each word's spelling and of its place in the prompt.

Bytes alone make a model spend its capacity on spelling. Here every byte also carries the embedding of the word it
belongs to, looked up by a hash of the spelling, so that no vocabulary file is needed (hash embeddings: Clark et al.,
"CANINE", 2022; Svenstrup et al., 2017), and the embedding of the word's ordinal number, by which the decoder finds the
word it is about to mark among the encoder's tokens: cross-attention in T5 has no positions of its own.
"""

import torch
from torch import Tensor, nn

FIRST_BYTE = 3  # id of byte 0; below are padding, end and unknown
_BLANK = ord(" ") + FIRST_BYTE
_PLURAL = ord("s") + FIRST_BYTE
_UPPER = range(ord("A") + FIRST_BYTE, ord("Z") + FIRST_BYTE + 1)
_BASE = 0x5851F42D4C957F2D  # odd, so that it can be inverted modulo 2^64
_MIX = -7046029254386353131  # 2^64 divided by the golden ratio, as int64
PLACES = 128


def _signed(value: int) -> int:
    """A number modulo 2^64 as int64 holds it."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _powers(base: int, count: int, device: torch.device) -> Tensor:
    values, value = [], 1
    for _ in range(count):
        values.append(_signed(value))
        value = value * base & ((1 << 64) - 1)
    return torch.tensor(values, dtype=torch.int64, device=device)


def ordinals(ids: Tensor) -> Tensor:
    """Number of the word (B,L) that each byte of a text (B,L) belongs to; a blank belongs to the word behind it."""
    return (ids == _BLANK).cumsum(dim=1).clamp(max=PLACES - 1)


def spelling_hashes(ids: Tensor, rows: int, causal: bool) -> Tensor:
    """Hash (B,L) in [0, rows) of the word each byte belongs to: lower case, one final s dropped.

    causal: of the word as far as it has been written, for a decoder that must not see what comes. `rows`: a power of 2.
    The hash of bytes b_0 ... b_n is the polynomial sum of b_i·p^i modulo 2^64, mixed and cut to its highest bits.
    """
    length = ids.shape[1]
    positions = torch.arange(length, device=ids.device)
    upper = (ids >= _UPPER.start) & (ids < _UPPER.stop)
    letters = torch.where(upper, ids + 32, ids)
    blank = ids == _BLANK
    number = blank.cumsum(dim=1)
    terms = torch.where(blank, 0, letters) * _powers(_BASE, length, ids.device)
    # Where each word begins: one behind its blank.
    start = torch.where(blank, positions + 1, 0).cummax(dim=1).values.clamp(max=length - 1)
    if causal:
        sums = terms.cumsum(dim=1)
        before = torch.where(start > 0, sums.gather(1, (start - 1).clamp(min=0)), 0)
        value = sums - before - torch.where(letters == _PLURAL, terms, 0)
    else:
        whole = torch.zeros(len(ids), length + 1, dtype=torch.int64, device=ids.device).scatter_add(1, number, terms)
        following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], _BLANK)], dim=1)
        last = (following == _BLANK) | (following < FIRST_BYTE)
        plural = torch.where(last & (letters == _PLURAL), terms, 0)
        whole = whole - torch.zeros_like(whole).scatter_add(1, number, plural)
        value = whole.gather(1, number)
    value = value * _powers(pow(_BASE, -1, 1 << 64), length, ids.device)[start]  # as if every word began at byte 0
    bits = rows.bit_length() - 1
    return ((value * _MIX) >> (64 - bits)) & (rows - 1)


class WordEmbedding(nn.Module):
    """(B,L) byte ids -> (B,L,width): the embedding of each byte's word and of the word's place."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.rows = rows
        self.spelling = nn.Embedding(rows, width)
        self.place = nn.Embedding(PLACES, width)
        nn.init.normal_(self.spelling.weight, std=0.5)
        nn.init.normal_(self.place.weight, std=1.0)

    def words(self, ids: Tensor, causal: bool = False) -> Tensor:
        """(B,L,width): the embedding of each byte's word alone."""
        return self.spelling(spelling_hashes(ids, self.rows, causal)) * (ids >= FIRST_BYTE)[..., None]

    def forward(self, ids: Tensor, causal: bool = False) -> Tensor:
        """(B,L) byte ids -> (B,L,width); 0 for padding and marks of the end."""
        return self.words(ids, causal) + self.place(ordinals(ids)) * (ids >= FIRST_BYTE)[..., None]
