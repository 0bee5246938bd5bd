// Who owns a key, computed without ws-routing.
//
//	go run . user-42 10.0.0.1:7400 10.0.0.2:7400 10.0.0.3:7400=200
//
// A node may have a weight, 1 to 1000, default 100. Without arguments, questions are read from standard input, one JSON
// object a line, {"key": "user-42", "nodes": {"10.0.0.1:7400": 100}, "ring_seed": "0000000000000000"}, and the owners
// are written, one a line.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"
)

// owner is the id among nodes, from id to weight, that owns key.
func owner(key string, nodes map[string]int, ringSeed uint64) string {
	keyHash := xxh3.HashStringSeed(key, ringSeed)
	equal := allEqual(nodes)
	best, bestDistance := "", math.Inf(1)
	for id, weight := range nodes {
		score := float64(fmix64(xxh3.HashString(id)^keyHash) >> 16)
		distance := -score
		if !equal {
			distance = -math.Log((score+0.5)/(1<<48)) / float64(weight)
		}
		// Go compares strings by bytes: a tie goes to the smaller id.
		if distance < bestDistance || distance == bestDistance && id < best {
			best, bestDistance = id, distance
		}
	}
	return best
}

func allEqual(nodes map[string]int) bool {
	seen := map[int]bool{}
	for _, weight := range nodes {
		seen[weight] = true
	}
	return len(seen) == 1
}

func fmix64(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func main() {
	if len(os.Args) > 1 {
		fmt.Println(owner(os.Args[1], parse(os.Args[2:]), 0))
		return
	}
	questions := json.NewDecoder(os.Stdin)
	for {
		var question struct {
			Key      string
			Nodes    map[string]int
			RingSeed string `json:"ring_seed"`
		}
		if err := questions.Decode(&question); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		ringSeed, err := strconv.ParseUint(question.RingSeed, 16, 64)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(owner(question.Key, question.Nodes, ringSeed))
	}
}

func parse(args []string) map[string]int {
	nodes := map[string]int{}
	for _, arg := range args {
		id, text, weighted := strings.Cut(arg, "=")
		if !weighted {
			text = "100"
		}
		weight, err := strconv.Atoi(text)
		if err != nil {
			log.Fatalf("%s: %v", arg, err)
		}
		nodes[id] = weight
	}
	return nodes
}
