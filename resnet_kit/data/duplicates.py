"""Which pictures of a folder are the same: exact, near and mirrored copies."""

import numpy as np

from .file_checks import Seen

NEAR_BITS, NEAR_CORRELATION = 12, 0.96  # of 64 bits; of thumbnails 32 x 32


def find_pairs(seen: list[Seen], block: int = 512) -> list[dict]:
    """Return pairs of pictures that are the same: near hashes first, confirmed by correlation."""
    if len(seen) < 2:
        return []
    bits = np.stack([x.bits for x in seen])
    mirrored = np.stack([x.mirrored_bits for x in seen])
    least = 64 - 2 * NEAR_BITS  # of the sum of 64 products of signs
    found = {}
    for start in range(0, len(seen), block):
        for flipped, others in ((False, bits), (True, mirrored)):
            near = np.argwhere(bits[start : start + block] @ others.T >= least)
            for i, j in near + (start, 0):
                if i < j and (i, j) not in found:
                    pair = _confirmed(seen[i], seen[j], flipped)
                    if pair:
                        found[i, j] = pair
    return [found[key] for key in sorted(found)]


def _confirmed(one: Seen, other: Seen, flipped: bool) -> dict | None:
    theirs = other.thumbnail[:, ::-1] if flipped else other.thumbnail
    correlation = float((one.thumbnail * theirs).mean())
    exact = one.digest == other.digest
    if not exact and correlation < NEAR_CORRELATION:
        return None
    return {
        "file": one.name,
        "other": other.name,
        "kind": "exact" if exact else "mirrored" if flipped else "near",
        "correlation": 1.0 if exact else correlation,
        "across splits": one.split != other.split,
        "across classes": one.label != other.label,
    }
