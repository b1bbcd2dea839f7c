package server

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"golang.org/x/sys/unix"
)

// These tests are what somebody tries who has taken over control: they speak on its
// connection, and know every call. Each attempt and its end stand beside each other.

// outside is what lies around core's folders and must stay as it is.
func (fx *fixture) outside(t *testing.T) map[string]string {
	t.Helper()
	top := filepath.Dir(filepath.Dir(fx.path))
	if err := os.WriteFile(filepath.Join(top, "secret"), []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		found[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// strangeIDs are no identifiers, whatever they look like.
var strangeIDs = []string{
	"", ".", "..", "/", "../../secret", "/etc/passwd", strings.Repeat("a", 31), strings.Repeat("a", 33), strings.Repeat("A", 32),
	strings.Repeat("a", 31) + "\x00", strings.Repeat("a", 31) + "/", "../" + strings.Repeat("a", 29), strings.Repeat("ａ", 32),
	strings.Repeat("a", 32) + ".part", strings.Repeat("a", 32) + "\n", strings.Repeat("x", 32), strings.Repeat("a", 4096),
}

// TestTakenOverIdentifiers asks by every method for what is no identifier (refused as such),
// and for what nobody has (never a failure of core's own, and never a descriptor).
func TestTakenOverIdentifiers(t *testing.T) {
	fx := start(t)
	c := fx.dial(t)
	before := fx.outside(t)
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if !methods[name].id {
			continue
		}
		for _, id := range strangeIDs {
			m, files := ask(t, c, hostcall.Call{Method: name, ID: id, Size: 1, Guest: &hostcall.Guest{}})
			if m.Error == nil || m.Error.Code != hostcall.InvalidArgument || m.Error.Field != "id" || len(files) > 0 {
				t.Errorf("%s of %.40q: %+v with %d files", name, id, m.Error, len(files))
			}
		}
		if name == hostcall.ImageCreate || name == hostcall.GuestCreate {
			continue // which make what they name
		}
		m, files := ask(t, c, hostcall.Call{Method: name, ID: id(77), Size: 4096, Device: "disk1"})
		if m.Error != nil && m.Error.Code == hostcall.Internal || len(files) > 0 {
			t.Errorf("%s of nobody's: %+v with %d files", name, m.Error, len(files))
		}
	}
	if after := fx.outside(t); !maps.Equal(before, after) {
		t.Errorf("files were %v and are %v", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}
}

// extremes are calls with numbers and words that are none, for any method.
func extremes() []hostcall.Call {
	paths := []string{"../../../../etc/passwd", "/dev/kvm", "disk-1", "disk99999999999999999999", "nic0/../..", "\x00", strings.Repeat("a", 5000)}
	var calls []hostcall.Call
	for _, n := range []int64{-1, 0, 1, math.MinInt64, math.MaxInt64, 1 << 62, -512} {
		calls = append(calls,
			hostcall.Call{Size: n, Disks: []hostcall.Disk{{Size: n}}, Disk: int(n), NIC: int(n), VCPUs: int(n), Port: uint32(n)},
			hostcall.Call{Disks: make([]hostcall.Disk, 1000), Limits: &protocol.DiskLimits{BytesPerSecond: uint64(n), BurstBytes: uint64(n), OperationsPerSecond: uint64(n)}},
			hostcall.Call{NICLimits: &hostcall.NICLimits{Receive: &hostcall.NetworkLimits{BytesPerSecond: uint64(n)}}},
			hostcall.Call{HugepageSize: &hostcall.HugepageSize{Page: n, Pages: n}},
			hostcall.Call{Guest: &hostcall.Guest{Name: "g", VCPUs: int(n), MaxVCPUs: int(n), MemoryBytes: uint64(n), BalloonBytes: uint64(n), HotplugSlots: int(n),
				Disks: []int64{n}, DiskNumbers: []int{int(n)}, Pluggable: &protocol.Pluggable{MaxBytes: uint64(n), Bytes: uint64(n)},
				NUMA: []protocol.NUMANode{{VCPUs: []int{int(n)}, MemoryBytes: uint64(n), HostNodes: []int{int(n)}, Distances: []int{int(n)}}}}})
	}
	for _, p := range paths {
		calls = append(calls,
			hostcall.Call{Device: p, SerialPort: p, After: p, Force: true},
			hostcall.Call{Disks: []hostcall.Disk{{Image: p, Size: 4096}}, NewNIC: &hostcall.NIC{Network: p, MAC: p}},
			hostcall.Call{Guest: &hostcall.Guest{Name: p, VCPUs: 1, MemoryBytes: 64 << 20, Kernel: p, Initramfs: p, Cmdline: p,
				CPU: &protocol.CPU{Model: p}, Backing: &protocol.Backing{Pages: protocol.Pages(p)}, Board: &protocol.Board{SerialNumber: p, Watchdog: protocol.Action(p)},
				NICs: []hostcall.NIC{{Network: p, MAC: p}}}})
	}
	return calls
}

// TestTakenOverExtremes sends every method with every extreme, about a guest that there is:
// core refuses, in its own words, changes nothing that is not
// named, and answers the next call.
func TestTakenOverExtremes(t *testing.T) {
	fx := start(t)
	c := fx.dial(t)
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.GuestCreate, ID: id(1)}); m.Error != nil {
		t.Fatal(m.Error)
	}
	before := fx.outside(t)
	made := map[hostcall.Method]bool{hostcall.ImageCreate: true, hostcall.GuestCreate: true}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		for i, call := range extremes() {
			if name == hostcall.HugepagesSet && call.HugepageSize != nil && call.HugepageSize.Page > 0 {
				continue // on this machine, which is not the test's to change
			}
			call.Method, call.ID = name, id(1)
			if made[name] {
				call.ID = id(1000 + i)
			}
			m, files := ask(t, c, call)
			if m.Error != nil && (m.Error.Code == hostcall.Internal || m.Error.Message == "" || len(m.Error.Message) > 1000) {
				t.Errorf("%s with extreme %d: %+v", name, i, m.Error)
			}
			if len(files) > 0 && !made[name] {
				t.Errorf("%s with extreme %d brings %d descriptors", name, i, len(files))
			}
			for _, f := range files {
				f.Close()
			}
		}
	}
	after := fx.outside(t)
	for path, text := range before {
		if !strings.Contains(path, "/guests/") && after[path] != text {
			t.Errorf("%s has been changed", path)
		}
	}
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.Host}); m.Error != nil {
		t.Errorf("afterwards: %v", m.Error)
	}
}

