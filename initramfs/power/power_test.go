package power

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, eventSize)
	binary.NativeEndian.PutUint64(b, uint64(time.Now().Unix()))
	binary.NativeEndian.PutUint16(b[offsetType:], kind)
	binary.NativeEndian.PutUint16(b[offsetCode:], code)
	binary.NativeEndian.PutUint32(b[offsetValue:], value)
	return b
}

func TestWatch(t *testing.T) {
	stream := bytes.Join([][]byte{
		event(evKey, keyPower, 1), // down
		event(0, 0, 0),            // SYN_REPORT
		event(evKey, keyPower, 2), // repeats
		event(evKey, keyPower, 0), // up
		event(evKey, 30, 1),       // the letter A
		event(3, keyPower, 1),     // an axis of that number
		event(evKey, keyPower, 1),
	}, nil)
	for name, r := range map[string]io.Reader{
		"at once":  bytes.NewReader(stream),
		"in bytes": iotest.OneByteReader(bytes.NewReader(stream)),
		"cut off":  bytes.NewReader(append(stream, event(evKey, keyPower, 1)[:20]...)),
	} {
		n := 0
		if err := Watch(r, func() { n++ }); err == nil {
			t.Errorf("%s: Watch ended without an error", name)
		}
		if n != 2 {
			t.Errorf("%s: %d presses, want 2", name, n)
		}
	}
}

func FuzzWatch(f *testing.F) {
	f.Add(event(evKey, keyPower, 1))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		Watch(bytes.NewReader(b), func() { n++ })
		if n > len(b)/eventSize {
			t.Errorf("%d presses in %d bytes", n, len(b))
		}
	})
}

func TestHasKey(t *testing.T) {
	for _, test := range []struct {
		capabilities string
		want         bool
	}{
		{"10000000000000 0\n", true}, // what the ACPI button has
		{"10000000000000", false},
		{"8000 10000000000000 0\n", true},
		{"402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n", true}, // a keyboard
		{"", false},
		{"x y", false},
	} {
		if got := hasKey(test.capabilities, keyPower); got != test.want {
			t.Errorf("hasKey(%q) = %v, want %v", test.capabilities, got, test.want)
		}
	}
}

func TestButtons(t *testing.T) {
	sysfs := t.TempDir()
	for name, keys := range map[string]string{"event0": "10000000000000 0", "event1": "0", "event2": "10000000000000 0"} {
		dir := filepath.Join(sysfs, "class/input", name, "device/capabilities")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte(keys+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"event0", "event2"}, Buttons(sysfs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEventSize checks struct input_event against the kernel's struct timeval.
func TestEventSize(t *testing.T) {
	if got := binary.Size(unix.Timeval{}) + 8; got != eventSize || offsetType != binary.Size(unix.Timeval{}) {
		t.Errorf("struct input_event has %d bytes, want %d", eventSize, got)
	}
}
