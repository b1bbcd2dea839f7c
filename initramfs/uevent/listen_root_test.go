//go:build roottest

package uevent

import (
	"os"
	"testing"
	"time"
)

// TestListen hears the event that writing to a device's uevent file makes.
func TestListen(t *testing.T) {
	c, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var h Hub
	go h.Run(c)
	wake, stop := h.Listen("mem")
	defer stop()
	if err := os.WriteFile("/sys/devices/virtual/mem/null/uevent", []byte("change"), 0); err != nil {
		t.Fatalf("this test must run as root: %v", err)
	}
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		t.Fatal("no event arrived")
	}
}