// TestTakenOverReplays makes calls again, and in an order that makes no sense.
func TestTakenOverReplays(t *testing.T) {
	fx := start(t)
	c := fx.dial(t)
	for i, tt := range []struct {
		call hostcall.Call
		code hostcall.Code // "" where it is done
	}{
		{hostcall.Call{Method: hostcall.ImageSeal, ID: id(1)}, hostcall.NotFound},
		{hostcall.Call{Method: hostcall.ImageDelete, ID: id(1)}, hostcall.NotFound},
		{hostcall.Call{Method: hostcall.ImageCreate, ID: id(1), Size: 4096}, ""},
		{hostcall.Call{Method: hostcall.GuestCreate, ID: id(2), Disks: []hostcall.Disk{{Image: id(1)}}}, hostcall.FailedPrecondition}, // of an image that is not sealed
		{hostcall.Call{Method: hostcall.ImageSeal, ID: id(1)}, ""},
		{hostcall.Call{Method: hostcall.ImageCreate, ID: id(1), Size: 8192}, hostcall.AlreadyExists},
		{hostcall.Call{Method: hostcall.ImageSeal, ID: id(1)}, ""}, // is sealed already
		{hostcall.Call{Method: hostcall.GuestDelete, ID: id(2)}, hostcall.NotFound},
		{hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: &hostcall.Guest{Name: "g", VCPUs: 1, MemoryBytes: 64 << 20, Kernel: id(1)}}, hostcall.NotFound}, // the identifier of an image
		{hostcall.Call{Method: hostcall.ImageDelete, ID: id(1)}, ""},
		{hostcall.Call{Method: hostcall.ImageDelete, ID: id(1)}, hostcall.NotFound},
		{hostcall.Call{Method: hostcall.ImageOpen, ID: id(1)}, hostcall.NotFound},
	} {
		tt.call.Seq = 7 // always the same
		m, _ := ask(t, c, tt.call)
		if got := code(m); got != tt.code {
			t.Errorf("step %d, %s: %q (%v), want %q", i, tt.call.Method, got, m.Error, tt.code)
		}
	}
}

func code(m hostcall.Message) hostcall.Code {
	if m.Error == nil {
		return ""
	}
	return m.Error.Code
}

// TestTakenOverDescriptors uses what core has handed out in ways that are not meant: of an
// image that has been sealed neither its writable descriptor nor a new one changes a byte.
func TestTakenOverDescriptors(t *testing.T) {
	fx := start(t)
	c := fx.dial(t)
	_, files := ask(t, c, hostcall.Call{Method: hostcall.ImageCreate, ID: id(1), Size: 4096})
	old := files[0]
	if _, err := old.WriteAt([]byte("sound"), 0); err != nil {
		t.Fatal(err)
	}
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.ImageSeal, ID: id(1)}); m.Error != nil {
		t.Fatal(m.Error)
	}
	_, err := old.WriteAt([]byte("taken"), 0)
	t.Logf("writing through the descriptor from before: %v", err)
	_ = old.Truncate(0)
	m, files := ask(t, c, hostcall.Call{Method: hostcall.ImageOpen, ID: id(1)})
	if m.Error != nil || m.Size != 4096 {
		t.Fatalf("open: %+v", m)
	}
	sealed := files[0]
	if _, err := sealed.WriteAt([]byte("taken"), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("writing a sealed image: %v, want EBADF", err)
	}
	if err := sealed.Truncate(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("truncating a sealed image: %v, want EINVAL", err)
	}
	if again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()), os.O_RDWR, 0); err == nil && os.Getuid() != 0 {
		again.Close()
		t.Error("a sealed image could be opened again for writing")
	}
	b := make([]byte, 5)
	if _, err := sealed.ReadAt(b, 0); err != nil || string(b) != "sound" {
		t.Errorf("the image is %q, %v", b, err)
	}
}

// TestTakenOverFloods makes as many calls at once as it can, of all connections that it gets,
// and reads no answer. Nothing of core's grows with it, and control's successor is served.
func TestTakenOverFloods(t *testing.T) {
	fx := start(t)
	done := make(chan int, maxConns)
	for range maxConns {
		c := fx.dial(t)
		go func() {
			n := 0
			for ; n < 20000; n++ {
				if c.Send(hostcall.Call{Seq: 1, Method: hostcall.GuestCreate, ID: "no", Guest: &hostcall.Guest{Name: strings.Repeat("x", 1000)}}) != nil {
					break
				}
			}
			c.Close()
			done <- n
		}()
	}
	for range maxConns {
		if n := <-done; n == 20000 {
			t.Error("20000 calls were taken without an answer read")
		}
	}
	for { // its connections are forgotten when their calls have ended
		fx.s.mu.Lock()
		n := len(fx.s.conns)
		fx.s.mu.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if m, _ := ask(t, fx.dial(t), hostcall.Call{Method: hostcall.Host}); m.Error != nil {
		t.Errorf("afterwards: %v", m.Error)
	}
}
