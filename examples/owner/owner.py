#!/usr/bin/env python3
"""Who owns a key, computed without ws-routing.

    pip install xxhash
    python3 owner.py user-42 10.0.0.1:7400 10.0.0.2:7400 10.0.0.3:7400=200

A node may have a weight, 1 to 1000, default 100. Without arguments, questions are read from standard input, one JSON
object a line, {"key": "user-42", "nodes": {"10.0.0.1:7400": 100}, "ring_seed": "0000000000000000"}, and the owners are
written, one a line.
"""

import json
import math
import sys

import xxhash

MASK = (1 << 64) - 1


def owner(key, nodes, ring_seed=0):
    """The id among `nodes`, a dict from id to weight, that owns `key`."""
    key_hash = xxhash.xxh3_64_intdigest(key.encode(), seed=ring_seed)
    equal = len(set(nodes.values())) == 1

    def rank(id):
        score = fmix64(xxhash.xxh3_64_intdigest(id.encode(), seed=0) ^ key_hash) >> 16
        distance = -score if equal else -math.log((score + 0.5) / 2**48) / nodes[id]
        return distance, id.encode()

    return min(nodes, key=rank)


def fmix64(x):
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & MASK
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ x >> 33


def main():
    if len(sys.argv) > 1:
        nodes = {id: int(weight or 100) for id, _, weight in (node.partition("=") for node in sys.argv[2:])}
        print(owner(sys.argv[1], nodes))
        return
    sys.stdin.reconfigure(encoding="utf-8")
    for line in sys.stdin:
        question = json.loads(line)
        print(owner(question["key"], question["nodes"], int(question["ring_seed"], 16)))


if __name__ == "__main__":
    main()
