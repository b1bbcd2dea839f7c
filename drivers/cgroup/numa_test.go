package cgroup

import (
	"maps"
	"testing"
)

func TestParseNodes(t *testing.T) {
	for in, want := range map[string]map[int]int64{
		"anon N0=1 N1=2\nshmem N0=4096 N3=8192\nshmem_thp N0=7\n": {0: 4096, 3: 8192},
		"shmem\n":           {},
		"anon N0=1\n":       nil,
		"":                  nil,
		"shmem N0\n":        nil,
		"shmem Nx=1\n":      nil,
		"shmem N0=lots\n":   nil,
		"shmem N0=1 4096\n": nil,
	} {
		got, err := parseNodes(in, "shmem")
		if (err == nil) != (want != nil) || !maps.Equal(got, want) {
			t.Errorf("parseNodes(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}
