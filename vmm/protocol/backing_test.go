package protocol

import "testing"

func TestBackingCheck(t *testing.T) {
	for _, tt := range []struct {
		b     *Backing
		size  uint64
		field string // "-" for none
	}{
		{nil, 32 << 20, "-"},
		{&Backing{Populate: true}, 32 << 20, "-"},
		{&Backing{Pages: DefaultPages}, 32 << 20, "-"},
		{&Backing{Pages: TransparentPages}, 34 << 20, "-"},
		{&Backing{Pages: Pages2MiB}, 34 << 20, "-"},
		{&Backing{Pages: Pages2MiB}, 33 << 20, "memoryBytes"},
		{&Backing{Pages: Pages1GiB}, 2 << 30, "-"},
		{&Backing{Pages: Pages1GiB}, 1<<30 + 2<<20, "memoryBytes"},
		{&Backing{Pages: SmallPages}, 32 << 20, "-"},
		{&Backing{Pages: "4MiB"}, 32 << 20, "backing.pages"},
	} {
		got := "-"
		if err := tt.b.Check(tt.size); err != nil {
			got = err.Field
		}
		if got != tt.field {
			t.Errorf("%+v: Check(%d) = %q, want %q", tt.b, tt.size, got, tt.field)
		}
	}
}
