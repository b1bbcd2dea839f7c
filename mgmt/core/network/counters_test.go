package network

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTapCounters reads counters, and sees those of the host's side as the guest's.
func TestTapCounters(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{
		"rx_packets": "3\n", "rx_bytes": "300\n", "rx_dropped": "1\n", "rx_errors": "4\n",
		"tx_packets": "5\n", "tx_bytes": "18446744073709551615\n", "tx_dropped": "2\n", "tx_errors": "6\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readTapCounters(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"tx_packets": 3, "tx_bytes": 300, "tx_dropped": 1,
		"rx_packets": 5, "rx_bytes": 1<<64 - 1, "rx_dropped": 2, "errors": 10}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("counters (-want +got):\n%s", d)
	}
	if err := os.WriteFile(filepath.Join(dir, "rx_bytes"), []byte("many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readTapCounters(dir); err == nil || got != nil {
		t.Errorf("counters that are no numbers = %v, %v", got, err)
	}
	// Every machine has a loopback interface.
	if _, err := (&Set{}).TapCounters("lo"); err != nil {
		t.Error(err)
	}
	if _, err := (&Set{}).TapCounters("gtap0-0"); err == nil {
		t.Error("a tap that is not there has counters")
	}
}
