package recipe

import (
	"testing"
	"testing/fstest"

	"github.com/ashlar-hv/ashlar/kernel/kconfig"
)

func input() Input {
	return Input{
		Profile:   Host,
		Source:    Source{Path: "/usr/src/linux.tar.xz", Digest: "00"},
		Options:   []kconfig.Option{{Name: "KVM", Value: "y", Reason: "why", File: "a", Line: 1}},
		Toolchain: "gcc 12",
		Script: fstest.MapFS{
			"tree.go":      {Data: []byte("package recipe")},
			"tree_test.go": {Data: []byte("package recipe")},
		},
	}
}

func hash(t *testing.T, in Input) string {
	t.Helper()
	h, err := in.Hash()
	if err != nil {
		t.Fatalf("Hash = %v", err)
	}
	if len(h) != 32 {
		t.Fatalf("Hash = %q, want 32 digits", h)
	}
	return h
}

func TestHashChangesWithEveryInput(t *testing.T) {
	base := hash(t, input())
	for _, tt := range []struct {
		name   string
		change func(*Input)
		same   bool
	}{
		{"nothing", func(*Input) {}, true},
		{"profile", func(in *Input) { in.Profile = Guest }, false},
		{"source", func(in *Input) { in.Source.Digest = "01" }, false},
		{"place of source", func(in *Input) { in.Source.Path = "/tmp/linux.tar.xz" }, true},
		{"option value", func(in *Input) { in.Options[0].Value = "n" }, false},
		{"option name", func(in *Input) { in.Options[0].Name = "KSM" }, false},
		{"option more", func(in *Input) { in.Options = append(in.Options, kconfig.Option{Name: "SMP", Value: "y"}) }, false},
		{"option less", func(in *Input) { in.Options = nil }, false},
		{"reason", func(in *Input) { in.Options[0].Reason = "because" }, true},
		{"compiler", func(in *Input) { in.Toolchain = "gcc 14" }, false},
		{"script", func(in *Input) { in.Script.(fstest.MapFS)["tree.go"].Data = []byte("package recipe\n") }, false},
		{"script file more", func(in *Input) { in.Script.(fstest.MapFS)["b.go"] = &fstest.MapFile{} }, false},
		{"test of script", func(in *Input) { in.Script.(fstest.MapFS)["tree_test.go"].Data = nil }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input()
			tt.change(&in)
			if got := hash(t, in); (got == base) != tt.same {
				t.Errorf("Hash = %s, base %s, want same %v", got, base, tt.same)
			}
		})
	}
}

func TestHashCountsOwnSource(t *testing.T) {
	in := NewInput(Host, Source{}, nil, "")
	with := hash(t, in)
	in.Script = fstest.MapFS{}
	if hash(t, in) == with {
		t.Error("Hash does not depend on the build script")
	}
}
