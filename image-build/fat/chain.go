package fat

import (
	"encoding/binary"
	"fmt"
)

func (v *Volume) entry(cluster int) int { return int(binary.LittleEndian.Uint16(v.table[2*cluster:])) }

func (v *Volume) offset(cluster int) int64 {
	return v.dataStart + int64(cluster-2)*v.clusterSize
}

func (v *Volume) valid(cluster int) bool { return cluster >= 2 && cluster < v.clusters+2 }

// chain lists the clusters from first on. Zero is the empty chain.
func (v *Volume) chain(first int) ([]int, error) {
	var out []int
	for c := first; c != 0 && c <= badCluster; c = v.entry(c) {
		if !v.valid(c) || len(out) >= v.clusters {
			return nil, fmt.Errorf("damaged file allocation table: chain from cluster %d leads to %d", first, c)
		}
		out = append(out, c)
	}
	return out, nil
}

// free finds n free clusters, the first ones.
func (v *Volume) free(n int) ([]int, error) {
	out := make([]int, 0, n)
	for c := 2; c < v.clusters+2 && len(out) < n; c++ {
		if v.entry(c) == 0 {
			out = append(out, c)
		}
	}
	if len(out) < n {
		return nil, fmt.Errorf("no room: %d bytes are free, %d are needed", int64(len(out))*v.clusterSize, int64(n)*v.clusterSize)
	}
	return out, nil
}

// link makes clusters a chain, in memory.
func (v *Volume) link(clusters []int) {
	for i, c := range clusters {
		next := endOfChain
		if i+1 < len(clusters) {
			next = clusters[i+1]
		}
		binary.LittleEndian.PutUint16(v.table[2*c:], uint16(next))
	}
}

// release makes clusters free, in memory.
func (v *Volume) release(clusters []int) {
	for _, c := range clusters {
		binary.LittleEndian.PutUint16(v.table[2*c:], 0)
	}
}

// flush writes the sectors of all FATs that hold the entries of clusters.
func (v *Volume) flush(clusters []int) error {
	done := map[int]bool{}
	for _, c := range clusters {
		sector := 2 * c / sectorSize
		if done[sector] {
			continue
		}
		done[sector] = true
		at := sector * sectorSize
		b := v.table[at:min(at+sectorSize, len(v.table))]
		for i := range int64(v.fats) {
			if _, err := v.dev.WriteAt(b, v.fatStart+i*v.fatSize+int64(at)); err != nil {
				return fmt.Errorf("write FAT: %w", err)
			}
		}
	}
	return nil
}

// store puts data into free clusters and returns them; nothing refers to them
// yet.
func (v *Volume) store(data []byte) ([]int, error) {
	clusters, err := v.free(int((int64(len(data)) + v.clusterSize - 1) / v.clusterSize))
	if err != nil {
		return nil, err
	}
	for i, c := range clusters {
		b := make([]byte, v.clusterSize)
		copy(b, data[int64(i)*v.clusterSize:])
		if _, err := v.dev.WriteAt(b, v.offset(c)); err != nil {
			return nil, fmt.Errorf("write cluster %d: %w", c, err)
		}
	}
	v.link(clusters)
	return clusters, v.flush(clusters)
}

// load reads the first size bytes of a chain.
func (v *Volume) load(first int, size int64) ([]byte, error) {
	clusters, err := v.chain(first)
	if err != nil {
		return nil, err
	}
	if size > int64(len(clusters))*v.clusterSize {
		return nil, fmt.Errorf("damaged: is said to have %d bytes, has place for %d", size, int64(len(clusters))*v.clusterSize)
	}
	out := make([]byte, int64(len(clusters))*v.clusterSize)
	for i, c := range clusters {
		if _, err := v.dev.ReadAt(out[int64(i)*v.clusterSize:][:v.clusterSize], v.offset(c)); err != nil {
			return nil, fmt.Errorf("read cluster %d: %w", c, err)
		}
	}
	return out[:size], nil
}
