package memory

import (
	"errors"
	"os"
	"slices"
	"testing"
)

// follower remembers what it has mapped, and refuses to map the region at refuse.
type follower struct {
	t      *testing.T
	mapped []uint64
	refuse uint64
}

var errRefused = errors.New("refused")

func (f *follower) Map(r Region) error {
	if r.GPA == f.refuse && r.GPA != 0 {
		return errRefused
	}
	if slices.Contains(f.mapped, r.GPA) {
		f.t.Errorf("%#x was mapped twice", r.GPA)
	}
	if r.HostAddr == 0 || r.Size == 0 {
		f.t.Errorf("region %+v", r)
	}
	f.mapped = append(f.mapped, r.GPA)
	return nil
}

func (f *follower) Unmap(r Region) error {
	i := slices.Index(f.mapped, r.GPA)
	if i < 0 {
		f.t.Errorf("%#x was unmapped and not mapped", r.GPA)
		return nil
	}
	f.mapped = slices.Delete(f.mapped, i, i+1)
	return nil
}

func (f *follower) want(gpas ...uint64) {
	f.t.Helper()
	if !slices.Equal(f.mapped, gpas) {
		f.t.Errorf("mapped %#x, want %#x", f.mapped, gpas)
	}
}

func TestFollow(t *testing.T) {
	m, _ := newPluggable(t, 32<<20, PluggableConfig{Size: plugSize, Block: plugBlock})
	base := m.Pluggable().GPA
	if err := m.Plug(base+plugBlock, plugBlock); err != nil {
		t.Fatal(err)
	}
	f, g := &follower{t: t}, &follower{t: t, refuse: base + plugBlock}
	if err := m.Follow(f); err != nil {
		t.Fatal(err)
	}
	f.want(0, base+plugBlock)
	if err := m.Follow(g); !errors.Is(err, errRefused) {
		t.Errorf("Follow = %v, want %v", err, errRefused)
	}
	g.want()
	if err := m.Plug(base+2*plugBlock, 2*plugBlock); err != nil {
		t.Fatal(err)
	}
	f.want(0, base+plugBlock, base+2*plugBlock, base+3*plugBlock)
	// A block that cannot be mapped is not plugged in, nor those that came with it.
	f.refuse = base + 5*plugBlock
	if err := m.Plug(base+4*plugBlock, 2*plugBlock); !errors.Is(err, errRefused) {
		t.Errorf("Plug = %v, want %v", err, errRefused)
	}
	if m.Contains(base+4*plugBlock, plugBlock) {
		t.Error("a block is plugged in although its device cannot reach it")
	}
	f.want(0, base+plugBlock, base+2*plugBlock, base+3*plugBlock)
	if err := m.Unplug(base+plugBlock, 2*plugBlock); err != nil {
		t.Fatal(err)
	}
	f.want(0, base+3*plugBlock)
	if err := m.Unfollow(f); err != nil {
		t.Fatal(err)
	}
	f.want()
}

// TestFollowedStays: what a device may use is not given back.
func TestFollowedStays(t *testing.T) {
	const size = 4 << 20
	f, err := Create("test", size)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := Map(f, size)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.WriteAt(0, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	dev := &follower{t: t}
	if err := m.Follow(dev); err != nil {
		t.Fatal(err)
	}
	for _, followed := range []bool{true, false} {
		if m.Followed() != followed {
			t.Fatalf("Followed() = %v", !followed)
		}
		if err := m.Remove(0, size); err != nil {
			t.Fatal(err)
		}
		if left := allocated(t, f); (left == size) != followed {
			t.Errorf("followed: %v, %d bytes of the file are left", followed, left)
		}
		if followed {
			if err := m.Unfollow(dev); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestMapDevice(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "device")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	for _, base := range []uint64{0, PageSize, 3 << 20} {
		d, err := MapDevice(f, 1<<20, 2<<20, base, hugeSize)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(d.HostAddr())%hugeSize != base%hugeSize {
			t.Errorf("base %#x is mapped at %#x", base, d.HostAddr())
		}
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range [][4]uint64{{0, 0, 0, PageSize}, {1, PageSize, 0, PageSize}, {0, PageSize, 1, PageSize}, {0, PageSize, 0, 3 * PageSize}, {0, PageSize, 0, 2 << 30}} {
		if _, err := MapDevice(f, bad[0], bad[1], bad[2], bad[3]); !errors.Is(err, ErrSize) {
			t.Errorf("MapDevice(%#x) = %v, want ErrSize", bad, err)
		}
	}
}
