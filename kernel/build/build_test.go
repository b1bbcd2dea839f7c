package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/kernel/recipe"
)

func TestParseArgs(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		output string
	}{
		{[]string{"host"}, "out/bzImage"},
		{[]string{"guest"}, "out/guest-bzImage"},
		{[]string{"guest", "-o", "x/bzImage", "-j", "3", "-keep"}, "x/bzImage"},
	} {
		o, err := parseArgs(tt.args, io.Discard)
		if err != nil || o.output != tt.output || o.profile.Name != tt.args[0] {
			t.Errorf("parseArgs(%q) = %+v, %v, want output %s", tt.args, o, err, tt.output)
		}
	}
	for _, args := range [][]string{nil, {"-o", "x"}, {"router"}, {"host", "more"}, {"host", "-j", "0"}, {"host", "-x"}} {
		if o, err := parseArgs(args, io.Discard); err == nil {
			t.Errorf("parseArgs(%q) = %+v, want an error", args, o)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bzImage", "vmlinux", "config", "version"} {
		write(t, filepath.Join(dir, "cache", name), name)
	}
	out := filepath.Join(dir, "out")
	write(t, filepath.Join(out, "guest-bzImage"), "old")
	if err := install(filepath.Join(dir, "cache"), filepath.Join(out, "guest-bzImage")); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(out)
	if err != nil || len(files) != 4 {
		t.Fatalf("out holds %v, %v, want four files and nothing left over", files, err)
	}
	for to, want := range map[string]string{
		"guest-bzImage": "bzImage", "guest-vmlinux": "vmlinux",
		"guest-bzImage.config": "config", "guest-bzImage.version": "version",
	} {
		if got, err := os.ReadFile(filepath.Join(out, to)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v, want %q", to, got, err, want)
		}
	}
}

func TestInstallWithoutELF(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bzImage", "config", "version"} {
		write(t, filepath.Join(dir, "cache", name), name)
	}
	if err := install(filepath.Join(dir, "cache"), filepath.Join(dir, "kernel")); err != nil {
		t.Error(err)
	}
	if err := install(filepath.Join(dir, "empty"), filepath.Join(dir, "kernel")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("install from an empty folder = %v, want ErrNotExist", err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	waited := 0
	if _, err := lock(ctx, path, func() { waited++ }); !errors.Is(err, context.DeadlineExceeded) || waited != 1 {
		t.Errorf("second lock = %v, waited %d times, want a time-out and 1", err, waited)
	}
	unlock()
	unlock, err = lock(t.Context(), path, nil)
	if err != nil {
		t.Fatalf("lock after unlock = %v", err)
	}
	unlock()
}

func TestArtefactsFromCache(t *testing.T) {
	var out bytes.Buffer
	b := builder{in: recipe.Input{Profile: recipe.Host}, hash: "abc", cache: t.TempDir(), out: &out}
	write(t, filepath.Join(b.cache, "abc", "bzImage"), "x")
	dir, err := b.artefacts(t.Context())
	if err != nil || dir != filepath.Join(b.cache, "abc") || !strings.Contains(out.String(), "from the cache") {
		t.Errorf("artefacts = %q, %v, said %q", dir, err, &out)
	}
}

func TestBuildFailureShowsLogAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "linux.tar.xz")
	write(t, bad, "not a tarball")
	in := recipe.Input{Profile: recipe.Host, Source: recipe.Source{Path: bad, Digest: "00"}}
	b := builder{in: in, hash: "abc", cache: dir, jobs: 1, out: io.Discard}
	_, err := b.artefacts(t.Context())
	if err == nil || !strings.Contains(err.Error(), "unpack linux.tar.xz") || !strings.Contains(err.Error(), "host.log") {
		t.Errorf("artefacts = %v, want the failed step and the log named", err)
	}
	if exists(filepath.Join(dir, "abc")) || exists(filepath.Join(dir, "host.tree")) {
		t.Error("a failed build left a result or its tree")
	}
}

func TestProgressCountsLines(t *testing.T) {
	var log bytes.Buffer
	p := newProgress(&builder{}, &log)
	for _, text := range []string{"  CC a.o\n  CC", " b.o\n"} {
		if _, err := io.WriteString(p, text); err != nil {
			t.Fatal(err)
		}
	}
	if p.count() != 2 || log.String() != "  CC a.o\n  CC b.o\n" {
		t.Errorf("count = %d, log %q", p.count(), &log)
	}
}

func TestSayAgain(t *testing.T) {
	for _, tt := range []struct {
		tty  bool
		want string
	}{
		{false, "kernel host: 1\nkernel host: 2\nkernel host: done\n"},
		{true, eraseLine + "kernel host: 1" + eraseLine + "kernel host: 2" + eraseLine + "kernel host: done\n"},
	} {
		var out bytes.Buffer
		b := builder{in: recipe.Input{Profile: recipe.Host}, out: &out, tty: tt.tty}
		b.sayAgain("1")
		b.sayAgain("2")
		b.say("done")
		if out.String() != tt.want {
			t.Errorf("tty %v: said %q, want %q", tt.tty, &out, tt.want)
		}
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "a\nb\nc\n")
	if got := tail(path, 2); got != "b\nc" {
		t.Errorf("tail = %q, want the last two lines", got)
	}
}
