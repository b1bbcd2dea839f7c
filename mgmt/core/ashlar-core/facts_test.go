package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
)

// TestFollowHost replaces the file as init does, damages it, and mends it.
func TestFollowHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"interface":"e0"}`)
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan string, 16), make(chan struct{})
	go func() {
		defer close(done)
		followHost(ctx, path, time.Millisecond, slog.New(slog.NewTextHandler(io.Discard, nil)),
			func(i layout.HostInfo) { got <- i.Interface })
	}()
	defer func() { cancel(); <-done }()
	for i := range 3 {
		want := fmt.Sprintf("e%d", i)
		select {
		case name := <-got:
			if name != want {
				t.Errorf("interface %s, want %s", name, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no word of %s", want)
		}
		put(`{"interface":`)
		time.Sleep(20 * time.Millisecond)
		put(fmt.Sprintf(`{"interface":"e%d"}`, i+1))
	}
}
