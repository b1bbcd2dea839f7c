package xfsimage

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrototype(t *testing.T) {
	got, err := prototype(Tree{
		"bin/a": {File: "src/a", Mode: 0o755}, "bin/b": {Link: "a"}, "dev": {}, "etc/x/y": {File: "y", Mode: 0o4},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `/
0 0
d--755 0 0
bin d--755 0 0
a ---755 0 0 src/a
b l--777 0 0 a
$
dev d--755 0 0
$
etc d--755 0 0
x d--755 0 0
y ---004 0 0 y
$
$
$
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("prototype differs (-want +got):\n%s", d)
	}
	for _, name := range []string{"a b", "../a", "/a", "a//b"} {
		if got, err := prototype(Tree{name: {Link: "x"}}); err == nil {
			t.Errorf("prototype with %q = %q, want an error", name, got)
		}
	}
}
