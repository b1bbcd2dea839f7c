package work

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/wire"
)

// Every load does something, and what it does is counted.
func TestDo(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := wire.Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	commands := []string{
		"blk read rand 4096 2 1", "blk write seq 8192 1 1", "fsync 1", "touch 2 1",
		"send " + s.Address() + " 1", "receive " + s.Address() + " 1", "rtt " + s.Address() + " 1", "packets " + s.Address() + " 1",
	}
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("alone=%t", alone), func(t *testing.T) {
			Alone = alone
			defer func() { Alone = false }()
			for _, command := range commands {
				t.Run(command, func(t *testing.T) {
					r, err := Do(strings.Fields(command), disk)
					if err != nil || r.Ops <= 0 || r.Took < time.Second {
						t.Errorf("Do = %+v, %v", r, err)
					}
				})
			}
		})
	}
}

func TestDoRefuses(t *testing.T) {
	for _, command := range []string{"", "blk", "blk read rand 4096 1", "touch 0 1", "touch -1 1", "dance 1", "rtt 1", "fsync x"} {
		if r, err := Do(strings.Fields(command), "/dev/null"); err == nil || r != (Result{}) {
			t.Errorf("Do(%q) = %+v, %v, want an error", command, r, err)
		}
	}
}
